"""Output for a terminal of any encoding."""

from __future__ import annotations

import io
import sys


def accept_any_text() -> None:
    """Print characters that the terminal's encoding lacks as escapes.

    By default Python raises UnicodeEncodeError: a command would fail after its work because of a
    dash or the name of a class.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a test may have replaced it
            stream.reconfigure(errors="backslashreplace")
