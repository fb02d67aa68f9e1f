"""The files that a training writes; if it fails, it deletes them and says what to change."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from fieldguide.core.errors import TrainingError, first_line, is_out_of_memory
from fieldguide.core.params import TrainParams
from fieldguide.training.processes import Processes


class Outputs(NamedTuple):
    """The paths that `train` writes to."""

    bundle: Path
    metrics: Path  # DVCLive's folder
    curves: Path  # CSV
    summary: Path
    environment: Path


@contextmanager
def explained(params: TrainParams, outputs: Outputs, processes: Processes) -> Iterator[None]:
    """If the block fails, delete what it has written, and explain what the user can change.

    Raises:
        TrainingError: in place of an error that other params avoid.
    """
    try:
        yield
    except BaseException as err:
        if processes.is_first:
            shutil.rmtree(outputs.metrics, ignore_errors=True)
            for file in (outputs.curves, outputs.summary, outputs.environment):
                file.unlink(missing_ok=True)
        if is_out_of_memory(err):
            message = (
                f"batch_size: {params.batch_size} needs more memory than there is, with this "
                "model and data.image_size; try half of it"
            )
        elif type(err).__module__.startswith(("torch._inductor", "torch._dynamo")):
            message = (
                f"compile: true does not work here ({first_line(err)}); it needs a C++ compiler, "
                "and on a GPU Triton; allowed here: false"
            )
        elif "more than 1 value per channel" in str(err):  # what batch norm says of a single pixel
            message = (
                f"batch_size: {params.batch_size} leaves batch norm a single pixel; allowed here: "
                "2 or more, or for the CNN model.batch_norm: false"
            )
        else:
            raise
        raise TrainingError(f"train.{message}") from err
