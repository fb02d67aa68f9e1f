"""Callbacks of a training: the record of epochs, average and best weights, and early stops."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import lightning as L
from dvclive import Live
from lightning.pytorch.callbacks import EarlyStopping, WeightAveraging
from scmrepo.exceptions import SCMError
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from fieldguide.core.errors import TrainingError
from fieldguide.core.files import write_csv
from fieldguide.training.trial import Channel

MONITOR = "val/acc"
_VAL_LOSS = "val/loss"


class History(L.Callback):
    """Records the metrics of every epoch: prints a line, rewrites the curves, logs the best epoch.

    The metrics are part of the checkpoint, because DVC deletes the outputs of an interrupted run: a
    resumed training writes those of the earlier epochs again.
    """

    def __init__(self, folder: Path, curves: Path, *, validated: bool = True) -> None:
        """Choose the files.

        Args:
            folder: of DVCLive, for metrics.json; it is emptied first.
            curves: CSV with one line per epoch.
            validated: False if the validation photos are trained on.
        """
        self._folder, self._curves, self._validated = folder, curves, validated
        scores = (_VAL_LOSS, MONITOR) if validated else ()
        self._columns = ("train/loss", "train/acc", *scores, "learning_rate")
        self.rows: list[dict[str, float]] = []
        self.seconds: list[float] = []  # of each epoch; never logged, because they differ by run
        self.pruned = False  # True if the sweep has stopped this trial
        self._live: Live | None = None
        self._start = 0.0

    @property
    def best_epoch(self) -> int:
        """The epoch to keep, counted from 1: the first of those with the best score by MONITOR.

        Without validation it is the last epoch.
        """
        if not self._validated:
            return len(self.rows)
        scores = [row[MONITOR] for row in self.rows]
        return scores.index(max(scores)) + 1

    def state_dict(self) -> dict[str, Any]:  # noqa: D102 - a hook of Lightning, as all below
        return {"rows": self.rows, "seconds": self.seconds, "pruned": self.pruned}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: D102
        self.rows, self.seconds = list(state["rows"]), list(state["seconds"])
        self.pruned = state["pruned"]

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:  # noqa: ARG002, D102
        # Lightning skips on_train_start if the checkpoint is of the last epoch.
        if not trainer.is_global_zero:
            return
        # dvc.yaml is written by hand, and DVC itself makes the experiment.
        try:
            self._live = Live(str(self._folder), dvcyaml=None, save_dvc_exp=False)
        except SCMError as err:  # for example a repository without a commit
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
        # Rounded, because Git keeps the values and single precision has no more digits.
        row = {name: round(float(trainer.callback_metrics[name]), 6) for name in self._columns[:-1]}
        rates = [float(group["lr"]) for group in trainer.optimizers[0].param_groups]
        row["learning_rate"] = max(rates)  # of the head, if layers differ
        for name, value in row.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"{name} became {value} in epoch {trainer.current_epoch + 1} at learning rate "
                    f"{row['learning_rate']:.3g}; try a lower train.learning_rate, "
                    'train.gradient_clipping: 1.0, or train.precision: "32"'
                )
        self.rows.append(row)
        self.seconds.append(time.perf_counter() - self._start)
        if trainer.is_global_zero:
            self._log()
            line = f"{len(self.rows):>4}/{trainer.max_epochs:<4}"
            line += "".join(f"{row[name]:>15.4g}" for name in self._columns)
            line += f"{self.seconds[-1]:>9.1f}"
            bar = trainer.progress_bar_callback
            (bar.print if bar is not None else print)(line)

    def finish(self, parameters: dict[str, int]) -> None:
        """Log the numbers of parameters and close the files."""
        assert self._live is not None
        for name, count in parameters.items():
            self._live.log_metric(f"parameters/{name}", count, plot=False)
        if self.pruned:
            self._live.log_metric("pruned", 1, plot=False)
        self._live.end()

    def _log(self) -> None:
        assert self._live is not None
        best = self.rows[self.best_epoch - 1]
        for name in (MONITOR, _VAL_LOSS) if self._validated else ():
            self._live.log_metric(f"best/{name.replace('/', '_')}", best[name], plot=False)
        self._live.make_summary()
        names = [name.replace("/", "_") for name in self._columns]
        lines = ([epoch, *row.values()] for epoch, row in enumerate(self.rows, start=1))
        write_csv(self._curves, ["epoch", *names], lines)


class Averaging(WeightAveraging):
    """Keeps an exponential moving average of the weights, which is validated and saved instead.

    Frozen weights stay exactly as they are. The decay rises to its final value, so that the random
    weights at the start do not dominate a short training.

    Source: Tarvainen & Valpola 2017, section 2 (https://arxiv.org/abs/1703.01780); rising decay:
    https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage.
    """

    def __init__(self, decay: float) -> None:
        """Start with the weights after the first step; `decay` in (0, 1) weighs the old average."""
        super().__init__(multi_avg_fn=self._update)
        self._decay = decay

    def _update(self, averages: Any, weights: Any, updates: Tensor) -> None:
        done = int(updates)
        decay = min(self._decay, (1 + done) / (10 + done))
        get_ema_multi_avg_fn(decay)(averages, weights, updates)  # type: ignore[no-untyped-call]

    @property
    def weights(self) -> dict[str, Tensor]:
        """The averages so far, with the names that the module has."""
        assert self._average_model is not None
        state: dict[str, Tensor] = self._average_model.module.state_dict()
        return state


class BestWeights(L.Callback):
    """Keeps the weights of the best epoch, or their averages, in memory and in the checkpoint.

    Weights and metrics share one file, so that a kill cannot leave them at different epochs.
    `history`, which knows the best epoch, must be an earlier callback.
    """

    def __init__(self, history: History, averaging: Averaging | None) -> None:
        self.weights: dict[str, Tensor] = {}
        self._history, self._averaging = history, averaging

    def state_dict(self) -> dict[str, Any]:  # noqa: D102
        return {"weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: D102
        self.weights = state["weights"]

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:  # noqa: ARG002, D102
        if self._history.best_epoch != len(self._history.rows):
            return
        state = self._averaging.weights if self._averaging else module.state_dict()
        # A copy on the CPU, because training needs the memory of the GPU.
        self.weights = {name: value.detach().to("cpu", copy=True) for name, value in state.items()}


class ResumableEarlyStopping(EarlyStopping):
    """Stays stopped if the training was killed after the stop, before its model was saved."""

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:  # noqa: ARG002, D102
        trainer.should_stop = trainer.should_stop or self.stopped_epoch > 0


class Prune(L.Callback):
    """Stops a trial of a sweep, with its best epoch so far, if the sweep says so.

    Only the first process asks the sweep. All processes get its answer, because one that stopped
    alone would leave the others waiting.
    """

    def __init__(self, channel: Channel, history: History) -> None:
        self._channel, self._history = channel, history

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:  # noqa: ARG002, D102
        trainer.should_stop = (
            trainer.should_stop or self._history.pruned
        )  # killed before it was saved

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:  # noqa: ARG002, D102
        epoch, go_on = trainer.current_epoch + 1, True
        if trainer.is_global_zero:
            metrics = trainer.callback_metrics
            scores = {name: float(metrics[name]) for name in (MONITOR, _VAL_LOSS)}
            self._channel.report(epoch, scores)
            go_on = self._channel.may_go_on(epoch)
        if not trainer.strategy.broadcast(go_on):
            self._history.pruned = True
            trainer.should_stop = True
            if trainer.is_global_zero:
                print(f"Stopped by the sweep after epoch {epoch}: other trials were better there.")
