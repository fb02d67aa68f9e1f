"""Text for people: in a terminal of any encoding, and not too long."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence


def cut(text: str, longest: int = 28) -> str:
    """Shorten a text, by default so that a name fits above a photo or beside an axis."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: 1 file, 2 files, 1,000 files."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: Sequence[str], most: int = 10) -> str:
    """Return names as text, of many only the first ones: a, b and 3 more."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def accept_any_text() -> None:
    """Print characters that the terminal's encoding lacks as escapes.

    By default Python raises UnicodeEncodeError: a command would fail after its work because of a
    dash or the name of a class.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a test may have replaced it
            stream.reconfigure(errors="backslashreplace")


def print_utf8() -> None:
    """Write UTF-8 to stdout from now on, on every terminal: a program reads what follows."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
