"""Boucle's core: it decides who may be asked and remembers what happened. It names no vendor and speaks no HTTP."""
