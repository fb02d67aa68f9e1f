"""What happens around the fit: the record of epochs, the best weights, a stop at NaN."""

from __future__ import annotations

import math
import time
from operator import itemgetter
from pathlib import Path
from typing import Any

import lightning as L
from dvclive import Live
from lightning.pytorch.callbacks import WeightAveraging
from scmrepo.exceptions import SCMError
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from fieldguide.core.errors import TrainingError
from fieldguide.core.files import write_csv
from fieldguide.training.trial import Channel

MONITOR = "val/acc"
_CHECK_EVERY = 50  # batches between looks at the loss, which make a GPU wait
_TRAIN, _VAL = ("train/loss", "train/acc"), ("val/loss", "val/acc")


class History(L.Callback):
    """A line of metrics after every epoch: printed, and added to the curves.

    DVCLive logs the best epoch so far. The lines are part of the checkpoint, because DVC deletes
    the outputs of an interrupted run: the resumed run writes all of them again.
    """

    def __init__(self, folder: Path, curves: Path, *, validated: bool = True) -> None:
        """Choose the files.

        Args:
            folder: DVCLive's, for metrics.json; it is emptied first.
            curves: CSV with a line per epoch.
            validated: False if the validation photos are trained on.
        """
        self._curves, self._validated = curves, validated
        self._columns = (*_TRAIN, *(_VAL if validated else ()), "learning_rate")
        self.rows: list[dict[str, float]] = []
        self.seconds: list[float] = []  # of each epoch; never logged, as it differs between runs
        self._folder = folder
        self._live: Live | None = None
        self._start = 0.0

    def state_dict(self) -> dict[str, Any]:  # noqa: D102 - Lightning's hooks, here and below
        return {"rows": self.rows, "seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: D102
        self.rows, self.seconds = list(state["rows"]), list(state["seconds"])

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:  # noqa: ARG002, D102
        # Not on_train_start, which does not come where the checkpoint is of the last epoch.
        if not trainer.is_global_zero:
            return
        # dvc.yaml is written by hand, and DVC makes the experiment.
        try:
            self._live = Live(str(self._folder), dvcyaml=None, save_dvc_exp=False)
        except SCMError as err:  # as of a repository without a commit
            raise TrainingError(f"Git: {err}; commit the project first") from err
        if self.rows:
            print(f"Going on after epoch {len(self.rows)} of {trainer.max_epochs}.")
        print(
            f"{'epoch':>9}" + "".join(f"{name:>15}" for name in self._columns) + f"{'seconds':>9}"
        )
        if self.rows:
            self._log()

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:  # noqa: ARG002, D102
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:  # noqa: ARG002, D102
        # Rounded: sums in single precision are no better, and Git keeps them.
        row = {name: round(float(trainer.callback_metrics[name]), 6) for name in self._columns[:-1]}
        row["learning_rate"] = _learning_rate(trainer)
        for name, value in row.items():
            _check_finite(value, name, trainer)
        self.rows.append(row)
        self.seconds.append(time.perf_counter() - self._start)
        if trainer.is_global_zero:
            self._log()
            line = f"{len(self.rows):>4}/{trainer.max_epochs:<4}"
            line += "".join(f"{row[name]:>15.4g}" for name in self._columns)
            line += f"{self.seconds[-1]:>9.1f}"
            bar = trainer.progress_bar_callback
            (bar.print if bar is not None else print)(line)

    def finish(self, *, pruned: bool, parameters: dict[str, int]) -> None:
        """Log the sizes of the network and close the files."""
        assert self._live is not None
        for name, count in parameters.items():
            self._live.log_metric(f"parameters/{name}", count, plot=False)
        if pruned:
            self._live.log_metric("pruned", 1, plot=False)
        self._live.end()

    def _log(self) -> None:
        assert self._live is not None
        if self._validated:
            best = max(self.rows, key=itemgetter(MONITOR))  # of equal epochs the first
            for name in (MONITOR, "val/loss"):
                self._live.log_metric(f"best/{name.replace('/', '_')}", best[name], plot=False)
        self._live.make_summary()
        names = [name.replace("/", "_") for name in self._columns]
        lines = ([epoch, *row.values()] for epoch, row in enumerate(self.rows, start=1))
        write_csv(self._curves, ["epoch", *names], lines)


class Averaging(WeightAveraging):
    """An exponential moving average of the weights, which is validated and kept in their place.

    Frozen weights stay as they are, to the last bit. The decay rises to its value, so that a short
    training does not keep the random weights it began with.

    Source: Tarvainen & Valpola 2017, section 2 (https://arxiv.org/abs/1703.01780); the rise is that
    of https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage.
    """

    def __init__(self, decay: float) -> None:
        """Begin with the weights after the first step.

        Args:
            decay: what stays of the average in a step, in (0, 1).
        """
        super().__init__(multi_avg_fn=self._move)
        self._decay = decay

    def _move(self, averages: Any, weights: Any, updates: Tensor) -> None:
        done = int(updates)
        decay = min(self._decay, (1 + done) / (10 + done))
        get_ema_multi_avg_fn(decay)(averages, weights, updates)  # type: ignore[no-untyped-call]

    @property
    def weights(self) -> dict[str, Tensor]:
        """The averages so far, named as in the module."""
        assert self._average_model is not None
        state: dict[str, Tensor] = self._average_model.module.state_dict()
        return state


class BestWeights(L.Callback):
    """Keeps the weights of the epoch with the best MONITOR; of equals, the first.

    They lie inside the one checkpoint file, which is renamed into place whole: a kill between two
    files could otherwise leave halves of different epochs.
    """

    def __init__(self, averaging: Averaging | None = None, *, validated: bool = True) -> None:
        """Choose what to keep.

        Args:
            averaging: whose weights are kept, if not the module's own.
            validated: whether there is a MONITOR; if not, the last epoch is kept.
        """
        self.score = -math.inf
        self.epoch = 0  # counted from 1
        self.weights: dict[str, Tensor] = {}
        self._averaging, self._validated = averaging, validated

    def state_dict(self) -> dict[str, Any]:  # noqa: D102
        return {"score": self.score, "epoch": self.epoch, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: D102
        self.score, self.epoch = state["score"], state["epoch"]
        self.weights = state["weights"]

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:  # noqa: D102
        if self._validated:
            score = round(float(trainer.callback_metrics[MONITOR]), 6)
            if score <= self.score:
                return
            self.score = score
        self.epoch = trainer.current_epoch + 1
        state = self._averaging.weights if self._averaging else module.state_dict()
        # A copy on the CPU: the GPU's memory is for training.
        self.weights = {name: value.detach().to("cpu", copy=True) for name, value in state.items()}


class StopIfNotFinite(L.Callback):
    """Stops at a loss that is NaN or infinite, naming the knobs to turn."""

    def on_train_batch_end(  # noqa: D102
        self,
        trainer: L.Trainer,
        module: L.LightningModule,  # noqa: ARG002
        outputs: Any,
        batch: Any,  # noqa: ARG002
        batch_idx: int,
    ) -> None:
        if batch_idx % _CHECK_EVERY == 0:
            loss = float(outputs["loss"])
            # Together: a process that stops alone would leave the others waiting for it.
            if trainer.strategy.reduce_boolean_decision(not math.isfinite(loss), all=False):
                _check_finite(loss if not math.isfinite(loss) else math.nan, "train/loss", trainer)


def _check_finite(value: float, name: str, trainer: L.Trainer) -> None:
    if not math.isfinite(value):
        raise TrainingError(
            f"{name} became {value} in epoch {trainer.current_epoch + 1} at learning rate "
            f"{_learning_rate(trainer):.3g}; try a lower train.learning_rate, "
            'train.gradient_clipping: 1.0, or train.precision: "32"'
        )


def _learning_rate(trainer: L.Trainer) -> float:
    """Return the highest: that of the head, where layers differ."""
    return max(float(group["lr"]) for group in trainer.optimizers[0].param_groups)


class StayStopped(L.Callback):
    """A training killed after early stopping, before its model was saved, stays stopped."""

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:  # noqa: ARG002, D102
        stopping = trainer.early_stopping_callback
        if stopping is not None and stopping.stopped_epoch > 0:
            trainer.should_stop = True


class Prune(L.Callback):
    """Ends a trial of a sweep that cannot win, with its best epoch so far.

    Rank 0 asks and all processes get its answer: one that left alone would leave the others
    waiting.
    """

    def __init__(self, channel: Channel) -> None:
        self.pruned = False
        self._channel = channel

    def state_dict(self) -> dict[str, Any]:  # noqa: D102
        return {"pruned": self.pruned}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: D102
        self.pruned = state["pruned"]

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:  # noqa: ARG002, D102
        if self.pruned:  # and killed before its model was saved
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:  # noqa: ARG002, D102
        epoch, go_on = trainer.current_epoch + 1, True
        if trainer.is_global_zero:
            metrics = trainer.callback_metrics
            self._channel.report(epoch, {n: float(metrics[n]) for n in ("val/acc", "val/loss")})
            go_on = self._channel.may_go_on(epoch)
        if not trainer.strategy.broadcast(go_on):
            self.pruned = True
            trainer.should_stop = True
            if trainer.is_global_zero:
                print(f"Stopped after epoch {epoch} by the sweep: other trials were better there.")
