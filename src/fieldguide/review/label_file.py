"""Change single rows of a label table: every other byte of the file stays as it is."""

from __future__ import annotations

import csv
import io
import os
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from fieldguide.core.errors import FieldguideError
from fieldguide.core.files import aside
from fieldguide.prepare.names import suffix_of
from fieldguide.prepare.table import (
    DELIMITERS,
    Columns,
    Table,
    decode_text,
    lines_of,
    read_table,
    spelling,
)

REVIEWED_BY, REVIEWED_AT = "reviewed_by", "reviewed_at"


class Decision(NamedTuple):
    """What the table says about one photo."""

    label: str = ""  # class; empty if there is none
    reviewed_by: str = ""
    reviewed_at: str = ""  # UTC, ISO 8601; empty if nobody has reviewed the photo


class Change(NamedTuple):
    """Rows that a decision changed, so that it can be undone."""

    rows: list[tuple[str, str]]  # text before, which is empty for a row that was added; text after


class ChangedMeanwhileError(Exception):
    """Somebody else has changed the row."""


class LabelFile:
    """A label table of the project, read again whenever somebody else has written it.

    Several programs may write it: each holds a lock while it reads, changes and replaces the file.
    """

    def __init__(self, path: Path, lock: Path) -> None:
        """Open a table, and give it the columns of reviews if it lacks them.

        Args:
            path: of the table.
            lock: of a lock file outside of `data/labels/`, which DVC hashes.

        Raises:
            FieldguideError: the table cannot be read, changed or written.
        """
        if suffix_of(path.name) not in DELIMITERS:
            raise FieldguideError(
                f"data.labels: found {path}; allowed for a review: {' '.join(DELIMITERS)}"
            )
        self.path = path
        lock.parent.mkdir(parents=True, exist_ok=True)
        self._lock, self._thread_lock = FileLock(lock), threading.RLock()
        self._data: bytes | None = None
        with self._locked():
            self._read()
            self.has_new_columns = self._add_columns()

    def table(self, group_columns: Sequence[str]) -> Table:
        """Return the table as `prepare` reads it."""
        return read_table(str(self.path), self.path.read_bytes(), group_columns)

    @property
    def has_splits(self) -> bool:
        """True if some photo has its split in the table."""
        with self._thread_lock:
            return self._split is not None and any(
                self._fields[row][self._split].strip()
                for rows in self._rows_of.values()
                for row in rows
            )

    def classes(self) -> list[str]:
        """Return the classes of all photos, sorted."""
        with self._thread_lock:
            rows = (row for rows in self._rows_of.values() for row in rows)
            return sorted({spelling(self._fields[row][self._label]) for row in rows} - {""})

    def refresh(self) -> None:
        """Read the table again if it was written meanwhile."""
        with self._thread_lock:
            self._read()

    def decision(self, names: Sequence[str]) -> Decision:
        """Return what the table, as it was last read, says about a photo.

        Args:
            names: of the photo in the table: one, or several if rows repeat each other.
        """
        with self._thread_lock:
            row = next((row for name in names for row in self._rows_of.get(name, ())), None)
            if row is None:
                return Decision()
            label, by, at = (self._fields[row][k] for k in (self._label, *self._reviewed))
            return Decision(spelling(label), by, at)

    def decide(
        self, names: Sequence[str], decision: Decision, *, seen: Decision, split: str
    ) -> Change:
        """Write a decision; when this returns, it is on disk.

        Args:
            names: as in `decision`.
            decision: to write.
            seen: what the reviewer saw in the table.
            split: for a row that must be added.

        Raises:
            ChangedMeanwhileError: the table says something else than `seen`.
            FieldguideError: the table cannot be written, or its encoding lacks a character.
        """
        with self._locked():
            self._read()
            if self.decision(names) != seen:
                raise ChangedMeanwhileError
            values = dict(zip((self._label, *self._reviewed), decision, strict=True))
            rows = [row for name in names for row in self._rows_of.get(name, ())]
            if not rows:
                return self._append(names[0], values, split)
            changed = {row: self._with_values(self._texts[row], values) for row in rows}
            change = Change([(self._texts[row], text) for row, text in changed.items()])
            self._write(changed)
            return change

    def undo(self, change: Change) -> None:
        """Give the rows of a decision the bytes that they had before it.

        Raises:
            ChangedMeanwhileError: somebody else has changed one of them.
            FieldguideError: the table cannot be written.
        """
        with self._locked():
            self._read()
            texts, changed = list(self._texts), {}
            for before, after in change.rows:
                if after not in texts:
                    raise ChangedMeanwhileError
                row = texts.index(after)
                texts[row] = changed[row] = before
            names = [
                self._fields[row][self._file].strip() for row, text in changed.items() if not text
            ]
            self._write(changed)
            for name in names:  # of rows that were added
                del self._rows_of[name]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other threads and other programs from writing the table."""
        with self._thread_lock, self._lock:
            yield

    def _read(self) -> None:
        """Read the table if its bytes are others than those that were last read."""
        try:
            data = self.path.read_bytes()
        except OSError as err:
            raise FieldguideError(f"{self.path}: cannot be read ({err.strerror})") from err
        if data == self._data:
            return
        name = str(self.path)
        text, self._encoding, _ = decode_text(name, data)
        lines, first, self._delimiter = lines_of(text, suffix_of(name))
        reader = csv.reader(lines[first:], delimiter=self._delimiter, strict=True)
        self._texts = ["".join(lines[:first])]  # of each row, with its line end
        self._fields: list[list[str]] = [[]]
        start = first
        try:
            for fields in reader:
                end = first + reader.line_num
                self._texts.append("".join(lines[start:end]))
                self._fields.append(fields)
                start = end
        except csv.Error as err:
            raise FieldguideError(f"{name}: row {len(self._fields)}: {err}") from err
        self._find_columns()
        if self._data is not None and len(self._reviewed) < 2:  # noqa: PLR2004
            raise FieldguideError(
                f"{name}: has lost its columns {REVIEWED_BY} and {REVIEWED_AT}; start the review "
                "again"
            )
        self._data = data

    def _find_columns(self) -> None:
        name = str(self.path)
        filled = [row for row, fields in enumerate(self._fields) if any(map(str.strip, fields))]
        if not filled:
            raise FieldguideError(f"{name}: no header; allowed: names of columns in the first row")
        self._header, *rows = filled
        names = [field.strip() for field in self._fields[self._header]]
        while names and not names[-1]:  # Excel writes empty columns that were once used
            names.pop()
        self._columns = names
        columns = Columns(name, names, [])
        self._file, self._label = names.index(columns.file), names.index(columns.label)
        self._split = None if columns.split is None else names.index(columns.split)
        lower = [one.lower() for one in names]
        wanted = (REVIEWED_BY, REVIEWED_AT)
        self._reviewed = [lower.index(one) for one in wanted if one in lower]
        self._rows_of: dict[str, list[int]] = defaultdict(list)
        for row in rows:
            fields = self._fields[row]
            if len(fields) < len(names) or any(map(str.strip, fields[len(names) :])):
                raise FieldguideError(
                    f"{name}: row {row}: {len(fields)} fields; the header has {len(names)}"
                )
            self._rows_of[self._fields[row][self._file].strip()].append(row)

    def _add_columns(self) -> bool:
        """Add the columns of reviews to every row, if the table lacks them."""
        lower = [name.lower() for name in self._columns]
        missing = [name for name in (REVIEWED_BY, REVIEWED_AT) if name not in lower]
        if not missing:
            return False
        changed = {}
        for row, fields in enumerate(self._fields):
            if any(map(str.strip, fields)):
                values = missing if row == self._header else [""] * len(missing)
                raw, end = _raw_fields(self._texts[row], self._delimiter)
                more = [self._spelled(value, quoted=_is_quoted(raw)) for value in values]
                changed[row] = self._delimiter.join([*raw[: len(self._columns)], *more]) + end
        self._write(changed)
        self._find_columns()
        return True

    def _append(self, name: str, values: Mapping[int, str], split: str) -> Change:
        """Add a row for a photo that has none."""
        _, end = _raw_fields(self._texts[self._header], self._delimiter)
        fields = [""] * len(self._columns)
        fields[self._file] = name
        if self._split is not None:
            fields[self._split] = split
        for column, value in values.items():
            fields[column] = value
        last = self._texts[-1]
        quoted = _is_quoted(_raw_fields(last, self._delimiter)[0])
        row = self._delimiter.join(self._spelled(field, quoted=quoted) for field in fields) + end
        changed = {len(self._texts): row}
        if last and not last.endswith(("\n", "\r")):
            changed = {len(self._texts) - 1: last + end, **changed}
        self._write(changed)
        self._rows_of[name].append(len(self._texts) - 1)
        return Change([("", row)])

    def _with_values(self, text: str, values: Mapping[int, str]) -> str:
        """Return a row with other values in some columns."""
        raw, end = _raw_fields(text, self._delimiter)
        quoted = _is_quoted(raw)
        for column, value in values.items():
            raw[column] = self._spelled(value, quoted=quoted)
        return self._delimiter.join(raw) + end

    def _spelled(self, value: str, *, quoted: bool) -> str:
        if quoted or any(one in value for one in (self._delimiter, '"', "\n", "\r")):
            return '"' + value.replace('"', '""') + '"'
        return value

    def _write(self, changed: Mapping[int, str]) -> None:
        """Change rows, once the file with them is on disk; the row after the last one is added.

        Args:
            changed: text by row; an empty one takes the row out.
        """
        texts = list(self._texts)
        for row, text in changed.items():
            texts[row : row + 1] = [text]
        try:
            data = self._encoding.encode("".join(texts))
        except UnicodeEncodeError as err:
            raise FieldguideError(
                f"{self.path}: its encoding ({self._encoding.name}) has no "
                f"{err.object[err.start]!r}; save the table as UTF-8"
            ) from err
        self._replace_file(data)
        # Only what changed is read again: a table of 100,000 rows takes a second.
        self._data, self._texts = data, texts
        for row, text in changed.items():
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=self._delimiter)
            self._fields[row : row + 1] = [next(reader, [])]

    def _replace_file(self, data: bytes) -> None:
        if not os.access(self.path, os.W_OK):
            raise FieldguideError(
                f"{self.path}: may not be written; allow it (if DVC tracks it: `dvc unprotect "
                f"{self.path}`)"
            )
        try:
            with aside(self.path) as partial:
                with partial.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                partial.chmod(self.path.stat().st_mode)
        except OSError as err:
            raise FieldguideError(f"{self.path}: cannot be written ({err.strerror})") from err


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


def _is_quoted(raw: Sequence[str]) -> bool:
    """Tell whether every field of a row is in quotes."""
    return all(field.startswith('"') for field in raw)
