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
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from lightning.pytorch.plugins.io import TorchCheckpointIO

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


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it there, so that it is whole or old.

    Lightning's own writes to the system's temporary folder and moves it, which is a copy where that
    is another file system.

    What is loaded is given as bytes: of several processes only the first has the file.
    """

    content: bytes | None = None

    def load_checkpoint(self, *_args: Any, **_options: Any) -> dict[str, Any]:
        """Load what was given, once, whatever the path."""
        assert self.content is not None
        checkpoint: dict[str, Any] = _load(self.content)
        self.content = None
        return checkpoint

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Save with `torch.save`."""
        del storage_options
        aside = Path(f"{path}.partial")
        try:
            with aside.open("wb") as file:
                torch.save(checkpoint, file)
            aside.replace(path)
        except RuntimeError as err:
            # PyTorch's own hides the error that caused it, such as a full disk.
            if isinstance(err.__context__, OSError):
                raise err.__context__ from err
            raise
        finally:
            aside.unlink(missing_ok=True)


def _load(content: bytes) -> Any:
    return torch.load(BytesIO(content), map_location="cpu", weights_only=True)


def readable_checkpoint(folder: Path) -> bytes | None:
    """Return the folder's checkpoint, if there is one and it can be read; a damaged one is lost."""
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    try:
        content = path.read_bytes()
        _load(content)
    except Exception as err:  # noqa: BLE001 - damage shows in many ways
        print(f"{path} is damaged ({err!r}): training starts from the beginning")
        return None
    return content


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
