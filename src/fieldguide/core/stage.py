"""Run one stage: with the code of its own tree, checked params, and messages for mistakes."""

from __future__ import annotations

import argparse
import errno
import json
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fieldguide

try:
    import yaml

    from fieldguide.core.params import Params, load_params
except ModuleNotFoundError as err:  # this Python lacks the packages of requirements.lock
    sys.exit(
        f"{sys.executable} has no module {err.name!r}; run `make venv`, then "
        "`source .venv/bin/activate`"
    )
from fieldguide.core.errors import FieldguideError, printable
from fieldguide.core.files import new_folder, write_json
from fieldguide.core.output import accept_any_text

TIMING = Path("metrics/timing.json")
COPIES = Path("metrics/copies")
# 75 is EX_TEMPFAIL of sysexits.h: the params are not at fault, so a sweep retries the trial.
EXIT_MISTAKE, EXIT_WRONG_TREE, EXIT_NO_ROOM, EXIT_INTERRUPTED = 1, 3, 75, 130
_DISK_ERRORS = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "disk quota exceeded",
    errno.EFBIG: "the file would exceed the size limit",
}


def run(main: Callable[[Params], dict[str, float | str] | None]) -> None:
    """Call a stage's `main`, and exit with a status and a message if it fails.

    A stage takes no arguments, except --help, which shows what it reads and writes.

    Exit status: 0 for success; 1 for a mistake that the message explains; 2 for an argument; 3 if
    the code of another tree would run; 75 on a full disk; 130 on Ctrl-C.

    The duration in seconds, and what `main` returns, go to metrics/timing.json, if it returns
    something. Git tracks that file, but it is no stage's output: durations differ in each run, and
    dvc.lock must not.
    """
    accept_any_text()
    name = Path(sys.argv[0]).stem
    argparse.ArgumentParser(
        description=sys.modules["__main__"].__doc__,
        epilog="Run stages by `dvc repro`. All settings are in params.yaml.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    _check_tree(name)
    start = time.perf_counter()
    try:
        note = main(load_params())
        if _is_first():
            _copy_small_outputs(name)
    except FieldguideError as err:
        _fail(name, str(err))
    except KeyboardInterrupt:
        if not _is_first():
            sys.exit(EXIT_INTERRUPTED)
        _fail(name, "interrupted", EXIT_INTERRUPTED)
    except MemoryError:
        _fail(name, "out of memory; lower data.image_size or choose a smaller model")
    except OSError as err:
        if err.errno not in _DISK_ERRORS:
            raise
        where = f" ({err.filename})" if err.filename else ""
        message = f"{_DISK_ERRORS[err.errno]}{where}; free some space and run `dvc repro` again"
        _fail(name, message, EXIT_NO_ROOM)
    except sqlite3.OperationalError as err:  # DVCLive opens DVC's state database
        message = f"DVC's state database cannot be written ({err}); is the disk full?"
        _fail(name, message, EXIT_NO_ROOM)
    if _is_first() and note:
        _record(name, {"seconds": round(time.perf_counter() - start, 1), **note})


def _copy_small_outputs(name: str) -> None:
    """Copy metrics and plots that are in Git to metrics/copies/<stage>/, which DVC caches.

    `dvc push --run-cache` uploads only what DVC caches, and DVC restores a run on another machine
    only if it has all outputs. The copies have the same hash as the files in Git.
    """
    stages = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    stage = stages.get(name, {})
    outputs = [out for kind in ("metrics", "plots") for out in stage.get(kind, ())]
    in_git = [path for out in outputs if isinstance(out, dict) for path in out]
    if not in_git:
        return
    with new_folder(COPIES / name) as folder:
        for path in in_git:
            shutil.copyfile(path, folder / Path(path).name)


def _is_first() -> bool:
    """Return whether this is process 0, the only one that writes and prints."""
    return os.environ.get("RANK", "0") == "0"


def _check_tree(name: str) -> None:
    """Fail if `fieldguide` comes from another tree, such as an editable install."""
    code, own = Path(fieldguide.__file__).resolve().parent, Path("src/fieldguide").resolve()
    if code != own:
        message = (
            f"fieldguide is imported from {code} instead of {own}, so the recorded code would not "
            "be the code that ran; run stages by `dvc repro`"
        )
        _fail(name, message, EXIT_WRONG_TREE)


def _fail(name: str, message: str, status: int = EXIT_MISTAKE) -> None:
    print(printable(f"{name}: {message}"), file=sys.stderr)
    sys.exit(status)


def _record(name: str, values: dict[str, float | str]) -> None:
    """Replace one stage's entry of metrics/timing.json; start anew if that file is damaged.

    The entry of the same model stays, so that `git status` is clean if nothing else has changed.
    """
    try:
        timing = json.loads(TIMING.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        timing = None
    timing = timing if isinstance(timing, dict) else {}
    before = timing.get(name)
    if not (isinstance(before, dict) and before.get("model") == values["model"]):
        write_json(TIMING, {**timing, name: values})
