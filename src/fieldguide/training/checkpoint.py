"""Store the checkpoint of an interrupted training where only the same training finds it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from fieldguide.core.cache import code_sha256
from fieldguide.core.environment import numeric_versions
from fieldguide.core.files import aside, first_free_folder
from fieldguide.core.params import ModelParams, TrainParams
from fieldguide.core.store import Store
from fieldguide.network.initial import InitialNetwork

CHECKPOINT = "last.ckpt"
# A training goes on after the epoch at which it was paused; the target matters after the last one.
_AFTER = {"stop_after", "target_precision"}


def training_facts(
    params: TrainParams, model: ModelParams, *, store: Store, initial: InitialNetwork
) -> dict[str, object]:
    """Return what a training depends on besides the machine, by the name that a user knows."""
    return {
        str(store.description_file): store.sha256,
        f"models/weights/{model.weights}": [initial.origin, vars(initial.preprocessing)],
        "Python or library": numeric_versions(),
        "src/fieldguide": code_sha256(),
        "params.yaml": [params.model_dump(exclude=_AFTER), model.model_dump()],
    }


@contextmanager
def resume_folder(base: Path) -> Iterator[Path]:
    """Yield a folder for CHECKPOINT that no other process uses; the caller deletes it.

    Two experiments may train the same thing at the same time, if they differ only in params of a
    later stage. Each takes the first free folder of `base`, so that neither waits for the other.
    """
    with first_free_folder(base) as folder:
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
