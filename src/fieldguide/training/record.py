"""The record of a training: the metrics of every epoch, and which epoch to keep."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from fieldguide.core.errors import TrainingError
from fieldguide.core.files import write_csv
from fieldguide.core.params import GOALS, TrainParams

_NARROWEST = 9  # characters of a number such as 0.0001234 in the printed table


class Record:
    """Prints a line for every epoch, rewrites the curves, and logs the best epoch by DVCLive.

    Rows are part of the checkpoint, because DVC deletes the outputs of an interrupted run: a
    resumed training writes those of the earlier epochs again. Only the first of several processes
    writes; the others count the same rows.
    """

    def __init__(self, folder: Path, curves: Path, params: TrainParams, *, writes: bool) -> None:
        """Choose DVCLive's folder, which it empties first, and the CSV with a line per epoch."""
        self._folder, self._curves, self._writes = folder, curves, writes
        self._epochs, self._patience = params.epochs, params.patience
        self._stop_after, self._monitor = params.stop_after, params.monitor
        self.rows: list[dict[str, float]] = []
        self.seconds: list[float] = []  # of each epoch; never logged, because they differ by run
        self._live: Any = None

    @property
    def best_epoch(self) -> int:
        """The epoch to keep, counted from 1: the first with the best value of `train.monitor`.

        Without validation it is the last epoch.
        """
        scores = [row[self._monitor] for row in self.rows if self._monitor in row]
        if not scores:
            return len(self.rows)
        best = max(scores) if GOALS[self._monitor] == "maximize" else min(scores)
        return scores.index(best) + 1

    @property
    def best(self) -> dict[str, float]:
        """The values of the epoch to keep, by name."""
        return self.rows[self.best_epoch - 1]

    @property
    def is_over(self) -> bool:
        """True if the training is finished, or pauses after this epoch."""
        return self.is_finished or 0 < self._stop_after <= len(self.rows)

    @property
    def is_finished(self) -> bool:
        """True after the last epoch, or if patience ends."""
        done = len(self.rows)
        return done > 0 and (done == self._epochs or done - self.best_epoch >= self._patience)

    def add(self, row: dict[str, float], *, seconds: float) -> None:
        """Record one more epoch: value by name, with the same names in every epoch.

        Raises:
            TrainingError: a value is not finite.
        """
        # Rounded, because Git keeps the values and single precision has no more digits.
        row = {k: round(v, 6) if k != "learning_rate" else v for k, v in row.items()}
        for name, value in row.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"{name} became {value} in epoch {len(self.rows) + 1} at learning rate "
                    f"{row['learning_rate']:.3g}; try a lower train.learning_rate, "
                    'train.gradient_clipping: 1.0, or train.precision: "32"'
                )
        self.rows.append(row)
        self.seconds.append(seconds)
        if self._writes:
            self._write()
            values = "".join(f"{value:>{_width(name)}.4g}" for name, value in row.items())
            print(f"{len(self.rows):>4}/{self._epochs:<4}{values}{seconds:>9.1f}")

    def finish(self, parameters: dict[str, int]) -> None:
        """Log the numbers of parameters and close DVCLive's files."""
        for name, count in parameters.items():
            self._live.log_metric(f"parameters/{name}", count, plot=False)
        self._live.end()

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return {"rows": self.rows, "seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint, and write the files of its epochs."""
        self.rows, self.seconds = list(state["rows"]), list(state["seconds"])
        if self._writes:
            print(f"Going on after epoch {len(self.rows)} of {self._epochs}.")
            self._write()

    def _write(self) -> None:
        best, kept = self.best, self.best_epoch
        if self._live is None:
            self._live = _open_live(self._folder)
            header = "".join(f"{name:>{_width(name)}}" for name in best)
            print(f"{'epoch':>9}{header}{'seconds':>9}")
        for name in best:
            if name.startswith("val/"):
                self._live.log_metric(f"best/{name.replace('/', '_')}", best[name], plot=False)
        self._live.make_summary()
        names = [name.replace("/", "_") for name in best]
        lines = (
            [epoch, *row.values(), int(epoch == kept)]
            for epoch, row in enumerate(self.rows, start=1)
        )
        write_csv(self._curves, ["epoch", *names, "kept"], lines)


def _width(name: str) -> int:
    """Return the width of a printed column; the whole table fits 100 characters."""
    return 1 + max(_NARROWEST, len(name))


def _open_live(folder: Path) -> Any:
    """Open DVCLive, when an epoch is done: the import of DVC takes half as long as PyTorch's."""
    from dvclive import Live  # noqa: PLC0415
    from scmrepo.exceptions import SCMError  # noqa: PLC0415

    try:  # dvc.yaml is written by hand, and DVC itself makes the experiment
        return Live(str(folder), dvcyaml=None, save_dvc_exp=False)
    except SCMError as err:  # for example a repository without a commit
        raise TrainingError(f"Git: {err}; commit the project first") from err
