"""A process that is `dvc`, forked from one that has imported DVC already, which takes a second.

This module imports nothing of fieldguide's: the process that is forked finds modules by its own
path, on which an editable install may be of another tree.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import psutil

# What `dvc exp run` imports, most of it late. One that another version lacks is passed over.
DVC_MODULES = [
    "dulwich.porcelain",
    "dvc.cli.parser",
    "dvc.commands.experiments.run",
    "dvc.data_cloud",
    "dvc.repo.experiments.executor.local",
    "dvc.repo.experiments.queue.celery",
    "dvc.repo.experiments.queue.workspace",
    "dvc.repo.plots",
    "dvc.repo.reproduce",
    "dvc.stage.run",
    "dvc.utils.hydra",
    "dvc_data.index.checkout",
    "hydra._internal.config_loader_impl",
    "scmrepo.git.backend.pygit2.filter",
]


def run_dvc(
    arguments: list[str],
    folder: Path,
    log: Path,
    settings: dict[str, str],
    *,
    name: str,
    note: Path,
) -> None:
    """Be `dvc <arguments>` in `folder`, with `settings` in the environment and output in `log`.

    The first thing is the file `note`, by which another driver finds this process and its trial's
    `name`: the driver that started it may be gone before it could write it.
    """
    os.setsid()  # Ctrl-C is the driver's
    process = psutil.Process()
    facts = {"name": name, "pid": process.pid, "created": process.create_time()}
    aside = note.with_suffix(".partial")
    aside.write_text(json.dumps(facts), encoding="utf-8")
    aside.replace(note)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(settings)
    os.chdir(folder)
    from dvc.cli import main  # noqa: PLC0415 - the driver has no need of it

    sys.exit(main(arguments))
