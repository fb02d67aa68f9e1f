"""Find the project's label table, or make one from the class folders of the archive."""

from __future__ import annotations

import os
from pathlib import Path

from fieldguide.core.errors import FieldguideError
from fieldguide.core.files import write_csv
from fieldguide.core.output import counted
from fieldguide.core.params import DataParams
from fieldguide.prepare.archives import Archives
from fieldguide.prepare.labels import find_tables
from fieldguide.prepare.layout import files_by_name, read_layout
from fieldguide.prepare.table import can_be_in_table
from fieldguide.review.label_file import REVIEWED_AT, REVIEWED_BY

MADE = Path("data/labels/labels.csv")


def find_table(params: DataParams, archives: Archives) -> tuple[Path, list[str]]:
    """Return the path of the label table, and notes for the user.

    With `data.labels: none` it is MADE, which is made if it is missing.

    Raises:
        FieldguideError: the table is missing, or lies in the archive.
    """
    if params.labels != "none":
        table = find_tables(params, archives, files_by_name(archives.members))[0]
        if table.path is None:
            raise FieldguideError(
                f"data.labels: {table.name} lies in {archives.shown}, where it cannot be changed; "
                f"copy it to {MADE.with_name(Path(table.name).name)} and set data.labels to that"
            )
        return Path(os.path.relpath(table.path)), []
    notes = []
    if not MADE.exists():
        count = _make_table(MADE, archives)
        notes.append(f"{MADE}: made from the class folders, {counted(count, 'photo')}")
    notes.append(
        f"data.labels is none, so `dvc repro` does not read {MADE} yet; set it in params.yaml, or "
        f"run: dvc exp run -S data.labels={MADE.as_posix()}"
    )
    return MADE, notes


def _make_table(path: Path, archives: Archives) -> int:
    """Write a row for each photo in a class folder, sorted by name; return how many there are."""
    photos = read_layout(archives.shown, archives.members).photos
    for photo in photos:
        source = photo.member.source
        if not can_be_in_table(source):
            raise FieldguideError(
                f"{archives.shown}: {source!r} cannot be a name in a table; allowed: no control "
                "characters, and no space at the start or the end"
            )
    header, rows = ["file", "label"], [[photo.member.source, photo.label] for photo in photos]
    if any(photo.split != "train" for photo in photos):
        header.append("split")
        rows = [[*row, photo.split] for row, photo in zip(rows, photos, strict=True)]
    header += [REVIEWED_BY, REVIEWED_AT]
    write_csv(path, header, ([*row, "", ""] for row in sorted(rows)))
    return len(rows)
