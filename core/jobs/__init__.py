"""Use cases. Each can be killed at any instruction and leaves its input in a row until its output is committed."""
