"""Find the project's label table, or make one from the class folders of the archive."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

from fieldguide.core.errors import FieldguideError
from fieldguide.core.output import counted
from fieldguide.core.params import DataParams
from fieldguide.core.store import SPLITS, Store
from fieldguide.prepare.archives import Archives
from fieldguide.prepare.labels import find_tables, tidy_path
from fieldguide.prepare.layout import files_by_name, read_layout
from fieldguide.prepare.table import can_be_in_table, spelling
from fieldguide.review.label_file import REVIEWED, LabelFile
from fieldguide.review.project import ReviewProject, prefix_of

MADE = Path("data/labels/labels.csv")
_LOCK = Path(".fieldguide/review/labels.lock")


def open_project(
    params: DataParams, archives: Archives, store: Store, folder: Path | None
) -> tuple[ReviewProject, list[str]]:
    """Return the photos and their label table, and notes for the user.

    With `data.labels: none` the table is MADE; if it is missing, `LabelFile.start` writes it.

    Args:
        params: of the project.
        archives: its photos.
        store: has the split of each photo.
        folder: of photos that get no class in a table that is made; None: all photos get one.

    Raises:
        FieldguideError: the table is missing, lies in the archive, cannot be made, or does not fit
            the archive; or MADE has other splits than the store.
    """
    prefix = None if folder is None else prefix_of(params, folder)
    if params.labels != "none":
        table = find_tables(params, archives, files_by_name(archives.members))[0]
        if table.path is None:
            raise FieldguideError(
                f"data.labels: {table.name} lies in {archives.shown}, where it cannot be changed; "
                f"copy it to {MADE.with_name(Path(table.name).name)} and set data.labels to that"
            )
        folders = table.entry.folders if table.entry else ()
        labels = LabelFile(Path(os.path.relpath(table.path)), _LOCK)
        return ReviewProject(params, archives, labels, store, folders), []
    made = MADE.as_posix()
    notes = [
        f"`dvc repro` does not use {made} yet. Before the first decision:",
        f"  1. In params.yaml, set data.labels to {made}",
        f"  2. git add params.yaml {made}",
        '  3. git commit -m "Label table"',
    ]
    if not MADE.exists():
        data, note = _new_table(archives, store, prefix)
        labels = LabelFile(MADE, _LOCK, data)
        return ReviewProject(params, archives, labels, store), [note, *notes]
    try:
        project = ReviewProject(params, archives, LabelFile(MADE, _LOCK), store)
        project.check_splits()
    except FieldguideError as err:
        raise FieldguideError(
            f"{err}\n{made} is of an earlier review. If you need no decision of it, delete it: "
            "`fieldguide review` makes it again"
        ) from err
    return project, notes


def _new_table(archives: Archives, store: Store, without: str | None) -> tuple[bytes, str]:
    """Return a table with a row for each photo in a class folder, sorted by name, and a note.

    A photo keeps the split that it has in the store, so that the table gives the same store.

    Args:
        archives: the photos.
        store: has their splits; other photos get the split of their folder, or train.
        without: photos whose names begin with this get no row.
    """
    split_of = {source: split for split in SPLITS for source in store.split(split).sources}
    rows, changes, seen = [], set(), dict[str, str]()
    for photo in read_layout(archives.shown, archives.members).photos:
        source, label = photo.member.source, spelling(photo.label)
        if without is not None and source.startswith(without):
            changes.add(f"photos in {without} have no class")
            continue
        if not can_be_in_table(source):
            raise FieldguideError(
                f"{archives.shown}: {source!r} cannot be a name in a table; allowed: no control "
                "characters, and no space at the start or the end"
            )
        if seen.setdefault(tidy_path(source), source) != source:
            raise FieldguideError(
                f"{archives.shown}: two files {source!r}, whose accents are stored in different "
                "ways; allowed: one, because a table cannot tell them apart"
            )
        if label != photo.label:
            changes.add(f"class {photo.label!r} is now {label!r}")
        rows.append([source, label, split_of.get(source, photo.split), "", ""])
    if len({label for _, label, *_ in rows}) < 2:  # noqa: PLR2004
        raise FieldguideError(
            f"{without}: without its photos, fewer than two classes are left; allowed: a folder of "
            "photos that have no class yet"
        )
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "label", "split", *REVIEWED])
    writer.writerows(sorted(rows))
    made = f"made from the class folders and the splits of {store.folder}"
    note = "; ".join([f"{MADE}: {made}, {counted(len(rows), 'photo')}", *sorted(changes)])
    return text.getvalue().encode(), note
