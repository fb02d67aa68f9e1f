"""Write files and folders: each appears complete, or not at all."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout


def write_text(path: Path, text: str) -> None:
    """Write a text file (UTF-8), and its folder if it is missing."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a binary file, and its folder if it is missing."""
    with aside(path) as partial:
        partial.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file. A NaN or an infinity is an error, because JSON has neither."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file (UTF-8, one header line, Unix line ends)."""
    with aside(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Yield a file name beside `path`; rename that file to `path` only if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; rename it to `path` only if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # a killed run may have left one
    partial.mkdir()
    try:
        yield partial
        shutil.rmtree(path, ignore_errors=True)
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def first_free_folder(base: Path) -> Iterator[Path]:
    """Yield the first of the folders `base`/0, `base`/1, ... that no other process uses.

    The folder itself is not made. A lock file beside it keeps other processes away; if this process
    is killed, the kernel frees the lock.
    """
    base.mkdir(parents=True, exist_ok=True)
    for number in count():
        try:
            taken = FileLock(base / f"{number}.lock").acquire(timeout=0)
        except Timeout:
            continue
        with taken:
            yield base / str(number)
        return


def md5(data: bytes) -> str:
    """Return the hash that DVC gives to a file. It only identifies data; it protects nothing."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def listing_md5(files: dict[str, str]) -> str:
    """Return the hash that DVC gives to a folder.

    Args:
        files: MD5 of each file by its path in the folder.
    """
    rows = [{"md5": files[path], "relpath": path} for path in sorted(files)]
    return f"{md5(json.dumps(rows).encode())}.dir"


def folder_md5(folder: Path) -> str:
    """Return the hash that DVC gives to a folder, computed from the bytes of its files."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return listing_md5({f.relative_to(folder).as_posix(): md5(f.read_bytes()) for f in files})
