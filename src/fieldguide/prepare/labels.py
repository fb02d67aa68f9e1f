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
    split_by_folder,
    top_folder,
)
from fieldguide.prepare.left_out import NO_CLASS, NO_FILE, NOT_A_PHOTO, LeftOut
from fieldguide.prepare.member import UnreadableMemberError
from fieldguide.prepare.names import has_photo_suffix, suffix_of
from fieldguide.prepare.table import Row, Table, read_table, refuse, spelling


class _Labelled(NamedTuple):
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
    name, data, inside = _find_table(params, archives, found)
    table = read_table(name, data, params.group_columns)
    warnings = list(table.warnings)
    rows = _spelled(table, warnings)
    labelled, missing = _match(name, rows, found, inside.folders if inside else ())
    _check_missing(table, labelled, missing, archives, params)
    labelled = _one_row_each(name, labelled, warnings)
    split_of = _splits(table, labelled)
    photos, left_out = _photos(name, labelled, split_of)
    left_out += [LeftOut(row.file, row.label, NO_FILE, f"{row.place} of {name}") for row in missing]
    in_table = {id(one) for _, one in labelled} | {id(inside)}
    for one in found:
        if id(one) not in in_table:
            reason, detail = NO_CLASS, f"not in {name}"
            if not one.is_photo:
                reason, detail = NOT_A_PHOTO, suffix_of(one.member.name) or "no suffix"
            left_out.append(LeftOut(one.member.source, "", reason, detail))
    gone = {row.label for row in missing if row.label} - {photo.label for photo in photos}
    if gone:
        warnings.append(f"{name}: classes without any photo: {listed(sorted(gone))}")
    return Layout(photos, checked_classes(name, photos, []), left_out, warnings)


def _check_missing(
    table: Table,
    labelled: Sequence[_Labelled],
    missing: Sequence[Row],
    archives: Archives,
    params: DataParams,
) -> None:
    """Refuse a table of which no file, or fewer than allowed, are in the archive."""
    count = len(table.rows)
    if not labelled:
        photo = next(one.name for one in archives.members if has_photo_suffix(one.name))
        raise ArchiveError(
            f"{table.name}: no file of its {counted(count, 'row')}, such as {missing[0].file!r} "
            f"({missing[0].place}), is in {archives.shown}, which has {photo!r}"
        )
    if len(missing) > params.max_unreadable * count:
        what = (
            f"name no file of {archives.shown} ({len(missing) / count:.1%}); allowed: "
            f"data.max_unreadable {params.max_unreadable}"
        )
        refuse(table.name, [f"{row.place}: {row.file}" for row in missing], what)


def _photos(
    table: str, labelled: Sequence[_Labelled], split_of: dict[str, str]
) -> tuple[list[Photo], list[LeftOut]]:
    """Return the photos that have a class, by name, and the other files of the table."""
    photos, left_out = [], []
    unread: dict[str, list[str]] = defaultdict(list)  # by class: files that are no photos
    for row, one in labelled:
        source = one.member.source
        if not row.label:
            why = row.why or "the class is empty"
            left_out.append(LeftOut(source, "", NO_CLASS, f"{row.place}: {why}"))
        elif not one.is_photo:
            detail = suffix_of(one.member.name) or "no suffix"
            left_out.append(LeftOut(source, row.label, NOT_A_PHOTO, detail))
            unread[row.label].append(f"{row.place}: {source}")
        else:
            group = row.group if any(row.group) else ()
            photos.append(Photo(one.member, split_of[row.place], row.label, group))
    for label in sorted(unread.keys() - {photo.label for photo in photos}):
        refuse(table, unread[label], f"are all of class {label!r}, and cannot be read as photos")
    photos.sort(key=lambda photo: (photo.member.name, photo.member.archive, photo.member.place))
    return photos, left_out


def _find_table(
    params: DataParams, archives: Archives, found: Sequence[Found]
) -> tuple[str, bytes, Found | None]:
    """Return the table's name and bytes, and its entry if it is one of the archive's files."""
    given = [params.archive] if isinstance(params.archive, str) else params.archive
    folders = [Path(place).absolute() for place in given if Path(place).is_dir()]
    for path in (Path(params.labels).absolute(), *(folder / params.labels for folder in folders)):
        if path.is_file():
            inside = {path.relative_to(f).as_posix() for f in folders if path.is_relative_to(f)}
            entry = next((one for one in found if one.member.source in inside), None)
            try:
                return params.labels, path.read_bytes(), entry
            except OSError as err:
                raise ArchiveError(f"data.labels: {path}: cannot be read ({err.strerror})") from err
    wanted = unicodedata.normalize("NFC", params.labels).removeprefix("./")
    matches = [one for one in found if f"/{_path(one)}".endswith(f"/{wanted}")]
    if len(matches) != 1:
        tables = [one.member.source for one in matches]
        here = Path("data/labels") / Path(params.labels).name
        hint = f"; did you mean {here}?" if here.is_file() else ""
        raise ArchiveError(
            f"data.labels: {params.labels}: {len(matches)} such files in {archives.shown}"
            f"{f' ({listed(tables)})' if tables else ', and none here'}; allowed: "
            f"none, a path of this project such as data/labels/labels.csv, or a file of the archive"
            f"{hint}"
        )
    member = matches[0].member
    try:
        return params.labels, archives.read(member), matches[0]
    except UnreadableMemberError as err:
        raise ArchiveError(f"data.labels: {member.source}: {err}") from err


def _path(found: Found) -> str:
    """Return the path of a file with composed letters (NFC) and the archive's name in front."""
    return unicodedata.normalize("NFC", found.member.source)


def _spelled(table: Table, warnings: list[str]) -> list[Row]:
    """Return the rows with tidy class names; refuse names that differ in upper and lower case."""
    rows = [row._replace(label=spelling(row.label)) for row in table.rows]
    tidied = [
        old.place for old, row in zip(table.rows, rows, strict=True) if old.label != row.label
    ]
    if tidied:
        warnings.append(
            f"{table.name}: class names whose spaces or accents were tidied: {listed(tidied)}"
        )
    by_key: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        by_key["".join(row.label.casefold().split())][row.label].append(row)
    problems = []
    for spellings in by_key.values():
        first, *others = sorted(spellings, key=lambda label: (-len(spellings[label]), label))
        for label in others:
            problems += [
                f"{row.place}: class {label!r}; {spellings[first][0].place} has {first!r}"
                for row in spellings[label]
            ]
    if problems:
        refuse(table.name, problems, "write a class in another way (upper and lower case, spaces)")
    return rows


def _match(
    table: str, rows: Sequence[Row], found: Sequence[Found], folder: Sequence[str]
) -> tuple[list[_Labelled], list[Row]]:
    """Find the file of each row; return also the rows without one.

    Args:
        table: its name.
        rows: of the table.
        found: all files.
        folder: of the table, if it is in the archive.
    """
    by_path: dict[str, list[Found]] = defaultdict(list)
    for one in found:
        for path in {_path(one), unicodedata.normalize("NFC", one.member.name)}:
            by_path[path].append(one)
    files = [_tidy_path(row.file) for row in rows]
    shared = _shared_folder([one.folders for one in found if one.is_photo])
    starts = [f"{'/'.join(names)}/" if names else "" for names in (folder, (), shared)]
    start = max(starts, key=lambda start: sum(f"{start}{file}" in by_path for file in files))
    labelled, missing, problems = [], [], []
    for row, file in zip(rows, files, strict=True):
        matches = by_path.get(f"{start}{file}", [])
        if len(matches) > 1:
            both = " and ".join(one.member.source for one in matches[:2])
            problems.append(f"{row.place}: {row.file} may be {both}; write the archive's name too")
        elif matches:
            labelled.append(_Labelled(row, matches[0]))
        else:
            missing.append(row)
    if problems:
        refuse(table, problems)
    return labelled, missing


def _tidy_path(file: str) -> str:
    """Return a path of a table as an archive writes it; Windows has backslashes."""
    file = unicodedata.normalize("NFC", file if "/" in file else file.replace("\\", "/"))
    return "/".join(name for name in file.split("/") if name not in ("", "."))


def _shared_folder(every: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the folders that all photos are in."""
    first, last = min(every), max(every)
    same = [a == b for a, b in zip(first, last, strict=False)]
    return first[: [*same, False].index(False)]


def _one_row_each(
    table: str, labelled: Sequence[_Labelled], warnings: list[str]
) -> list[_Labelled]:
    """Leave out rows that are there twice; refuse two rows of a file that contradict each other."""
    first: dict[int, Row] = {}
    once, problems, repeated = [], [], []
    for row, found in labelled:
        before = first.setdefault(id(found), row)
        if before is row:
            once.append(_Labelled(row, found))
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


def _splits(table: Table, labelled: Sequence[_Labelled]) -> dict[str, str]:
    """Return the split of each row, by its place: of the column, else by folder, else train."""
    if table.has_splits:
        problems = [
            f"{row.place}: split {row.split!r}; allowed: train, val, test"
            for row, _ in labelled
            if row.split.lower() not in SPLIT_OF
        ]
        if problems:
            refuse(table.name, problems)
        return {row.place: SPLIT_OF[row.split.lower()] for row, _ in labelled}
    top = len(top_folder({found.folders for _, found in labelled}))
    folder_of = {row.place: "".join(found.folders[top : top + 1]) for row, found in labelled}
    split_of = split_by_folder(folder_of.values())
    # A folder that is called train may also be a class of vehicles.
    if not split_of or {name.lower() for name in folder_of.values()} & SPLIT_OF.keys() == {"train"}:
        return dict.fromkeys(folder_of, "train")
    problems = [
        f"{row.place}: {found.member.source} is in no folder of a split; write a column split"
        for row, found in labelled
        if folder_of[row.place].lower() not in split_of
    ]
    if problems:
        refuse(table.name, problems)
    return {place: split_of[name.lower()] for place, name in folder_of.items()}
