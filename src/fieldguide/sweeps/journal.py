"""The file of a sweep's record: a journal in Optuna's format, with one writer.

Optuna's own backend locks, writes and syncs the file for each of the some fifteen entries of a
trial, and opens it for each read. The sweep's lock keeps other drivers away, so the file is read
once, and entries that belong together are written and synced together.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from fieldguide.core.errors import SweepError


class Journal(BaseJournalBackend):
    """The backend of one `JournalStorage`, which alone reads and appends."""

    def __init__(self, path: Path) -> None:
        """Open the file or begin it; half an entry that a kill left is removed.

        Raises:
            SweepError: `path` is a folder.
        """
        _mend(path)
        self._path = path
        self._unread = path.read_bytes().splitlines() if path.exists() else []
        self._unwritten: list[bytes] = []
        self._together = False

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # noqa: ARG002
        """Yield the entries since the last call; the storage keeps those it has read."""
        entries, self._unread = self._unread, []
        return map(json.loads, entries)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append entries; within `operation` they are written at its end."""
        lines = [json.dumps(log, separators=(",", ":")).encode() for log in logs]
        self._unread += lines
        self._unwritten += lines
        if not self._together:
            self._write(sync=True)

    @contextmanager
    def operation(self, *, sync: bool) -> Iterator[None]:
        """Write what is appended inside at once: a kill leaves all of it, or its first entries.

        Args:
            sync: whether it must survive a crash of the machine too. A later operation that is
                synced also syncs the earlier ones.
        """
        self._together = True
        try:
            yield
        finally:
            self._together = False
            self._write(sync=sync)

    def _write(self, *, sync: bool) -> None:
        if not self._unwritten:
            return
        with self._path.open("ab") as file:
            file.write(b"\n".join([*self._unwritten, b""]))
            file.flush()
            if sync:
                os.fsync(file.fileno())
        self._unwritten = []


def _mend(path: Path) -> None:
    """Remove half an entry that a kill left at the end."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        return
    if not path.is_file():
        raise SweepError(f"{path}: is a folder; allowed: the file of the sweep's record")
    with path.open("rb+") as file:
        text = file.read()
        if text and not text.endswith(b"\n"):
            file.truncate(text.rfind(b"\n") + 1)
            os.fsync(file.fileno())
