"""Store the checkpoint of an interrupted training where only the same training finds it.

DVC deletes the outputs of a stage before each run, and the workspace of an experiment after it.
Checkpoints are therefore in `.fieldguide/resume/<key>/` of the project. The key is a hash of
everything that the result depends on, so that a training never finds a checkpoint of other params,
data, code or libraries.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from fieldguide.core.files import aside, first_free_folder
from fieldguide.core.params import ModelParams, TrainParams
from fieldguide.core.store import Store
from fieldguide.network.initial import InitialNetwork

CHECKPOINT = "last.ckpt"


def project_root() -> Path:
    """Return the folder of the project; for an experiment in a workspace, of its own project.

    DVC sets DVC_ROOT to it. A stage that a person starts runs in the project itself.
    """
    return Path(os.environ.get("DVC_ROOT") or Path.cwd())


def code_sha256() -> str:
    """Return a hash of every fieldguide module that this process has imported."""
    digest = hashlib.sha256()
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and (name == "fieldguide" or name.startswith("fieldguide.")):
            digest.update(f"{name}\n".encode() + Path(file).read_bytes())
    return digest.hexdigest()


def resume_key(*values: Any) -> str:
    """Return a hash of JSON values; equal values give an equal key."""
    text = json.dumps(values, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def training_keys(
    params: TrainParams,
    model: ModelParams,
    store: Store,
    initial: InitialNetwork,
    environment: dict[str, object],
) -> tuple[str, Path | None, dict[str, object]]:
    """Hash what a training depends on.

    Returns:
        The key of its checkpoint; the folder of the features, None if they are not used; and what
        must be equal in all processes, by the name that a user knows.
    """
    dataset = store.description_file
    inputs: dict[str, object] = {
        str(dataset): hashlib.sha256(dataset.read_bytes()).hexdigest(),
        f"models/weights/{model.weights}": initial.origin,
        "Python or library": [environment["python"], environment["libraries"]],
        "src/fieldguide": code_sha256(),
    }
    settings = {"params.yaml": [params.model_dump(), model.model_dump()]}
    details = (environment, vars(initial.preprocessing))
    features = None
    if model.head_only:
        key = resume_key(inputs, model.backbone, *details)
        features = project_root() / ".fieldguide" / "features" / key
    # A training goes on after the epoch at which it was paused.
    trained = [params.model_dump(exclude={"stop_after"}), model.model_dump()]
    return resume_key(inputs, trained, *details), features, inputs | settings


@contextmanager
def resume_folder(root: Path, key: str) -> Iterator[Path]:
    """Yield a folder for CHECKPOINT that no other process uses; the caller deletes it.

    Two experiments may train the same thing at the same time, if they differ only in params of a
    later stage. Each takes the first free folder, so that neither waits for the other.
    """
    with first_free_folder(root / ".fieldguide" / "resume" / key) as folder:
        folder.mkdir(exist_ok=True)
        yield folder


def read_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Return the checkpoint in a folder, on the CPU; None if there is none or it is damaged."""
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as err:  # noqa: BLE001 - damage causes many kinds of errors
        print(f"{path} is damaged ({err!r}): training starts from the beginning")
        return None
    return found


def write_checkpoint(state: dict[str, Any], folder: Path) -> None:
    """Write a checkpoint beside the old one and rename it, so that one of both is complete."""
    try:
        with ctrl_c_waits(), aside(folder / CHECKPOINT) as partial, partial.open("wb") as file:
            torch.save(state, file)
    except RuntimeError as err:
        # PyTorch's error hides the one that caused it, such as a full disk.
        if isinstance(err.__context__, OSError):
            raise err.__context__ from err
        raise


@contextmanager
def ctrl_c_waits() -> Iterator[None]:
    """Raise KeyboardInterrupt after the block: PyTorch's writer may abort if it is interrupted."""
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt
