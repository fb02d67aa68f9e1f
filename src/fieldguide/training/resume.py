"""Where an interrupted training is found again, and that nothing else is.

DVC deletes a stage's outs before each run and an experiment's workspace after it, so checkpoints
lie outside both: `.fieldguide/resume/<key>/` of the project. The key is a hash of all that the
result depends on, so a checkpoint of other params, data, code or libraries is never seen.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

CHECKPOINT = "last.ckpt"


def project_root() -> Path:
    """Return the project's folder; inside an experiment's workspace that of its parent.

    DVC sets DVC_ROOT so; a stage started by hand runs in the project itself.
    """
    return Path(os.environ.get("DVC_ROOT") or Path.cwd())


def code_sha256() -> str:
    """Hash of every fieldguide module that this process has imported."""
    digest = hashlib.sha256()
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and (name == "fieldguide" or name.startswith("fieldguide.")):
            digest.update(f"{name}\n".encode() + Path(file).read_bytes())
    return digest.hexdigest()


def resume_key(*parts: Any) -> str:
    """Hash of JSON values: equal parts, equal key."""
    text = json.dumps(parts, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@contextmanager
def resume_folder(root: Path, key: str) -> Iterator[Path]:
    """Yield a folder for CHECKPOINT that no other process uses; delete it if the block succeeds.

    Two experiments may train the same thing at the same time (they differ in a later stage's
    params): each takes the first folder that is free, so that none waits and none mixes. The
    kernel frees a killed process's folder.
    """
    base = root / ".fieldguide" / "resume" / key
    base.mkdir(parents=True, exist_ok=True)
    for number in count():
        lock = FileLock(base / f"{number}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        break
    folder = base / str(number)
    try:
        folder.mkdir(exist_ok=True)
        yield folder
        shutil.rmtree(folder)
    finally:
        lock.release()
