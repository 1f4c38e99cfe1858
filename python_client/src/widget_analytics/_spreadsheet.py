"""Keeps text from being run as a formula where a CSV file is opened in a spreadsheet."""

from __future__ import annotations

import re

# = + - @ begin a formula, as do their full-width forms in some locales; TAB and CR are skipped before one. A program
# that splits cells at another separator than ours, or minds quotes less, sees a cell begin after any of , ; | " too,
# or on a new line: the mark is needed there as well.
_FORMULA = re.compile(
    r"""
    ^ (?= [\t\r] )
    | (?: ^ | (?<= [,;|"'\t\r\n] ) ) (?= \s* [=+\-@＝＋－＠] )
    """,  # noqa: RUF001 (the full-width forms are meant)
    re.VERBOSE,
)


def safe_text(text: str) -> str:
    """Put an apostrophe before whatever could begin a formula; a spreadsheet shows the rest as text.

    This changes the text. Who needs ids to the letter exports JSON Lines.
    """
    return _FORMULA.sub("'", text)


# Of each byte of UTF-8: "-" begins a formula where a cell may begin, "!" hides that one does ("\xef" begins the
# full-width forms), "a" is no place for a cell to begin after, and all others might be.
_MEANING = bytes(
    ord("!") if byte in b"\t\r\xef"
    else ord("-") if byte in b"=+-@"
    else ord("a") if chr(byte).isascii() and chr(byte).isalnum()
    else ord(" ")
    for byte in range(256)
)  # fmt: skip


def is_surely_safe(lines: bytes) -> bool:
    """Say of many lines of CSV at once that `safe_text` would change none of their cells; False: perhaps it would."""
    meanings = lines.translate(_MEANING)
    return not (b"!" in meanings or b" -" in meanings or meanings.startswith(b"-"))
