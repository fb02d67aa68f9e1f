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
from collections.abc import Sequence
from typing import Any, NamedTuple

from fieldguide.core.errors import ArchiveError
from fieldguide.core.params import did_you_mean
from fieldguide.prepare.names import suffix_of

# Names of columns, in the order in which they are looked for; upper and lower case are equal.
FILE_COLUMNS = ("file_name", "filepath", "file", "path", "image")
LABEL_COLUMNS = ("label", "class")
_SPLIT_COLUMN = "split"
_COCO = ("images", "annotations", "categories")
# Keys of a COCO image that are no columns, because its file and class are known from elsewhere.
_IGNORED = {"id", *FILE_COLUMNS, *LABEL_COLUMNS}
DELIMITERS = {".csv": ",;\t", ".tsv": "\t,;", ".txt": "\t,;"}  # .txt: a spreadsheet's Unicode text
TABLE_SUFFIXES = (*DELIMITERS, ".jsonl", ".ndjson", ".json")
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
    text, _, warnings = decode_text(name, data)
    if suffix in DELIMITERS:
        records, columns = _delimited(name, text, suffix)
    elif suffix == ".json":
        records, columns = _json(name, text)
    else:
        records, columns = _json_lines(name, text)
    if not records:
        raise ArchiveError(f"{name}: no row; allowed: one or more")
    chosen = Columns(name, columns, group_columns)
    rows, problems = [], []
    for place, record in records:
        try:
            rows.append(chosen.row(place, record))
        except ValueError as err:
            problems.append(f"{place}: {err}")
    if problems:
        refuse(name, problems)
    return Table(name, rows, warnings)


def refuse(name: str, problems: Sequence[str], what: str = "cannot be used") -> None:
    """Raise an ArchiveError that lists the rows of a table which cannot be used."""
    lines = "\n".join(f"  {problem}" for problem in problems[:SHOWN])
    more = f"\n  and {len(problems) - SHOWN:,} more" if len(problems) > SHOWN else ""
    raise ArchiveError(f"{name}: {len(problems):,} of its rows {what}:\n{lines}{more}")


Records = list[tuple[str, dict[str, Any]]]  # place and values by column


class Columns:
    """Which columns of a table hold what."""

    def __init__(self, table: str, columns: Sequence[str], groups: Sequence[str]) -> None:
        by_key: dict[str, str] = {}
        for column in columns:
            key = column.strip().lower()
            if key in by_key:
                raise ArchiveError(f"{table}: two columns {column!r}; allowed: different names")
            by_key[key] = column
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
        """Return a row.

        Raises:
            ValueError: a value is of another type, or holds characters that are no text.
        """

        def text(column: str, *, any_type: bool = False) -> str:
            value = record.get(column)
            if value is None:
                return ""
            if any_type and not isinstance(value, str):
                value = json.dumps(value, sort_keys=True)
            if not isinstance(value, str) and type(value) is not int:
                raise ValueError(
                    f"{column}: found {json.dumps(value)[:40]}; allowed: text, or an integer"
                )
            value = str(value)
            if _has_control_characters(value.strip()):
                raise ValueError(f"{column}: {value!r} holds a control character")
            # `labels.py` says which class names it tidies.
            return value if column == self.label else value.strip()

        file = text(self.file)
        if not file:
            raise ValueError(f"{self.file} is empty")
        return Row(
            place,
            file,
            label=text(self.label),
            split=text(self.split) if self.split else "",
            group=tuple(text(column, any_type=True) for column in self.groups),
            why=record.get(_WHY, ""),
        )


# Key of a record whose value says why there is no class; no column of a table is a number.
_WHY: Any = 0


class Encoding(NamedTuple):
    """How the bytes of a table spell its text."""

    name: str
    mark: bytes = b""  # byte-order mark before the text

    def encode(self, text: str) -> bytes:
        """Return the bytes of a whole table.

        Raises:
            UnicodeEncodeError: the encoding lacks a character.
        """
        return self.mark + text.encode(self.name)


def decode_text(name: str, data: bytes) -> tuple[str, Encoding, list[str]]:
    """Decode UTF-8, UTF-16 with its mark, or Windows-1252, as Excel writes them.

    Returns:
        The text, its encoding, and warnings.

    Raises:
        ArchiveError: the bytes are no such text.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            try:
                return data[len(mark) :].decode(encoding), Encoding(encoding, mark), []
            except UnicodeDecodeError as err:
                raise ArchiveError(f"{name}: not {encoding} text (byte {err.start})") from err
    if b"\0" in data:
        raise ArchiveError(
            f"{name}: holds zero bytes; allowed: text in UTF-8, or UTF-16 with a mark"
        )
    try:
        return data.decode("utf-8"), Encoding("utf-8"), []
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        warning = f"{name}: line {line} is not in UTF-8; the file is read as Windows-1252"
    try:
        return data.decode("cp1252"), Encoding("cp1252"), [warning]
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        raise ArchiveError(
            f"{name}: line {line} is neither UTF-8 nor Windows-1252; allowed: these, or UTF-16 "
            "with a byte-order mark"
        ) from err


def lines_of(text: str, suffix: str) -> tuple[list[str], int, str]:
    """Split the text of a table with a header, and find its delimiter.

    Returns:
        The lines with their ends, the index of the header, and the delimiter: the one that divides
        the header.
    """
    lines = list(io.StringIO(text, newline=""))
    delimiters, first = DELIMITERS[suffix], 0
    if lines and lines[0].lower().startswith("sep=") and len(lines[0].strip()) == len("sep=") + 1:
        delimiters, first = lines[0].strip()[-1], 1  # written for Excel
    header = lines[first] if len(lines) > first else ""
    return lines, first, max(delimiters, key=header.count)  # the first one if none is there


def _delimited(name: str, text: str, suffix: str) -> tuple[Records, list[str]]:
    """Read CSV with a header."""
    lines, first, delimiter = lines_of(text, suffix)
    reader = csv.reader(lines[first:], delimiter=delimiter, strict=True)
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
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            found = _parsed(line)
        except (ValueError, RecursionError) as err:
            problems.append(f"line {number}: {err}")
            continue
        if isinstance(found, dict):
            records.append((f"line {number}", found))
        else:
            problems.append(f"line {number}: found {type(found).__name__}; allowed: an object")
    if problems:
        refuse(name, problems)
    return records, _columns_of(records)


def _parsed(text: str) -> Any:
    """Parse JSON.

    Raises:
        ValueError: it is not JSON, or an object has a key twice.
        RecursionError: it is too deep.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise ValueError(f"the key {twice!r} is there twice")
        return found

    return json.loads(text, object_pairs_hook=once)


def _columns_of(records: Records) -> list[str]:
    """Return the keys of all records, in the order in which they come."""
    return list(dict.fromkeys(key for _, record in records for key in record if key != _WHY))


def _json(name: str, text: str) -> tuple[Records, list[str]]:
    """Read a list of objects, as pandas writes it, or COCO."""
    try:
        found = _parsed(text)
    except (ValueError, RecursionError) as err:
        raise ArchiveError(f"{name}: not JSON ({err})") from err
    if isinstance(found, dict):
        return _coco(name, found)
    records: Records = []
    for number, entry in enumerate(found if isinstance(found, list) else [found], start=1):
        if not isinstance(entry, dict):
            raise ArchiveError(
                f"{name}: entry {number}: found {json.dumps(entry)[:40]}; allowed: a list of "
                "objects, or COCO"
            )
        records.append((f"entry {number}", entry))
    return records, _columns_of(records)


def _coco(name: str, found: dict[str, Any]) -> tuple[Records, list[str]]:
    """Read images, annotations and categories; other values of an image are columns."""
    missing = [key for key in _COCO if not isinstance(found.get(key), list)]
    if missing:
        raise ArchiveError(
            f"{name}: not COCO JSON (no list of {', '.join(missing)}); allowed: an object with "
            f"{', '.join(_COCO)}; for one object in each line, the suffix .jsonl"
        )
    images, annotations, categories = (found[key] for key in _COCO)
    names = _once(name, "category", _named(name, "category", categories, "id", "name"))
    files = _named(name, "image", images, "id", "file_name")
    known = _once(name, "image", files)
    problems = []
    labels: dict[Any, set[str]] = defaultdict(set)
    for image, category in _named(name, "annotation", annotations, "image_id", "category_id"):
        if image not in known:
            problems.append(f"annotation of image {image}: there is no such image")
        elif category not in names:
            problems.append(f"annotation of image {image}: there is no category {category}")
        else:
            labels[image].add(names[category])
    if problems:
        refuse(name, problems)
    records: Records = []
    for (key, file), image in zip(files, images, strict=True):
        given = sorted(labels[key])
        record = {name: value for name, value in image.items() if name not in _IGNORED}
        record |= {"file_name": file, "label": given[0] if len(given) == 1 else ""}
        if len(given) != 1:
            record[_WHY] = (
                f"{len(given)} categories: {', '.join(given)}" if given else "no annotation"
            )
        records.append((f"image {key}", record))
    return records, _columns_of(records)


def _once(table: str, kind: str, pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return values by id; refuse an id that is there twice."""
    counts = Counter(key for key, _ in pairs)
    repeated = [f"{kind} {key}: id is there twice" for key, count in counts.items() if count > 1]
    if repeated:
        refuse(table, repeated)
    return dict(pairs)


def _named(table: str, kind: str, items: Sequence[Any], *keys: str) -> list[tuple[Any, Any]]:
    """Return two values of each item of COCO; names are text, ids are text or integers."""
    found, problems = [], []
    for number, item in enumerate(items, start=1):
        values = [item.get(key) if isinstance(item, dict) else None for key in keys]
        for key, value in zip(keys, values, strict=True):
            allowed = (str,) if key in ("name", "file_name") else (str, int)
            if type(value) not in allowed:
                problems.append(f"{kind} {number}: {key}: found {json.dumps(value)[:40]}")
                break
        else:
            found.append((values[0], values[1]))
    if problems:
        refuse(table, problems)
    return found


def _has_control_characters(text: str) -> bool:
    """Tell whether a text holds characters that no table may hold, such as line ends."""
    return any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


def can_be_in_table(file: str) -> bool:
    """Tell whether a table may name a file: it keeps neither outer spaces nor line ends."""
    return file == file.strip() and not _has_control_characters(file)


def spelling(label: str) -> str:
    """Return a class name as it is stored: composed letters (NFC), single spaces, none unseen.

    Characters without a width are taken out, except those that join letters in some scripts.
    """
    seen = (c for c in label if unicodedata.category(c) != "Cf" or c in "\u200c\u200d")
    return " ".join(unicodedata.normalize("NFC", "".join(seen)).split())
