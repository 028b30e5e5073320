"""What a customer wrote must not run as a formula when a colleague opens the file in a spreadsheet.

https://owasp.org/www-community/attacks/CSV_Injection: a text that begins with = + - @ (or their wide forms), after
white space or not, gets an apostrophe in front, which spreadsheets take for "this is text". Reading takes it off again.
"""

from __future__ import annotations

_STARTS = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
GUARD = "'"


def with_guard(text: str) -> str:
    """The text, harmless in a spreadsheet."""
    return GUARD + text if text.lstrip().startswith(_STARTS) else text


def without_guard(text: str) -> str:
    """The text before it was made harmless."""
    bare = text[1:]
    return bare if text.startswith(GUARD) and with_guard(bare) != bare else text
