"""What the driver asks of the workers, and what they tell it.

There are two pools of workers: on this machine (local.py) and on a Ray cluster (cluster.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fieldguide.core.params import Params
from fieldguide.core.stage import EXIT_NO_ROOM
from fieldguide.sweeps.experiments import Trial

if TYPE_CHECKING:
    from fieldguide.sweeps.record import PlannedTrial  # loads samplers, which no node needs
    from fieldguide.sweeps.space import Values


@dataclass(frozen=True)
class Reported:
    """A trial has finished an epoch; at a rung it waits for `Pool.answer`."""

    name: str
    epoch: int  # counted from 1
    metrics: dict[str, float]


@dataclass(frozen=True)
class Ended:
    """A trial has ended: as an experiment of the project, or for the reason in `message`."""

    name: str
    trial: Trial | None = None
    status: int | None = None  # of its stage, negative for a signal; None: it did not end
    message: str = ""
    node_failed: bool = False  # the node lacks something, which says nothing about the trial

    @property
    def is_its_own_fault(self) -> bool:
        """True if retrying cannot help, because the stage rejected the trial's params."""
        status = self.status
        return status is not None and 0 < status < 128 and status != EXIT_NO_ROOM  # noqa: PLR2004


class Pool(Protocol):
    """Workers, each of which runs one trial at a time."""

    def recover(self, wanted: Collection[str]) -> set[str]:
        """Take up the trials that another driver left running, and return their names.

        End the processes of all other trials.
        """

    def expect(self, most: int) -> None:
        """Tell the pool how many trials remain, so that it can release workers."""

    def room(self) -> int:
        """Return how many trials can be started now."""

    def start(self, planned: PlannedTrial, rungs: list[int]) -> None:
        """Start a trial, which asks after each of the epochs `rungs` whether to go on."""

    def wait(self) -> Iterator[Reported | Ended]:
        """Wait a moment, and yield what has happened since the last call."""

    def answer(self, name: str, epoch: int, *, go_on: bool) -> None:
        """Let a trial go on after a rung, or end it there with its best epoch so far."""

    def stop(self) -> None:
        """End all trials now; what they have not finished is lost."""

    def close(self) -> None:
        """Free what the pool holds, once no trial runs."""


def gpus_wanted(base: Params, fixed: Values) -> int:
    """Return how many GPUs a trial trains on where there are some; 0 if it trains on a CPU."""
    # Not checked as a whole: a fixed value may be allowed only with one that is searched.
    accelerator = fixed.get("train.accelerator", base.train.accelerator)
    devices = int(fixed.get("train.devices", base.train.devices))
    return devices if accelerator in ("auto", "gpu") else 0
