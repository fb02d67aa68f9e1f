"""Run one stage: from its own tree, with checked parameters, and no traceback for a mistake."""

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
from typing import TYPE_CHECKING

import fieldguide

try:
    import yaml

    from fieldguide.core.params import load_params
except ModuleNotFoundError as err:  # a Python without the environment of the lock
    sys.exit(
        f"{sys.executable} has no module {err.name!r}; run `make venv`, then "
        "`source .venv/bin/activate`"
    )
from fieldguide.core.errors import FieldguideError, printable
from fieldguide.core.files import new_folder, write_json
from fieldguide.core.output import accept_any_text

if TYPE_CHECKING:
    from fieldguide.core.params import Params

TIMING = Path("metrics/timing.json")
COPIES = Path("metrics/copies")
# 75: EX_TEMPFAIL of sysexits.h; nothing is wrong with the params, and a sweep tries again.
EXIT_MISTAKE, EXIT_WRONG_TREE, EXIT_NO_ROOM, EXIT_INTERRUPTED = 1, 3, 75, 130
_DISK = {errno.ENOSPC: "no space left on the device", errno.EDQUOT: "disk quota exceeded"}
_DISK[errno.EFBIG] = "a file would be larger than is allowed here"


def run(main: Callable[[Params], dict[str, float | str] | None]) -> None:
    """Call a stage's `main` and leave the process with its exit status.

    A stage takes no arguments; --help shows what it reads and writes.

    Exit status: 0; 1 for a mistake that the message explains; 2 for an argument; 3 if another
    tree's code would run; 75 on a full disk; 130 on Ctrl-C. Seconds, and what `main` returns, go to
    metrics/timing.json, which belongs to no stage, so that dvc.lock never changes for them.
    """
    accept_any_text()
    name = Path(sys.argv[0]).stem
    argparse.ArgumentParser(
        description=sys.modules["__main__"].__doc__,
        epilog="Run stages by `dvc repro`; every knob is in params.yaml.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    _check_tree()
    start = time.perf_counter()
    try:
        extra = main(load_params()) or {}
        if _is_first():
            _copy_small_outputs(name)
    except FieldguideError as err:
        _fail(name, str(err))
    except KeyboardInterrupt:
        if not _is_first():
            sys.exit(EXIT_INTERRUPTED)
        _fail(name, "interrupted", status=EXIT_INTERRUPTED)
    except MemoryError:
        why = "the memory of this machine is too small"
        _fail(name, f"{why}; lower data.image_size, or take a smaller model")
    except OSError as err:
        if err.errno not in _DISK:
            raise
        where = f" ({err.filename})" if err.filename else ""
        message = f"{_DISK[err.errno]}{where}; free some and run `dvc repro` again"
        _fail(name, message, EXIT_NO_ROOM)
    except sqlite3.OperationalError as err:  # DVC's own state, which DVCLive opens
        message = f"DVC's state database cannot be written ({err}); is the disk full?"
        _fail(name, message, EXIT_NO_ROOM)
    if _is_first():
        _record(name, {"seconds": round(time.perf_counter() - start, 1), **extra})


def _copy_small_outputs(name: str) -> None:
    """Copy the stage's metrics and plots that Git keeps to its folder of copies, which DVC caches.

    `dvc push` uploads only what DVC caches. By the copies, which have the same hash, a run that is
    restored from the run cache on another machine finds its metrics and plots as well.
    """
    stages = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    outputs = [one for kind in ("metrics", "plots") for one in stages.get(name, {}).get(kind, ())]
    in_git = [path for one in outputs if isinstance(one, dict) for path in one]
    if not in_git:
        return
    with new_folder(COPIES / name) as folder:
        for path in in_git:
            shutil.copyfile(path, folder / Path(path).name)


def _is_first() -> bool:
    """Whether this is the process that reports, of several that torchrun or `train` has started."""
    return os.environ.get("RANK", "0") == "0"


def _check_tree() -> None:
    """In an experiment's workspace an editable install would run another tree's code."""
    code, own = Path(fieldguide.__file__).resolve().parent, Path("src/fieldguide").resolve()
    if code != own:
        print(
            f"fieldguide is imported from {code} instead of {own}: the result would be of other "
            "code than is recorded; run stages by `dvc repro`",
            file=sys.stderr,
        )
        sys.exit(EXIT_WRONG_TREE)


def _fail(name: str, message: str, status: int = EXIT_MISTAKE) -> None:
    print(printable(f"{name}: {message}"), file=sys.stderr)
    sys.exit(status)


def _record(name: str, values: dict[str, float | str]) -> None:
    try:
        timing = json.loads(TIMING.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        timing = None
    write_json(TIMING, {**(timing if isinstance(timing, dict) else {}), name: values})
