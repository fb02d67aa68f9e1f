"""Read a table of photos and their classes: CSV, TSV, JSON lines or COCO JSON.

Sources: https://huggingface.co/docs/datasets/image_dataset (file_name), https://zamba.drivendata.org
(filepath), https://cocodataset.org/#format-data and
https://github.com/agentmorris/MegaDetector (COCO Camera Traps).
"""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from fieldguide.core.errors import ArchiveError
from fieldguide.core.params import did_you_mean
from fieldguide.prepare.names import suffix_of

# Names of columns, in the order in which they are looked for; upper and lower case are equal.
FILE_COLUMNS = ("file_name", "filepath", "file", "path", "image")
LABEL_COLUMNS = ("label", "class")
_SPLIT_COLUMN = "split"
_DELIMITERS = {".csv": ",;\t", ".tsv": "\t,;", ".txt": "\t,;"}  # .txt: a spreadsheet's Unicode text
TABLE_SUFFIXES = (*_DELIMITERS, ".jsonl", ".ndjson", ".json")
_BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
SHOWN = 10  # rows listed in a message


class Row(NamedTuple):
    """What a table says about one photo."""

    place: str  # for people: "row 12", as a spreadsheet counts; "line 12"; "image 7" of COCO
    file: str
    label: str  # class; empty if there is none
    split: str = ""  # as written; empty if there is none
    group: tuple[str, ...] = ()  # values of the group columns
    why: str = ""  # why there is no class


class Table(NamedTuple):
    """A table that was read."""

    name: str  # in messages
    rows: list[Row]
    has_splits: bool
    warnings: list[str]


def read_table(name: str, data: bytes, group_columns: Sequence[str]) -> Table:
    """Read a table; its suffix decides the format.

    Args:
        name: of the file, for messages.
        data: its bytes.
        group_columns: columns whose values together are a photo's group.

    Raises:
        ArchiveError: the file is in another format, lacks a column, or has a row that cannot be
            read. The message names the rows.
    """
    suffix = suffix_of(name)
    if suffix not in TABLE_SUFFIXES:
        raise ArchiveError(f"data.labels: found {name}; allowed: {' '.join(TABLE_SUFFIXES)}")
    text, warnings = _decoded(name, data)
    if suffix in _DELIMITERS:
        records, columns = _delimited(name, text, _DELIMITERS[suffix])
    elif suffix == ".json":
        records, columns = _coco(name, text)
    else:
        records, columns = _json_lines(name, text)
    if not records:
        raise ArchiveError(f"{name}: no row; allowed: one or more")
    chosen = _Columns(name, columns, group_columns)
    rows = [chosen.row(place, record) for place, record in records]
    nameless = [row.place for row in rows if not row.file]
    if nameless:
        refuse(name, [f"{place}: {chosen.file} is empty" for place in nameless])
    return Table(name, rows, chosen.split is not None, warnings)


def refuse(name: str, problems: Sequence[str], what: str = "cannot be used") -> None:
    """Raise an ArchiveError that lists the rows of a table which cannot be used."""
    lines = "\n".join(f"  {problem}" for problem in problems[:SHOWN])
    more = f"\n  and {len(problems) - SHOWN:,} more" if len(problems) > SHOWN else ""
    raise ArchiveError(f"{name}: {len(problems):,} of its rows {what}:\n{lines}{more}")


Records = list[tuple[str, dict[str, Any]]]  # place and values by column


class _Columns:
    """Which columns of a table hold what."""

    def __init__(self, table: str, columns: Sequence[str], groups: Sequence[str]) -> None:
        by_key: dict[str, str] = {}
        for column in columns:
            first = by_key.setdefault(column.strip().lower(), column)
            if first is not column:
                raise ArchiveError(f"{table}: two columns {first!r}; allowed: different names")
        found = ", ".join(columns)

        def first_of(names: Sequence[str], content: str) -> str:
            column = next((by_key[name] for name in names if name in by_key), None)
            if column is None:
                raise ArchiveError(
                    f"{table}: no column with the {content}; found: {found}; allowed: "
                    f"{' or '.join(names)}"
                )
            return column

        self.file = first_of(FILE_COLUMNS, "names of the photos")
        self.label = first_of(LABEL_COLUMNS, "classes")
        self.split = by_key.get(_SPLIT_COLUMN)
        self.groups = []
        for name in groups:
            if name.strip().lower() not in by_key:
                hint = did_you_mean(name, list(columns))
                raise ArchiveError(f"data.group: {table} has no column {name!r}{hint}")
            self.groups.append(by_key[name.strip().lower()])

    def row(self, place: str, record: dict[str, Any]) -> Row:
        return Row(
            place,
            record.get(self.file, "").strip(),
            record.get(self.label, ""),
            record.get(self.split, "").strip() if self.split else "",
            tuple(record.get(column, "").strip() for column in self.groups),
            record.get(_WHY, ""),
        )


_WHY = "why there is no class\0"  # key of a record, which no column of a file can have


def _decoded(name: str, data: bytes) -> tuple[str, list[str]]:
    """Decode UTF-8, UTF-16 with its mark, or Windows-1252, as Excel writes them."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            try:
                return data[len(mark) :].decode(encoding), []
            except UnicodeDecodeError as err:
                raise ArchiveError(f"{name}: not {encoding} text (byte {err.start})") from err
    if b"\0" in data:
        raise ArchiveError(
            f"{name}: holds zero bytes; allowed: text in UTF-8, or UTF-16 with a mark"
        )
    try:
        return data.decode("utf-8"), []
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        warning = f"{name}: line {line} is not in UTF-8; the file is read as Windows-1252"
        return data.decode("cp1252", errors="replace"), [warning]


def _delimited(name: str, text: str, delimiters: str) -> tuple[Records, list[str]]:
    """Read CSV with a header; the delimiter is the one that divides the header."""
    lines = text.splitlines(keepends=True)
    first = 0
    if lines and lines[0].lower().startswith("sep=") and len(lines[0].strip()) == len("sep=") + 1:
        delimiters, first = lines[0].strip()[-1], 1  # written for Excel
    header = lines[first] if len(lines) > first else ""
    delimiter = max(delimiters, key=header.count)  # the first one if none is there
    reader = csv.reader(
        io.StringIO("".join(lines[first:]), newline=""), delimiter=delimiter, strict=True
    )
    records: Records = []
    problems = []
    columns: list[str] = []
    number = 0  # as a spreadsheet counts, which hides the line sep=
    try:
        for number, fields in enumerate(reader, start=1):
            if not any(field.strip() for field in fields):
                continue
            if not columns:
                columns = [field.strip() for field in fields]
                while columns and not columns[-1]:  # Excel writes empty columns that were once used
                    columns.pop()
                continue
            while len(fields) > len(columns) and not fields[-1].strip():
                fields.pop()
            if len(fields) == len(columns):
                records.append((f"row {number}", dict(zip(columns, fields, strict=True))))
            else:
                problems.append(
                    f"row {number}: {len(fields)} fields; the header has {len(columns)}"
                )
    except csv.Error as err:
        raise ArchiveError(f"{name}: row {number + 1}: {err}") from err
    if problems:
        refuse(name, problems)
    return records, columns


def _json_lines(name: str, text: str) -> tuple[Records, list[str]]:
    """Read one JSON object in each line."""
    records: Records = []
    problems = []
    columns: dict[str, None] = {}  # a set that keeps the order
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
            if not isinstance(found, dict):
                problems.append(f"line {number}: found {type(found).__name__}; allowed: an object")
                continue
            records.append((f"line {number}", {key: _text(key, found[key]) for key in found}))
        except (ValueError, RecursionError) as err:
            problems.append(f"line {number}: {err}")
            continue
        columns |= dict.fromkeys(found)
    if problems:
        refuse(name, problems)
    return records, list(columns)


def _text(key: str, value: object) -> str:
    """Return a value of JSON as text; nothing for null."""
    if isinstance(value, str):
        return value
    if type(value) is int:
        return str(value)
    if value is not None and key.strip().lower() in (*FILE_COLUMNS, *LABEL_COLUMNS, _SPLIT_COLUMN):
        raise ValueError(f"{key}: found {json.dumps(value)[:40]}; allowed: text, or an integer")
    return "" if value is None else json.dumps(value, sort_keys=True)


def _coco(name: str, text: str) -> tuple[Records, list[str]]:
    """Read images, annotations and categories; other values of an image are columns."""
    try:
        found = json.loads(text)
        parts = [found[key] for key in ("images", "annotations", "categories")]
        if not all(isinstance(part, list) for part in parts):
            raise TypeError("images, annotations and categories must be lists")
    except (ValueError, RecursionError) as err:
        raise ArchiveError(f"{name}: not JSON ({err})") from err
    except (TypeError, KeyError) as err:
        raise ArchiveError(
            f"{name}: not COCO JSON (missing: {err}); allowed: an object with images, annotations "
            "and categories; for one object in each line, the suffix .jsonl"
        ) from err
    images, annotations, categories = parts
    names = dict(_named(name, "category", categories, "id", "name"))
    files = list(_named(name, "image", images, "id", "file_name"))
    repeated = [key for key, count in Counter(key for key, _ in files).items() if count > 1]
    problems = [f"image {key}: id is there twice" for key in repeated]
    labels: dict[Any, set[str]] = defaultdict(set)
    known = {key for key, _ in files}
    for image, category in _named(name, "annotation", annotations, "image_id", "category_id"):
        if image not in known:
            problems.append(f"annotation of image {image}: there is no such image")
        elif category not in names:
            problems.append(f"annotation of image {image}: there is no category {category}")
        else:
            labels[image].add(str(names[category]))
    if problems:
        refuse(name, problems)
    records: Records = []
    columns: dict[str, None] = {}
    for (key, _), image in zip(files, images, strict=True):
        given = sorted(labels[key])
        why = "no annotation" if not given else f"{len(given)} categories: {', '.join(given)}"
        record = {column: _text(column, image[column]) for column in image if column != "id"}
        record |= {
            "label": given[0] if len(given) == 1 else "",
            _WHY: "" if len(given) == 1 else why,
        }
        records.append((f"image {key}", record))
        columns |= dict.fromkeys(column for column in record if column != _WHY)
    return records, list(columns)


def _named(table: str, kind: str, items: Sequence[Any], *keys: str) -> Iterator[tuple[Any, Any]]:
    """Yield two values of each item of COCO; names are text, ids are text or integers."""
    problems = []
    for number, item in enumerate(items, start=1):
        values = [item.get(key) if isinstance(item, dict) else None for key in keys]
        for key, value in zip(keys, values, strict=True):
            allowed = (str,) if key in ("name", "file_name") else (str, int)
            if type(value) not in allowed:
                problems.append(f"{kind} {number}: {key}: found {json.dumps(value)[:40]}")
                break
        else:
            yield values[0], values[1]
    if problems:
        refuse(table, problems)


def spelling(label: str) -> str:
    """Return a class name as it is stored: composed letters (NFC), single spaces."""
    return " ".join(unicodedata.normalize("NFC", label).split())
