"""A process that is `dvc`, forked from one that has imported DVC already, which takes a second."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil

from fieldguide.core.files import write_json
from fieldguide.results.dvc import main


def run_dvc(
    arguments: list[str],
    folder: Path,
    log: Path,
    settings: dict[str, str],
    *,
    name: str,
    note: Path,
) -> None:
    """Run DVC's command line in this process, in `folder` and with its output in `log`.

    First it writes the file `note`, by which another driver finds this process and the `name` of
    its trial: the driver that started it may be killed before it could write it.
    """
    os.setsid()  # Ctrl-C is for the driver
    process = psutil.Process()
    facts = {"name": name, "pid": process.pid, "created": process.create_time()}
    write_json(note, facts)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(settings)
    os.chdir(folder)
    sys.exit(main(arguments))
