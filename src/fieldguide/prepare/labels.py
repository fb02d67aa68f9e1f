"""Find the class, the split and the group of each photo in a label table."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fieldguide.core.errors import ArchiveError
from fieldguide.core.output import counted, listed
from fieldguide.core.params import DataParams
from fieldguide.prepare.archives import Archives
from fieldguide.prepare.layout import (
    SPLIT_OF,
    Found,
    Layout,
    Photo,
    check_photos,
    checked_classes,
    files_by_name,
    spelling_key,
    split_by_folder,
    top_folder,
)
from fieldguide.prepare.left_out import NO_CLASS, NO_FILE, NOT_A_PHOTO, LeftOut
from fieldguide.prepare.member import UnreadableMemberError
from fieldguide.prepare.names import has_photo_suffix, shown_suffix
from fieldguide.prepare.table import (
    Row,
    Table,
    can_be_in_table,
    read_table,
    refuse,
    spelling,
)


class Labelled(NamedTuple):
    """A row of the table and its file."""

    row: Row
    found: Found


def read_labels(params: DataParams, archives: Archives) -> Layout:
    """Read the table that `data.labels` names; see `table.read_table` for its formats.

    A path in the table begins in the table's own folder, at the top of the archive, or in the
    folder that all photos share: where most files are found. Without a column of splits, folders
    called train, val and test are the splits.

    Raises:
        ArchiveError: the table is missing or cannot be read; no file of it, or fewer than
            1 - `data.max_unreadable`, is in the archive; or rows contradict each other, or write a
            class in two ways. The message names the rows.
    """
    found = files_by_name(archives.members)
    check_photos(archives.shown, found)
    warnings: list[str] = []
    labelled: list[Labelled] = []
    missing: list[Row] = []
    tables = find_tables(params, archives, found)
    for file in tables:
        table = read_table(file.name, file.data, params.group_columns)
        if len(tables) > 1:
            rows = [row._replace(place=f"{file.name}, {row.place}") for row in table.rows]
            table = table._replace(rows=rows)
        warnings += table.warnings
        matched = match_rows(table, found, file.entry.folders if file.entry else ())
        labelled += matched.labelled
        missing += matched.missing
    name = params.labels
    check_missing(name, labelled, missing, archives, params)
    labelled = _one_row_each(name, _spelled(name, labelled, warnings), warnings)
    photos, left_out = _photos(name, labelled, splits_of_rows(name, labelled))
    left_out += [
        LeftOut(row.file, spelling(row.label), NO_FILE, f"{row.place} of {name}") for row in missing
    ]
    in_table = {id(one) for _, one in labelled} | {id(file.entry) for file in tables}
    for one in found:
        if id(one) not in in_table:
            reason, detail = NO_CLASS, f"not in {name}"
            if not one.is_photo:
                reason, detail = NOT_A_PHOTO, shown_suffix(one.member.name)
            left_out.append(LeftOut(one.member.source, "", reason, detail))
    gone = {spelling(row.label) for row in missing} - {photo.label for photo in photos} - {""}
    if gone:
        warnings.append(f"{name}: classes without any photo: {listed(sorted(gone))}")
    return Layout(photos, checked_classes(name, photos, []), left_out, warnings)


def check_missing(
    table: str,
    labelled: Sequence[Labelled],
    missing: Sequence[Row],
    archives: Archives,
    params: DataParams,
) -> None:
    """Refuse a table of which no file, or fewer than allowed, are in the archive."""
    count = len(labelled) + len(missing)
    if not labelled:
        photo = next(one.name for one in archives.members if has_photo_suffix(one.name))
        raise ArchiveError(
            f"{table}: no file of its {counted(count, 'row')}, such as {missing[0].file!r} "
            f"({missing[0].place}), is in {archives.shown}, which has {photo!r}"
        )
    if len(missing) > params.max_unreadable * count:
        what = (
            f"name no file of {archives.shown} ({len(missing) / count:.1%}); allowed: "
            f"data.max_unreadable {params.max_unreadable}"
        )
        refuse(table, [f"{row.place}: {row.file}" for row in missing], what)


def _photos(
    table: str, labelled: Sequence[Labelled], splits: Sequence[str]
) -> tuple[list[Photo], list[LeftOut]]:
    """Return the photos that have a class, by name, and the other files of the table.

    Args:
        table: its name.
        labelled: rows and their files.
        splits: of each row.
    """
    photos, left_out = [], []
    unread: dict[str, list[str]] = defaultdict(list)  # by class: files that are no photos
    for (row, one), split in zip(labelled, splits, strict=True):
        source = one.member.source
        if not row.label:
            why = row.why or "the class is empty"
            left_out.append(LeftOut(source, "", NO_CLASS, f"{row.place}: {why}"))
        elif not one.is_photo:
            detail = shown_suffix(one.member.name)
            left_out.append(LeftOut(source, row.label, NOT_A_PHOTO, detail))
            unread[row.label].append(f"{row.place}: {source}")
        else:
            # A photo whose site or sequence is unknown belongs to no known group.
            group = row.group if all(row.group) else ()
            photos.append(Photo(one.member, split, row.label, group))
    for label in sorted(unread.keys() - {photo.label for photo in photos}):
        refuse(table, unread[label], f"are all of class {label!r}, and cannot be read as photos")
    photos.sort(key=lambda photo: (photo.member.name, photo.member.archive, photo.member.place))
    return photos, left_out


class TableFile(NamedTuple):
    """A table before it is read."""

    name: str
    data: bytes
    entry: Found | None  # its entry if it is one of the archive's files
    path: Path | None = None  # if it is a file of the project


def find_tables(params: DataParams, archives: Archives, found: Sequence[Found]) -> list[TableFile]:
    """Return the table; or several, if folders of the archive have one of the same name.

    Hugging Face's layout is train/metadata.csv and test/metadata.csv.
    """
    given = [params.archive] if isinstance(params.archive, str) else params.archive
    folders = [Path(place).absolute() for place in given if Path(place).is_dir()]
    for path in (Path(params.labels).absolute(), *(folder / params.labels for folder in folders)):
        if path.is_file():
            inside = {path.relative_to(f).as_posix() for f in folders if path.is_relative_to(f)}
            entry = next((one for one in found if one.member.source in inside), None)
            try:
                return [TableFile(params.labels, path.read_bytes(), entry, path)]
            except OSError as err:
                raise ArchiveError(f"data.labels: {path}: cannot be read ({err.strerror})") from err
    wanted = unicodedata.normalize("NFC", params.labels).removeprefix("./")
    matches = [one for one in found if f"/{_path(one)}".endswith(f"/{wanted}")]
    if not matches:
        here = Path("data/labels") / Path(params.labels).name
        hint = f"; did you mean {here}?" if here.is_file() else ""
        raise ArchiveError(
            f"data.labels: {params.labels}: found neither in {archives.shown} nor in this project; "
            f"allowed: none, a path of this project such as data/labels/labels.csv, or a file of "
            f"the archive{hint}"
        )
    try:
        return [TableFile(one.member.source, archives.read(one.member), one) for one in matches]
    except UnreadableMemberError as err:
        raise ArchiveError(f"data.labels: {params.labels}: {err}") from err


def _path(found: Found) -> str:
    """Return the path of a file with composed letters (NFC) and the archive's name in front."""
    return unicodedata.normalize("NFC", found.member.source)


def _spelled(table: str, labelled: Sequence[Labelled], warnings: list[str]) -> list[Labelled]:
    """Return the rows with tidy class names; refuse names that differ in upper and lower case."""
    tidy = [one._replace(row=one.row._replace(label=spelling(one.row.label))) for one in labelled]
    changed = [
        new.row.place
        for old, new in zip(labelled, tidy, strict=True)
        if old.row.label != new.row.label
    ]
    if changed:
        warnings.append(
            f"{table}: class names whose spaces or accents were tidied: {listed(changed)}"
        )
    by_key: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row, _ in tidy:
        by_key[spelling_key(row.label)][row.label].append(row.place)
    problems = []
    for places_of in by_key.values():
        first, *others = sorted(places_of, key=lambda label: (-len(places_of[label]), label))
        for label in others:
            problems += [
                f"{place}: class {label!r}; {places_of[first][0]} has {first!r}"
                for place in places_of[label]
            ]
    if problems:
        refuse(table, problems, "write a class in another way (upper and lower case, spaces)")
    return tidy


class Matched(NamedTuple):
    """Rows of a table and the files that they name."""

    labelled: list[Labelled]
    missing: list[Row]  # without a file
    start: str  # what every path of the table lacks: a folder with a slash, or nothing
    by_path: dict[str, list[Found]]

    def name_of(self, found: Found) -> str | None:
        """Return what a row must say to name a file; None if no text names this file alone."""
        for path in (tidy_path(found.member.source), tidy_path(found.member.name)):
            name = path.removeprefix(self.start)
            if f"{self.start}{name}" == path and self.by_path[path] == [found]:
                return name if can_be_in_table(name) else None
        return None


def match_rows(table: Table, found: Sequence[Found], folder: Sequence[str] = ()) -> Matched:
    """Find the file of each row.

    Args:
        table: whose rows to match.
        found: all files.
        folder: of the table, if it is in the archive.

    Raises:
        ArchiveError: a row may name several files.
    """
    by_path: dict[str, list[Found]] = defaultdict(list)
    for one in found:
        for path in {tidy_path(one.member.source), tidy_path(one.member.name)}:
            by_path[path].append(one)
    files = [tidy_path(row.file) for row in table.rows]
    shared = _shared_folder([one.folders for one in found if one.is_photo])
    starts = [f"{'/'.join(names)}/" if names else "" for names in (folder, (), shared)]
    start = max(starts, key=lambda start: sum(f"{start}{file}" in by_path for file in files))
    labelled, missing, problems = [], [], []
    for row, file in zip(table.rows, files, strict=True):
        matches = by_path.get(f"{start}{file}", [])
        if len(matches) > 1:
            both = " and ".join(one.member.source for one in matches[:2])
            problems.append(f"{row.place}: {row.file} may be {both}; write the archive's name too")
        elif matches:
            labelled.append(Labelled(row, matches[0]))
        else:
            missing.append(row)
    if problems:
        refuse(table.name, problems)
    return Matched(labelled, missing, start, by_path)


def tidy_path(file: str) -> str:
    """Return a path with composed letters (NFC) and slashes; Windows writes backslashes."""
    names = unicodedata.normalize("NFC", file).replace("\\", "/").split("/")
    return "/".join(name for name in names if name not in ("", "."))


def _shared_folder(every: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the folders that all photos are in."""
    first, last = min(every), max(every)
    same = [a == b for a, b in zip(first, last, strict=False)]
    return first[: [*same, False].index(False)]


def _one_row_each(table: str, labelled: Sequence[Labelled], warnings: list[str]) -> list[Labelled]:
    """Leave out rows that are there twice; refuse two rows of a file that contradict each other."""
    first: dict[int, Row] = {}
    once, problems, repeated = [], [], []
    for row, found in labelled:
        before = first.setdefault(id(found), row)
        if before is row:
            once.append(Labelled(row, found))
        elif before._replace(place="", file="") == row._replace(place="", file=""):
            repeated.append(f"{row.place} ({before.place})")
        else:
            for name in ("label", "split", "group"):
                values = [
                    value if isinstance(value, str) else ", ".join(value)
                    for value in (getattr(row, name), getattr(before, name))
                ]
                if values[0] != values[1]:
                    problems.append(
                        f"{row.place}: {row.file}: {name} {values[0]!r}; {before.place} has "
                        f"{values[1]!r}"
                    )
    if problems:
        refuse(table, problems, "contradict another row")
    if repeated:
        warnings.append(f"{table}: rows that repeat another one: {listed(repeated)}")
    return once


def splits_of_rows(table: str, labelled: Sequence[Labelled]) -> list[str]:
    """Return the split of each row: of the column, else by folder, else train."""
    if any(row.split for row, _ in labelled):
        problems = [
            f"{row.place}: split {row.split!r}; allowed: train, val, test"
            for row, _ in labelled
            if row.label and row.split.lower() not in SPLIT_OF
        ]
        if problems:
            refuse(table, problems)
        return [SPLIT_OF.get(row.split.lower(), "train") for row, _ in labelled]
    top = len(top_folder({found.folders for _, found in labelled}))
    folders = ["".join(found.folders[top : top + 1]).lower() for _, found in labelled]
    split_of = split_by_folder(folders)
    # A folder that is called train may also be a class of vehicles.
    if not split_of or set(folders) & SPLIT_OF.keys() == {"train"}:
        return ["train"] * len(labelled)
    problems = [
        f"{row.place}: {found.member.source} is in no folder of a split; write a column split"
        for (row, found), folder in zip(labelled, folders, strict=True)
        if folder not in split_of
    ]
    if problems:
        refuse(table, problems)
    return [split_of[folder] for folder in folders]
