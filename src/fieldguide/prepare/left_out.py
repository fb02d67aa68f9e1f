"""Every file that is in no split, with the reason."""

from __future__ import annotations

from typing import NamedTuple

UNREADABLE, TOO_SMALL, TOO_LARGE = "unreadable", "too small", "too large"
DUPLICATE, MISPLACED, NOT_A_PHOTO = "duplicate", "misplaced", "not a photo"
# A photo has one of the first five; a file that is not a photo has the last one.
REASONS = (UNREADABLE, TOO_SMALL, TOO_LARGE, DUPLICATE, MISPLACED, NOT_A_PHOTO)


class LeftOut(NamedTuple):
    """A file that is in no split; hidden files are not counted."""

    file: str  # name in the archive, with the archive's name in front if there are several
    label: str  # class; empty if the file is in no class folder
    reason: str  # one of REASONS
    detail: str
