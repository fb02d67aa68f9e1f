"""What the driver asks of the place where trials run, and what it is told.

Two places exist: this machine (local.py) and the nodes of a Ray cluster (cluster.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from fieldguide.core.stage import EXIT_NO_ROOM
from fieldguide.sweeps.experiments import Trial

if TYPE_CHECKING:
    from fieldguide.sweeps.record import Run  # loads Optuna, which a node has no need of


@dataclass(frozen=True)
class Reported:
    """A trial has finished an epoch; at a rung it waits for `Pool.answer`."""

    name: str
    epoch: int  # counted from 1
    metrics: dict[str, float]


@dataclass(frozen=True)
class Ended:
    """A trial runs no more: it is an experiment of the project, or it says why it is none."""

    name: str
    trial: Trial | None = None
    status: int | None = None  # of its stage, negative for a signal; None: it did not end
    message: str = ""
    of_place: bool = False  # no word about the trial: where it should run, something is missing

    @property
    def is_its_own_fault(self) -> bool:
        """Whether the trial would end so again: its stage says that its params are at fault."""
        status = self.status
        return status is not None and 0 < status < 128 and status != EXIT_NO_ROOM  # noqa: PLR2004


class Pool(Protocol):
    """Runs trials, as many at a time as it has room for."""

    options: str  # of `sweep run`, that make another one of its kind

    def recover(self, wanted: Collection[str]) -> set[str]:
        """Take up trials that another driver left, of those wanted, and return their names.

        `wait` tells of them as of those that were started here.
        """

    def expect(self, most: int) -> None:
        """Hear how many trials are still to end, at most; places beyond may be given up."""

    def room(self) -> int:
        """How many trials can be started now."""

    def start(self, run: Run, rungs: list[int]) -> None:
        """Start a trial that asks after these epochs whether it may go on."""

    def wait(self) -> Iterator[Reported | Ended]:
        """Wait a moment, and yield what has happened since the last time."""

    def answer(self, name: str, epoch: int, *, go_on: bool) -> None:
        """Let a trial go on after a rung, or end it there with its best epoch so far."""

    def log(self, name: str) -> Path:
        """Where the output of a trial lies."""

    def stop(self) -> None:
        """End all trials now; what they have not finished is lost."""

    def close(self) -> None:
        """Free what the pool holds once no trial runs."""
