"""Workers on this machine: slots, each with its share of the cores and a GPU."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from fieldguide.core.params import Params
from fieldguide.sweeps.pool import Ended, Reported, gpus_wanted
from fieldguide.sweeps.record import PlannedTrial
from fieldguide.sweeps.slot import Slot, StartingPoint, remove_aside
from fieldguide.sweeps.space import Values

_TICK = 0.1  # seconds between looks at the trials


class LocalPool:
    """`jobs` slots in a folder, which may be deleted between two runs of a sweep."""

    def __init__(
        self,
        root: Path,
        folder: Path,
        starting_point: StartingPoint,
        *,
        jobs: int,
        base: Params,
        fixed: Values,
    ) -> None:
        """Prepare to run trials.

        Args:
            root: the project.
            folder: for slots and logs.
            starting_point: what all trials start from.
            jobs: trials at a time.
            base: params.yaml's values.
            fixed: values that all trials of the sweep share.
        """
        self._root, self._folder, self._starting_point, self._jobs = (
            root,
            folder,
            starting_point,
            jobs,
        )
        self._busy: dict[str, Slot] = {}  # by the name of its trial
        self._gpus = gpus_of(base, fixed)

    def recover(self, wanted: Collection[str]) -> set[str]:  # noqa: D102 - Pool's, here and below
        for note in sorted(self._folder.glob("slot-*.json")):
            slot = Slot(self._root, self._folder / note.stem, self._starting_point)
            name = slot.adopt() or ""
            if name in wanted and name not in self._busy:
                self._busy[name] = slot
            else:
                slot.kill()
        return set(self._busy)

    def expect(self, most: int) -> None:  # noqa: D102
        del most  # slots are made when they are needed

    def room(self) -> int:  # noqa: D102
        return max(0, self._jobs - len(self._busy))

    def start(self, planned: PlannedTrial, rungs: list[int]) -> None:  # noqa: D102
        busy = {slot.folder.name for slot in self._busy.values()}
        number = next(k for k in range(self._jobs) if f"slot-{k}" not in busy)
        slot = Slot(self._root, self._folder / f"slot-{number}", self._starting_point)
        env = threads(self._jobs)
        if self._gpus:
            env["CUDA_VISIBLE_DEVICES"] = self._gpus[number % len(self._gpus)]
        slot.run(planned.name, planned.overrides, rungs, env=env)
        self._busy[planned.name] = slot

    def wait(self) -> Iterator[Reported | Ended]:  # noqa: D102
        time.sleep(_TICK)
        for name, slot in list(self._busy.items()):
            # Checked before the reports are read, so that the last ones are read too.
            running = slot.is_running
            yield from slot.new_epochs()
            if not running:
                del self._busy[name]
                yield slot.end()

    def answer(self, name: str, epoch: int, *, go_on: bool) -> None:  # noqa: D102
        self._busy[name].answer(epoch, go_on=go_on)

    def stop(self) -> None:  # noqa: D102
        for slot in self._busy.values():
            slot.discard()

    def close(self) -> None:  # noqa: D102
        for path in sorted(self._folder.glob("slot-*")):  # the next start makes new ones
            remove_aside(path)


def threads(jobs: int) -> dict[str, str]:
    """Give each trial an equal share of the cores: two that use all of them slow each other."""
    share = max(1, len(os.sched_getaffinity(0)) // jobs)
    given = os.environ.get("OMP_NUM_THREADS", "")
    threads = min(share, int(given)) if given.isdigit() and int(given) else share
    return {"OMP_NUM_THREADS": str(threads)}


def gpus_of(base: Params, fixed: Values) -> list[str]:
    """Return the GPUs that slots use in turn; none if one trial uses several, or none at all."""
    if gpus_wanted(base, fixed) != 1:
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu.strip() for gpu in visible.split(",") if gpu.strip()]
    import torch  # noqa: PLC0415 - takes seconds, and most sweeps do not need it

    return [str(k) for k in range(torch.cuda.device_count())]
