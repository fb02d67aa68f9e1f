"""Every file that is in no split, with the reason."""

from __future__ import annotations

from typing import NamedTuple

UNREADABLE, TOO_SMALL, TOO_LARGE = "unreadable", "too small", "too large"
DUPLICATE, NEAR_COPY, STRADDLING, RARE = (
    "duplicate",
    "near-copy",
    "group in two splits",
    "rare class",
)
MISPLACED, NO_CLASS, NO_FILE = "misplaced", "no class", "no such file"
NOT_A_PHOTO = "not a photo"
# The last one is for files that are no photos, the one before for rows of a label table.
REASONS = (
    *(UNREADABLE, TOO_SMALL, TOO_LARGE, DUPLICATE, NEAR_COPY, STRADDLING, RARE),
    *(MISPLACED, NO_CLASS, NO_FILE, NOT_A_PHOTO),
)

COLUMNS = ("file", "class", "reason", "detail", "other_file", "other_class")  # of left_out.csv


class LeftOut(NamedTuple):
    """A file that is in no split, or a row of a label table without a file; no hidden files."""

    file: str  # name in the archive, with the archive's name in front if there are several
    label: str  # class; empty if the file has none
    reason: str  # one of REASONS
    detail: str
    other_file: str = ""  # photo that this one equals or looks like; empty for other reasons
    other_label: str = ""  # class of that photo
