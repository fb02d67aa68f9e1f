"""Write the answers of `fieldguide predict` to a file, and go on after a kill.

Until all photos are answered, the rows lie in the hidden file `.NAME.unfinished` beside it. Only
then the file itself is written, at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fieldguide.core.errors import FieldguideError, printable
from fieldguide.core.files import aside, folder_md5, md5
from fieldguide.inference import formats
from fieldguide.inference.answers import Row
from fieldguide.inference.classifier import BATCH

SUFFIXES = (".csv", ".json", ".parquet")


def check_output(output: Path) -> None:
    """Fail before any work if the file could not be written at the end.

    Raises:
        FieldguideError: another suffix, a folder, or pyarrow is not installed.
    """
    if output.suffix.lower() not in SUFFIXES:
        raise FieldguideError(
            f"--output: found {output}; allowed: a name ending in {', '.join(SUFFIXES)}"
        )
    if output.is_dir():
        raise FieldguideError(f"--output: found {output}, a folder; allowed: the name of a file")
    if output.suffix.lower() == ".parquet" and find_spec("pyarrow") is None:
        raise FieldguideError(
            f"--output: {output} needs pyarrow, which is not installed: "
            "pip install 'fieldguide[parquet]'"
        )


def describe_run(
    model: Path, photos: list[Path], *, top: int, min_confidence: float | None
) -> dict[str, object]:
    """Describe what decides the answers; only a run with an equal description may be resumed.

    Args:
        model: folder or file of the classifier.
        photos: files; each counts with its name, size and time of change, because reading all of
            them again would take nearly as long as classifying them.
        top: as in `classify`.
        min_confidence: as in `classify`.
    """
    files = []
    for photo in photos:
        try:
            found = photo.stat()
            files.append([str(photo), found.st_size, found.st_mtime_ns])
        except OSError:  # it will be reported as unreadable
            files.append([str(photo)])
    return {
        "the model": folder_md5(model) if model.is_dir() else md5(model.read_bytes()),
        "the list of photos": md5(json.dumps(files).encode()),
        "--top": top,
        "--min-confidence": min_confidence,
    }


def write_answers(
    output: Path,
    header: list[str],
    rows_from: Callable[[int], Iterable[Row]],
    finish: Callable[[Iterable[Row]], Iterable[Row]],
    *,
    run: dict[str, object],
    photos: int,
    resume: bool,
) -> None:
    """Write the answers to a file; photos that cannot be read are also named on stderr.

    Args:
        output: see `check_output`.
        header: of `formats.columns`.
        rows_from: classifies the photos from an index on.
        finish: passes on all rows, also those of an interrupted run, when they are written.
        run: of `describe_run`.
        photos: number of all photos.
        resume: go on from the answers of an interrupted run, if there is one.

    Raises:
        FieldguideError: the interrupted run was another one, another process writes this file, or
            it cannot be written.
    """
    rows = output.with_name(f".{output.name}.unfinished")
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _only_process(output):
            answered = _keep_answered(rows, run, output, photos) if resume else 0
            if not answered:
                rows.write_text(json.dumps(run) + "\n", encoding="utf-8")
            _append(rows, rows_from(answered))
            with rows.open(encoding="utf-8") as file:
                next(file)  # describes the run
                _write_file(output, header, finish(map(json.loads, file)))
            rows.unlink()
    except OSError as err:
        raise FieldguideError(
            f"{output}: cannot be written ({err.strerror or err}); --resume goes on from the "
            "answers so far"
        ) from err
    except KeyboardInterrupt:
        print("stopped; --resume goes on from the answers so far", file=sys.stderr)
        raise


@contextmanager
def _only_process(output: Path) -> Iterator[None]:
    path = output.with_name(f".{output.name}.lock")
    try:
        lock = FileLock(path).acquire(timeout=0)
    except Timeout as err:
        raise FieldguideError(f"{output}: another process is writing this file") from err
    with lock:
        try:
            yield
        finally:  # before the release: after it, another process may have locked this file
            path.unlink(missing_ok=True)


def _keep_answered(rows: Path, run: dict[str, object], output: Path, photos: int) -> int:
    """Drop damaged rows and the rows of a half-written batch; return how many rows are left.

    The network's last digits may depend on which photos share a batch. So the batches of a resumed
    run must be those of a run without interruption.
    """
    if not rows.exists():
        return 0
    with rows.open("rb+") as file:
        first = _parsed(file.readline())
        if first is None:  # a power cut may leave an empty or damaged file
            return 0
        changed = [name for name in run if first.get(name) != run[name]]
        if changed:
            raise FieldguideError(
                f"{output}: --resume: {', '.join(changed)} changed since the interrupted run; "
                "allowed: the same model, photos and options, or a new run without --resume"
            )
        kept, kept_bytes = 0, file.tell()
        size = kept_bytes
        for count, line in enumerate(takewhile(_parsed, file), start=1):
            size += len(line)
            if count % BATCH == 0 or count == photos:
                kept, kept_bytes = count, size
        file.truncate(kept_bytes)
    return kept


def _parsed(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object of a line; None if the line is damaged or half-written."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and line.endswith(b"\n") else None


def _append(path: Path, rows: Iterable[Row]) -> None:
    with path.open("a", encoding="utf-8") as file:
        for count, row in enumerate(rows, start=1):
            file.write(json.dumps(row) + "\n")
            if count % BATCH == 0:
                file.flush()
            if "error" in row:
                print(printable(row["error"]), file=sys.stderr, flush=True)


def _write_file(output: Path, header: list[str], rows: Iterable[Row]) -> None:
    with aside(output) as partial:
        if output.suffix.lower() == ".parquet":
            formats.write_parquet(rows, header, partial)
            return
        with partial.open("w", encoding="utf-8", newline="") as out:
            if output.suffix.lower() == ".csv":
                formats.write_csv(rows, header, out)
            else:
                formats.write_json(rows, out)
