"""Change single rows of a label table: every other byte of the file stays as it is."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from fieldguide.core.errors import FieldguideError
from fieldguide.core.files import aside, write_bytes
from fieldguide.prepare.names import suffix_of
from fieldguide.prepare.table import (
    DELIMITERS,
    Columns,
    Encoding,
    Table,
    decode_text,
    lines_of,
    read_table,
    spelling,
)

REVIEWED = ("reviewed_by", "reviewed_at")  # columns


class Decision(NamedTuple):
    """What the table says about one photo."""

    label: str = ""  # class; empty if there is none
    reviewed_by: str = ""
    reviewed_at: str = ""  # UTC, ISO 8601; empty if nobody has reviewed the photo


class Choice(NamedTuple):
    """A decision to write."""

    names: Sequence[str]  # of the photo in the table: one, or several if rows repeat each other
    decision: Decision
    seen: Decision  # what the reviewer saw in the table
    split: str = ""  # for a row that must be added


Change = list[tuple[str, str]]  # text of each changed row before (empty if it was added) and after


@dataclass(frozen=True)
class ParsedTable:
    """The content of a label table."""

    data: bytes
    encoding: Encoding
    delimiter: str
    texts: list[str]  # of each row, with its line end; the first one is what is above the header
    header: int  # its row
    columns: list[str]
    file: int  # column
    label: int  # column
    split: int | None  # column
    reviewed: dict[str, int]  # columns of REVIEWED that the table has
    classes: list[str]  # sorted
    rows_of: dict[str, list[int]]  # by name of the photo
    decisions: dict[str, Decision]  # by name of the photo: what its first row says

    def decision(self, names: Sequence[str]) -> Decision:
        """Return what the table says about a photo; see `Choice.names`."""
        return next((self.decisions[one] for one in names if one in self.decisions), Decision())


def parse_table(name: str, data: bytes) -> ParsedTable:
    """Divide a table into its rows, and find what they say.

    Args:
        name: of the file, for messages; its suffix decides the format.
        data: its bytes.

    Raises:
        FieldguideError: it is no table with a header, or lacks a column or a field.
    """
    text, encoding, _ = decode_text(name, data)
    lines, start, delimiter = lines_of(text, suffix_of(name))
    texts, filled = _rows(name, lines, start, delimiter)
    header = min(filled)
    columns = [field.strip() for field in filled.pop(header)]
    while columns and not columns[-1]:  # Excel writes empty columns that were once used
        columns.pop()
    chosen = Columns(name, columns, [])
    file, label = columns.index(chosen.file), columns.index(chosen.label)
    lower = [one.lower() for one in columns]
    reviewed = {one: lower.index(one) for one in REVIEWED if one in lower}
    for row, fields in filled.items():
        if len(fields) < len(columns) or any(map(str.strip, fields[len(columns) :])):
            raise FieldguideError(
                f"{name}: row {row}: {len(fields)} fields; the header has {len(columns)}"
            )
    # There are few classes and many rows.
    spelled = {raw: spelling(raw) for raw in {fields[label] for fields in filled.values()}}
    rows_of: dict[str, list[int]] = defaultdict(list)
    decisions: dict[str, Decision] = {}
    for row, fields in filled.items():
        photo = fields[file].strip()
        if photo not in rows_of:
            who_and_when = [fields[reviewed[one]] if one in reviewed else "" for one in REVIEWED]
            decisions[photo] = Decision(spelled[fields[label]], *who_and_when)
        rows_of[photo].append(row)
    return ParsedTable(
        data=data,
        encoding=encoding,
        delimiter=delimiter,
        texts=texts,
        header=header,
        columns=columns,
        file=file,
        label=label,
        split=None if chosen.split is None else columns.index(chosen.split),
        reviewed=reviewed,
        classes=sorted({*spelled.values()} - {""}),
        rows_of=dict(rows_of),
        decisions=decisions,
    )


def _rows(
    name: str, lines: Sequence[str], start: int, delimiter: str
) -> tuple[list[str], dict[int, list[str]]]:
    """Return the text of each row, as in `ParsedTable`, and the fields of rows that are not empty.

    Args:
        name: of the file, for messages.
        lines: of the text.
        start: line of the header.
        delimiter: between fields.

    Raises:
        FieldguideError: quotes are wrong, or there is no header.
    """
    texts, filled = ["".join(lines[:start])], {}
    reader, end = csv.reader(lines[start:], delimiter=delimiter, strict=True), start
    try:
        for fields in reader:
            if any(map(str.strip, fields)):
                filled[len(texts)] = fields
            begin, end = end, start + reader.line_num
            texts.append("".join(lines[begin:end]))
    except csv.Error as err:
        raise FieldguideError(f"{name}: row {len(texts)}: {err}") from err
    if not filled:
        raise FieldguideError(f"{name}: no header; allowed: names of columns in the first row")
    return texts, filled


class LabelFile:
    """A label table of the project; `parsed` is its content when it was last read or written.

    Several programs may write it, and several threads of each: each holds a lock while it reads,
    changes and replaces the file. Reading needs the lock too, or a slow reader would replace
    `parsed` by an older content.
    """

    def __init__(self, path: Path, lock: Path, new: bytes | None = None) -> None:
        """Open a table.

        Args:
            path: of the table.
            lock: of a lock file outside of `data/labels/`, which DVC hashes.
            new: content of a table that does not exist yet; `start` writes it.

        Raises:
            FieldguideError: the table cannot be read.
        """
        if suffix_of(path.name) not in DELIMITERS:
            raise FieldguideError(
                f"data.labels: found {path}; allowed for a review: {' '.join(DELIMITERS)}"
            )
        self.path = path
        lock.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(lock, mode=0o666)  # for every account of the machine
        self._new = new
        self.parsed = parse_table(str(path), self._bytes() if new is None else new)

    def table(self, group_columns: Sequence[str]) -> Table:
        """Return the table as `prepare` reads it."""
        return read_table(str(self.path), self.parsed.data, group_columns)

    def refresh(self) -> ParsedTable:
        """Return the table; it is parsed again if its bytes have changed.

        Raises:
            FieldguideError: the table cannot be read.
        """
        with self._lock:
            data = self._bytes()
            if data != self.parsed.data:
                self.parsed = parse_table(str(self.path), data)
            return self.parsed

    def start(self) -> bool:
        """Write a new table; add the columns of reviews to every row of one that lacks them.

        Returns:
            True if columns were added.

        Raises:
            FieldguideError: the table cannot be read or written.
        """
        with self._lock:
            if self._new is not None and not self.path.exists():
                write_bytes(self.path, self._new)
            table = self.refresh()
            missing = [name for name in REVIEWED if name not in table.reviewed]
            if not missing:
                return False
            texts = [*table.texts]
            for row in [table.header, *(row for rows in table.rows_of.values() for row in rows)]:
                raw, end = _raw_fields(texts[row], table.delimiter)
                values = missing if row == table.header else [""] * len(missing)
                raw[len(table.columns) :] = _spelled(values, table.delimiter, like=raw)
                texts[row] = table.delimiter.join(raw) + end
            self._write(table, texts)
            return True

    def decide(self, choices: Sequence[Choice]) -> tuple[Change, list[int]]:
        """Write decisions; when this returns, they are on disk.

        Returns:
            What undoes them; and the places of choices that were not written, because the table
            says something else than their `seen`.

        Raises:
            FieldguideError: the table cannot be read or written, or its encoding lacks a character.
        """
        with self._lock:
            table = self.refresh()
            if len(table.reviewed) < len(REVIEWED):
                raise FieldguideError(
                    f"{self.path}: has lost its columns {' and '.join(REVIEWED)}; start the review "
                    "again"
                )
            texts, change, refused = [*table.texts], [], []
            for place, choice in enumerate(choices):
                if table.decision(choice.names) != choice.seen:
                    refused.append(place)
                    continue
                values = {table.label: choice.decision.label}
                values |= {table.reviewed[one]: getattr(choice.decision, one) for one in REVIEWED}
                rows = [row for name in choice.names for row in table.rows_of.get(name, ())]
                for row in rows:
                    before, texts[row] = texts[row], _with_values(texts[row], values, table)
                    change.append((before, texts[row]))
                if not rows:
                    values[table.file] = choice.names[0]
                    if table.split is not None:
                        values[table.split] = choice.split
                    change.append(("", _append(texts, values, table)))
            self._write(table, texts)
            return change, refused

    def undo(self, change: Change) -> int:
        """Give rows the bytes that they had before a change, and take out those that it added.

        Returns:
            Number of rows that stay, because somebody else has changed them.

        Raises:
            FieldguideError: the table cannot be read or written.
        """
        with self._lock:
            table = self.refresh()
            texts, stay = [*table.texts], 0
            contents = [_without_line_ends(text) for text in texts]
            for before, after in reversed(change):
                content = _without_line_ends(after)
                if content not in contents:
                    stay += 1
                    continue
                row = contents.index(content)
                _, end = _raw_fields(texts[row], table.delimiter)
                texts[row] = before.rstrip("\r\n") + end if before else ""
                contents[row] = _without_line_ends(before)
            self._write(table, texts)
            return stay

    def _bytes(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError as err:
            raise FieldguideError(f"{self.path}: cannot be read ({err.strerror})") from err

    def _write(self, table: ParsedTable, texts: Sequence[str]) -> None:
        """Replace the file by other texts of its rows."""
        try:
            data = table.encoding.encode("".join(texts))
        except UnicodeEncodeError as err:
            raise FieldguideError(
                f"{self.path}: its encoding ({table.encoding.name}) has no "
                f"{err.object[err.start]!r}; save the table as UTF-8"
            ) from err
        parsed = parse_table(str(self.path), data)
        target = self.path.resolve()  # a link stays one
        try:
            mode = target.stat().st_mode
            if not (mode & 0o222 and os.access(target, os.W_OK)):  # root may write everything
                raise FieldguideError(
                    f"{self.path}: may not be written; allow it (if DVC tracks it: `dvc unprotect "
                    f"{self.path}`)"
                )
            with aside(target) as partial:
                with partial.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                partial.chmod(mode)
        except OSError as err:
            raise FieldguideError(f"{self.path}: cannot be written ({err.strerror})") from err
        self.parsed = parsed


def _without_line_ends(text: str) -> str:
    """Return what a row says: an editor, and a row below, may change how its lines end."""
    return text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n")


def _append(texts: list[str], values: Mapping[int, str], table: ParsedTable) -> str:
    """Add a row to the texts of a table, and return its text."""
    end = _raw_fields(texts[table.header], table.delimiter)[1] or "\n"
    if texts[-1] and not texts[-1].endswith(("\n", "\r")):
        texts[-1] += end
    fields = [values.get(column, "") for column in range(len(table.columns))]
    like, _ = _raw_fields(texts[-1], table.delimiter)
    texts.append(table.delimiter.join(_spelled(fields, table.delimiter, like=like)) + end)
    return texts[-1]


def _with_values(text: str, values: Mapping[int, str], table: ParsedTable) -> str:
    """Return the text of a row with other values in some columns."""
    raw, end = _raw_fields(text, table.delimiter)
    spelled = _spelled(list(values.values()), table.delimiter, like=raw)
    for column, value in zip(values, spelled, strict=True):
        raw[column] = value
    return table.delimiter.join(raw) + end


def _spelled(values: Sequence[str], delimiter: str, *, like: Sequence[str]) -> list[str]:
    """Return values as a table spells them: in quotes where needed, or if a whole row is so."""
    special = {delimiter, '"', "\n", "\r"}
    if all(field.startswith('"') for field in like):
        special = {""}  # is in every value
    return [
        '"' + value.replace('"', '""') + '"' if any(one in value for one in special) else value
        for value in values
    ]


def _raw_fields(text: str, delimiter: str) -> tuple[list[str], str]:
    """Split a row at its delimiters; each field keeps its quotes. Return also the line end."""
    body = text.rstrip("\r\n")
    fields, start, inside = [], 0, False
    for place, character in enumerate(body):
        # Only a field that begins with a quote is quoted; two quotes in it stand for one.
        if character == '"' and body.startswith('"', start):
            inside = not inside
        elif character == delimiter and not inside:
            fields.append(body[start:place])
            start = place + 1
    return [*fields, body[start:]], text[len(body) :]
