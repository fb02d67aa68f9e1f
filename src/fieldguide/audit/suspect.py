"""One doubt about one photo: a row of the audit's CSV file."""

from __future__ import annotations

from typing import NamedTuple

# Kinds of doubt, with the titles of their sections on the page, in its order.
LABEL, COPY = "label", "copy in another class"
DARK, BRIGHT, BLURRED, EMPTY, SHAPE, SIZE = "dark", "bright", "blurred", "empty", "shape", "size"
TITLES = {
    LABEL: "Labels that are probably wrong",
    COPY: "The same photo in two classes",
    DARK: "Too dark",
    BRIGHT: "Too bright",
    BLURRED: "Blurred",
    EMPTY: "Nearly empty",
    SHAPE: "Odd shape",
    SIZE: "Odd size",
}

# Columns of the audit's CSV file: the fields of Suspect.
COLUMNS = ("file", "split", "class", "suggested class", "kind", "score", "detail", "other file")


class Suspect(NamedTuple):
    """A photo and why it is doubtful. A photo with several doubts is several suspects."""

    file: str  # name in the archive, as in the prepared store
    split: str  # "train", "val" or "test"; "left out" if `prepare` left the photo out
    label: str  # class
    suggested: str  # class that the photo probably has; empty if the label is not the doubt
    kind: str  # key of TITLES
    score: float  # in [0, 1]; 1 is worst
    detail: str  # measured values, for people
    other: str = ""  # name of the photo that this one is a copy of; empty for other kinds


def worst_first(suspects: list[Suspect]) -> list[Suspect]:
    """Sort by score, rounded to 4 digits as in the CSV file; equal ones by name and kind."""
    rounded = [one._replace(score=round(one.score, 4)) for one in suspects]
    return sorted(rounded, key=lambda one: (-one.score, one.file, one.kind))
