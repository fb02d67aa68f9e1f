"""Outputs are written aside and renamed: whole, or not there at all."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Replace a text file (UTF-8), making its folder where it is missing."""
    with aside(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a binary file, making its folder where it is missing."""
    with aside(path) as partial:
        partial.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file; a NaN or infinity is an error, because JSON has neither."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Replace a CSV file (UTF-8, one header line, Unix line ends)."""
    with aside(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Yield a name beside `path`; rename that file to `path` only if the block succeeds."""
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
    aside = path.with_name(f".{path.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)  # left by a run that was killed
    aside.mkdir()
    try:
        yield aside
        shutil.rmtree(path, ignore_errors=True)
        aside.rename(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def md5(data: bytes) -> str:
    """Return the hash by which DVC knows a file; MD5 is a name here, not for secrecy."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def listing_md5(files: dict[str, str]) -> str:
    """Return the hash by which DVC knows a folder.

    Args:
        files: MD5 of each file by its path in the folder.
    """
    rows = [{"md5": files[path], "relpath": path} for path in sorted(files)]
    return f"{md5(json.dumps(rows).encode())}.dir"


def folder_md5(folder: Path) -> str:
    """Return the hash by which DVC knows a folder, from its files, which are read whole."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return listing_md5({f.relative_to(folder).as_posix(): md5(f.read_bytes()) for f in files})
