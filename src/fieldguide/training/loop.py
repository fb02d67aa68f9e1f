"""Train a classifier on a prepared store and save the weights of the best epoch.

To be read from top to bottom: `train` prepares everything, calls `_run_epoch` until the training is
over, and writes the results. The checkpoint of each epoch lets an interrupted training continue
with the same bytes.
"""

from __future__ import annotations

import shutil
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from fieldguide.core.files import folder_md5, write_json, write_text
from fieldguide.core.params import ModelParams, TrainParams, epoch_size
from fieldguide.core.store import Store
from fieldguide.network.augmentation import Mix, make_mix
from fieldguide.network.batches import DROPOUT, WEIGHTS, derive_seed
from fieldguide.network.bundle import Bundle, save_bundle
from fieldguide.network.initial import InitialNetwork, check_size, initial_network
from fieldguide.network.interface import output_layers
from fieldguide.network.summary import summarize
from fieldguide.training.checkpoint import (
    project_root,
    read_checkpoint,
    resume_folder,
    training_keys,
    write_checkpoint,
)
from fieldguide.training.device import autocast, choose_device, make_deterministic
from fieldguide.training.environment import describe_environment
from fieldguide.training.finetune import Freezing, Head, count_parameters, freeze
from fieldguide.training.loaders import Loader, make_loaders
from fieldguide.training.memory import keep_freed_memory
from fieldguide.training.optimizers import average_weights, make_optimizer, make_schedule
from fieldguide.training.outputs import Outputs, explained
from fieldguide.training.processes import Processes, joined
from fieldguide.training.record import MONITOR, Record


def train(
    params: TrainParams,
    model: ModelParams,
    *,
    store: Store,
    outputs: Outputs,
) -> dict[str, float | str]:
    """Train, or resume an interrupted run of the very same training, and write the outputs.

    Args:
        params: how to train.
        model: what to train.
        store: photos to train on.
        outputs: where to write.

    Returns:
        Epochs, images per second and DVC's hash of the bundle, for metrics/timing.json; nothing
        in a process that writes nothing.

    Raises:
        TrainingError: the loss is not finite, memory runs out, or the machine has no such device.
    """
    keep_freed_memory()
    device = choose_device(params)
    make_deterministic(params)
    with joined(params, device) as processes, explained(params, outputs, processes):
        initial = _build(params, model, store)
        freezing = freeze(initial.net, model, epochs=params.epochs)
        parameters = count_parameters(initial.net)  # now, because epochs of `gradual` freeze more
        if processes.is_first:
            _summarize(initial, model, outputs.summary)
        environment = describe_environment(device)
        key, features, facts = training_keys(params, model, store, initial, environment)
        processes.compare(facts)
        record = Record(outputs.metrics, outputs.curves, params, writes=processes.is_first)
        training = _prepare(
            params,
            model,
            store=store,
            initial=initial,
            freezing=freezing,
            features=features,
            record=record,
            processes=processes,
        )
        with resume_folder(project_root(), key) if processes.is_first else nullcontext() as folder:
            training.resume(folder)
            record.start()
            while not record.is_over:
                _run_epoch(training, folder)
            if folder is None:  # not the first process
                return {}
            record.finish(parameters)
            write_json(outputs.environment, environment)
            # `initial.net`, or its output layer, which the bundle then saves.
            training.net.load_state_dict(training.best)
            save_bundle(_bundle(initial, model, store, val_acc=record.best_score), outputs.bundle)
            if record.is_finished:
                shutil.rmtree(folder)
    why = "the last, trained on all photos"
    if record.best_score is not None:
        why = f"{MONITOR} {record.best_score:.4f}"
    print(f"Kept epoch {record.best_epoch} of {len(record.rows)}: {why}")
    if not record.is_finished:
        print(f"Paused by train.stop_after: {params.stop_after}; its checkpoint is kept")
    photos = training.batches.order.photos * len(record.rows)
    return {
        "epochs_run": len(record.rows),
        "images_per_second": round(photos / sum(record.seconds), 1),
        # Tells which bundle the seconds belong to: DVC's run cache restores one without training.
        "model": folder_md5(outputs.bundle),
    }


@dataclass
class Training:
    """The parts of a training, most of which change with every step or epoch."""

    params: TrainParams
    processes: Processes
    freezing: Freezing | None
    batches: Loader  # to train on
    val_batches: Loader | None  # None if the validation photos are trained on
    mix: Mix | None
    net: nn.Module  # the network, or only its head
    parallel: nn.Module  # computes as `net` does, and averages gradients over the processes
    averages: AveragedModel | None  # of the weights, by `train.ema_decay`
    optimizer: torch.optim.Optimizer
    schedule: LRScheduler
    scaler: torch.amp.GradScaler
    record: Record
    best: dict[str, Tensor] = field(default_factory=dict)  # weights of the best epoch, on the CPU

    @property
    def result(self) -> nn.Module:
        """What is validated and saved: the network, or the average of its weights."""
        return self.net if self.averages is None else self.averages.module

    def save(self, folder: Path) -> None:
        """Write a checkpoint."""
        state = {name: part.state_dict() for name, part in self._changing().items()}
        write_checkpoint({**state, "best": self.best}, folder)

    def resume(self, folder: Path | None) -> None:
        """Continue from the checkpoint in a folder, if there is one; only the first process has it.

        The other processes get it from the first.
        """
        found = self.processes.broadcast(read_checkpoint(folder) if folder else None)
        stop = self.params.stop_after
        if found is not None and (not stop or len(found["record"]["rows"]) <= stop):
            for name, part in self._changing().items():
                part.load_state_dict(found[name])
            self.best = found["best"]

    def _changing(self) -> dict[str, Any]:
        parts = {
            "net": self.net,
            "averages": self.averages,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "scaler": self.scaler,
            "record": self.record,
        }
        return {name: part for name, part in parts.items() if part is not None}


def _prepare(
    params: TrainParams,
    model: ModelParams,
    *,
    store: Store,
    initial: InitialNetwork,
    freezing: Freezing | None,
    features: Path | None,
    record: Record,
    processes: Processes,
) -> Training:
    """Make everything that a training step needs."""
    net: nn.Module = initial.net
    if model.head_only:
        net = Head(output_layers(initial.net)[0], model.dropout)
    net.to(processes.device)
    averages = average_weights(net, params.ema_decay) if params.ema_decay > 0 else None
    if params.compile:
        # In place, so that names of weights stay. The mode for a GPU uses CUDA graphs.
        net.compile(mode="reduce-overhead" if torch.cuda.is_available() else "default")
    decay = model.layer_decay if model.finetune == "full" and model.weights != "none" else 1.0
    optimizer = make_optimizer(net, params, layer_decay=decay)
    # The head sees features, which cannot be mixed like photos.
    mixed = params.use_augmentation and not model.head_only
    batches, val_batches = make_loaders(store, params, initial, processes, features)
    processes.wait()  # features may take one of them longer than a step may
    return Training(
        params=params,
        processes=processes,
        freezing=freezing,
        batches=batches,
        val_batches=val_batches,
        mix=make_mix(params.mixup, params.cutmix, len(store.classes)) if mixed else None,
        net=net,
        parallel=processes.parallel(net, some_frozen=model.finetune == "gradual"),
        averages=averages,
        optimizer=optimizer,
        schedule=make_schedule(optimizer, params, steps=params.epochs * len(batches)),
        scaler=torch.amp.GradScaler(processes.device.type, enabled=params.precision == "16-mixed"),
        record=record,
    )


def _run_epoch(training: Training, folder: Path | None) -> None:
    """Train, validate, record, keep the best weights and save a checkpoint.

    Args:
        training: to continue.
        folder: for the checkpoint; None in a process that writes nothing.
    """
    record, start = training.record, time.perf_counter()
    row = train_epoch(training, len(record.rows)) | validate(training)
    row["learning_rate"] = max(group["lr"] for group in training.optimizer.param_groups)  # head's
    record.add(row, seconds=time.perf_counter() - start)
    if record.best_epoch == len(record.rows):
        # A copy on the CPU, because training needs the memory of the GPU.
        weights = training.result.state_dict()
        training.best = {name: value.to("cpu", copy=True) for name, value in weights.items()}
    if folder is not None:
        # Weights and metrics in one file, so that a kill cannot leave them at different epochs.
        training.save(folder)


def train_epoch(training: Training, epoch: int) -> dict[str, float]:
    """Train on every photo once; `epoch` counts from 0.

    Order, augmentation and dropout depend only on seed and epoch, so that a resumed epoch is the
    same.

    Returns:
        Mean loss, and accuracy on the augmented photos, by their own labels even if they are mixed.
    """
    params, net, processes = training.params, training.net, training.processes
    order = training.batches.order
    order.epoch = epoch
    torch.manual_seed(derive_seed(params.seed, DROPOUT, epoch, processes.rank))
    net.train()
    if training.freezing is not None:
        training.freezing.set_epoch(epoch)
    sums = torch.zeros(3, device=processes.device)  # loss, correct answers, photos
    hidden = None if processes.is_first else True  # None: unless on a terminal
    with tqdm(unit=" photos", total=order.photos, leave=False, disable=hidden) as bar:
        for step, (images, labels) in enumerate(training.batches):
            inputs, targets = images, labels
            if training.mix is not None:
                inputs, targets = training.mix(images, labels)  # targets: (B, K), rows sum to 1
            with autocast(params, processes.device):
                scores = training.parallel(inputs)  # (B, 3, H, W) -> (B, K)
                loss = F.cross_entropy(scores, targets, label_smoothing=params.label_smoothing)
            # Makes the mean over processes a mean over photos, if they cannot be shared evenly.
            factor = len(labels) * processes.count / order.step_size(step)
            update_weights(training, loss * factor)
            sums += _sums(loss, scores, labels)
            bar.update(order.step_size(step))
    return _means("train", sums, processes)


def update_weights(training: Training, loss: Tensor) -> None:
    """Make one step of the optimizer, the schedule and the average of the weights."""
    optimizer, scaler = training.optimizer, training.scaler
    optimizer.zero_grad()
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    if training.params.gradient_clipping > 0:
        scaler.unscale_(optimizer)
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(trained, training.params.gradient_clipping)
    scaler.step(optimizer)
    scaler.update()
    training.schedule.step()
    if training.averages is not None:
        training.averages.update_parameters(training.net)


@torch.inference_mode()
def validate(training: Training) -> dict[str, float]:
    """Return mean loss and accuracy on the validation photos; nothing if they are trained on.

    Without label smoothing, so that val/loss compares experiments of different smoothing.
    """
    if training.val_batches is None:
        return {}
    net, processes = training.result, training.processes
    processes.share_buffers(net)
    net.eval()
    sums = torch.zeros(3, device=processes.device)
    for images, labels in training.val_batches:
        with autocast(training.params, processes.device):
            scores = net(images)  # (B, 3, H, W) -> (B, K)
            loss = F.cross_entropy(scores, labels)
        sums += _sums(loss, scores, labels)
    return _means("val", sums, processes)


def _sums(loss: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
    """Return the sum of losses, of correct answers and of photos of a batch: -> (3,), float32."""
    correct = (scores.argmax(1) == labels).sum()
    photos = torch.full_like(correct, len(labels))
    return torch.stack([loss.detach() * len(labels), correct, photos])


def _means(split: str, sums: Tensor, processes: Processes) -> dict[str, float]:
    """Sum over all processes and divide once: a mean over photos, not over batches."""
    loss, correct, photos = processes.sum(sums)
    return {f"{split}/loss": float(loss / photos), f"{split}/acc": float(correct / photos)}


def _build(params: TrainParams, model: ModelParams, store: Store) -> InitialNetwork:
    """Build the network and try the input size of every epoch."""
    torch.manual_seed(derive_seed(params.seed, WEIGHTS))
    initial = initial_network(model, store)
    if not model.head_only:  # features are of photos of one size
        full, epochs = initial.preprocessing.size, params.epochs
        sizes = {epoch_size(full, params.start_size, k, of=epochs) for k in range(epochs)}
        for size in sorted(sizes - {full}):
            check_size(initial.net, model, size)
    initial.net.to(memory_format=torch.channels_last)
    return initial


def _summarize(initial: InitialNetwork, model: ModelParams, path: Path) -> None:
    """Print and write every layer of the CNN, or the blocks of a model of timm."""
    depth = None if model.name == "cnn" else 2
    summary = summarize(initial.net, size=initial.preprocessing.size, depth=depth)
    print(summary)
    write_text(path, summary + "\n")


def _bundle(
    initial: InitialNetwork, model: ModelParams, store: Store, *, val_acc: float | None
) -> Bundle:
    return Bundle(
        net=initial.net,
        architecture=model.architecture,
        classes=store.classes,
        image_size=store.image_size,
        resize=store.resize,
        preprocessing=initial.preprocessing,
        val_acc=val_acc,
        started_from=initial.origin,
    )
