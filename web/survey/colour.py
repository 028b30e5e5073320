"""The accent colour of a survey, and a text colour that can be read on it (WCAG 2.2, contrast ratio)."""

from __future__ import annotations

WHITE, BLACK = "#ffffff", "#111111"
_READABLE = 4.5


def text_on(colour: str) -> str:
    """White or near-black, whichever reads better on this colour (`#rrggbb`)."""
    return WHITE if contrast(colour, WHITE) >= contrast(colour, BLACK) else BLACK


def readable_on(colour: str, paper: str, ink: str) -> str:
    """The colour itself where it can be read on `paper`, else `ink`: for links and numbers."""
    return colour if contrast(colour, paper) >= _READABLE else ink


def contrast(one: str, other: str) -> float:
    """From 1 (none) to 21 (black on white)."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    red, green, blue = (_linear(int(colour[i : i + 2], 16) / 255) for i in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else float(((channel + 0.055) / 1.055) ** 2.4)
