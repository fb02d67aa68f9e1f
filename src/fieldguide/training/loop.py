"""Train a classifier on a prepared store and save the weights of the best epoch.

Read it from top to bottom. The checkpoint of each epoch lets an interrupted or paused training
continue with the same bytes.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from fieldguide.core.cache import cache_folder
from fieldguide.core.environment import describe_environment, describe_machine
from fieldguide.core.files import folder_md5, write_json, write_text
from fieldguide.core.memory import keep_freed_memory
from fieldguide.core.params import ModelParams, TrainParams, epoch_size
from fieldguide.core.recipes import RATE_IS_FOR, describe_auto
from fieldguide.core.scores import balanced_accuracy, macro_f1
from fieldguide.core.store import Store
from fieldguide.network.augmentation import make_mix
from fieldguide.network.batches import DROPOUT, WEIGHTS, derive_seed
from fieldguide.network.blocks import batch_norms, count_parameters, freeze
from fieldguide.network.bundle import save_bundle
from fieldguide.network.calibration import Calibration
from fieldguide.network.features import Head
from fieldguide.network.initial import InitialNetwork, check_size, initial_network
from fieldguide.network.interface import output_layers
from fieldguide.network.summary import summarize
from fieldguide.training.balance import imbalance_hint, make_loss
from fieldguide.training.calibrate import calibrate, describe
from fieldguide.training.checkpoint import (
    read_checkpoint,
    resume_folder,
    training_facts,
    write_checkpoint,
)
from fieldguide.training.device import autocast, make_deterministic
from fieldguide.training.loaders import make_loaders
from fieldguide.training.optimizers import average_weights, make_optimizer, make_schedule
from fieldguide.training.outputs import Outputs, explained
from fieldguide.training.processes import Processes, joined
from fieldguide.training.record import Record


def train(
    params: TrainParams,
    model: ModelParams,
    *,
    store: Store,
    outputs: Outputs,
    portable: bool = False,
    auto: Mapping[str, object] | None = None,
) -> dict[str, float | str]:
    """Train, or resume an interrupted run of the very same training, and write the outputs.

    Args:
        params: of the training.
        model: of the network.
        store: the photos.
        outputs: where to write.
        portable: whether `core/compute.py` has set this process up for equal bytes everywhere.
        auto: values of keys of section train that are `auto`, for the summary.

    Returns:
        For metrics/timing.json; nothing in a process that writes nothing.

    Raises:
        TrainingError: the loss is not finite, memory runs out, or the machine has no such device.
    """
    keep_freed_memory()
    make_deterministic(params)
    with joined(params, portable=portable) as processes, explained(params, outputs, processes):
        initial = _build(params, model, store)
        if processes.is_first:
            summary = _summary(initial, model, auto or {})
            print(summary)
            write_text(outputs.summary, summary + "\n")
            used = (params.optimizer, params.schedule)
            if "learning_rate" in (auto or {}) and used != RATE_IS_FOR:
                print(
                    f"train.learning_rate: auto is for {' with '.join(RATE_IS_FOR)}; with "
                    f"{params.optimizer} and {params.schedule} another one may be better"
                )
        facts = training_facts(params, model, store=store, initial=initial)
        processes.compare(facts | {"train.stop_after": params.stop_after})
        record = Record(outputs.metrics, outputs.curves, params, writes=processes.is_first)
        training = Training(
            params, model, store=store, initial=initial, processes=processes, record=record
        )
        checkpoints = cache_folder("resume", facts, describe_machine(processes.device))
        with resume_folder(checkpoints) if processes.is_first else nullcontext() as folder:
            training.resume(folder)
            hint = imbalance_hint(training.photos, store.classes)
            if hint and params.balance == "none" and processes.is_first and not record.rows:
                print(hint)
            while not record.is_over:
                _run_epoch(training, folder)
            # `initial.net`, or its output layer, which the bundle then saves.
            training.net.load_state_dict(training.best)
            calibration = calibrate_result(training)
            if folder is None:  # not the first process
                return {}
            record.finish(training.parameters)
            environment = describe_environment(processes.device, portable=portable)
            write_json(outputs.environment, environment)
            val_acc = record.best.get("val/acc")
            bundle = initial.bundle(model, store, val_acc=val_acc, calibration=calibration)
            save_bundle(bundle, outputs.bundle)
            if record.is_finished:
                shutil.rmtree(folder)
    why = "the last, trained on all photos"
    if params.monitor in record.best:
        why = f"{params.monitor} {record.best[params.monitor]:.4f}"
    print(f"Kept epoch {record.best_epoch} of {len(record.rows)}: {why}")
    print(describe(calibration, len(store.split("val"))))
    if not record.is_finished:
        print(f"Paused by train.stop_after: {params.stop_after}; its checkpoint is kept")
    photos = training.batches.order.photos * len(record.rows)
    return {
        "epochs_run": len(record.rows),
        "images_per_second": round(photos / sum(record.seconds), 1),
        # Tells which bundle the seconds belong to: DVC's run cache restores one without training.
        "model": folder_md5(outputs.bundle),
    }


class Training:
    """The parts of a training, most of which change with every step or epoch."""

    def __init__(
        self,
        params: TrainParams,
        model: ModelParams,
        *,
        store: Store,
        initial: InitialNetwork,
        processes: Processes,
        record: Record,
    ) -> None:
        """Make everything that a step needs; this may compute features."""
        self.params, self.processes, self.record = params, processes, record
        self.freezing = freeze(initial.net, model, epochs=params.epochs)
        self.parameters = count_parameters(initial.net)  # before an epoch of `gradual` freezes more
        self.net: nn.Module = initial.net
        if model.head_only:
            self.net = Head(output_layers(initial.net)[0], model.dropout)
        self.net.to(processes.device)
        self.averages = None
        if params.ema_decay > 0:
            self.averages = average_weights(self.net, params.ema_decay)
        if params.compile:
            # In place, so that names of weights stay. The mode for a GPU uses CUDA graphs.
            self.net.compile(mode="reduce-overhead" if torch.cuda.is_available() else "default")
        decay = model.layer_decay if model.finetune == "full" and model.weights != "none" else 1.0
        self.optimizer = make_optimizer(self.net, params, layer_decay=decay)
        self.batches, self.val_batches = make_loaders(
            params, model, store=store, initial=initial, processes=processes
        )
        # Training photos of each class.
        self.photos: list[int] = self.batches.labels.bincount(minlength=len(store.classes)).tolist()
        self.loss = make_loss(params, self.photos, processes.device)
        # The head sees features, which cannot be mixed like photos.
        mixed = params.use_augmentation and not model.head_only
        self.mix = make_mix(params.mixup, params.cutmix, len(store.classes)) if mixed else None
        processes.synchronize_batch_norm(self.net)
        # Fine-tuning keeps the statistics of the weights that it starts from. Those of its few and
        # small batches are worse, and change faster than some networks average them.
        self.fixed_norms = batch_norms(self.net) if model.weights != "none" else []
        steps = params.epochs * len(self.batches)
        self.schedule = make_schedule(self.optimizer, params, steps=steps)
        fp16 = params.precision == "16-mixed"
        self.scaler = torch.amp.GradScaler(processes.device.type, enabled=fp16)
        self.best: dict[str, Tensor] = {}  # weights of the best epoch, on the CPU

    @property
    def result(self) -> nn.Module:
        """What is validated and saved: the network, or the average of its weights."""
        return self.net if self.averages is None else self.averages.module

    def save(self, folder: Path) -> None:
        """Write a checkpoint."""
        state = {name: part.state_dict() for name, part in self._changing().items()}
        write_checkpoint({**state, "best": self.best}, folder)

    def resume(self, folder: Path | None) -> None:
        """Continue from the checkpoint, if there is one; only the first process has the folder."""
        found = self.processes.broadcast(read_checkpoint(folder) if folder else None)
        last = self.params.stop_after or self.params.epochs  # a later checkpoint is of no use
        if found is not None and len(found["record"]["rows"]) <= last:
            for name, part in self._changing().items():
                part.load_state_dict(found[name])
            self.best = found["best"]

    def _changing(self) -> dict[str, Any]:
        """Return the parts that a checkpoint has the state of."""
        names = ("net", "averages", "optimizer", "schedule", "scaler", "record")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


def _run_epoch(training: Training, folder: Path | None) -> None:
    """Train, validate, record, keep the best weights; save a checkpoint if there is a folder."""
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
    training.processes.broadcast(None)  # the others wait while the first one writes


def train_epoch(training: Training, epoch: int) -> dict[str, float]:
    """Train on every photo once, or on as many drawn photos; `epoch` counts from 0.

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
    for norm in training.fixed_norms:
        norm.eval()
    parallel = processes.parallel(net)  # after freezing, because it waits for every gradient
    sums = torch.zeros(3, device=processes.device)  # loss, correct answers, photos
    hidden = None if processes.is_first else True  # None: unless on a terminal
    with tqdm(unit=" photos", total=order.photos, leave=False, disable=hidden) as bar:
        for step, (images, labels) in enumerate(training.batches):
            inputs, targets = images, labels
            if training.mix is not None:
                inputs, targets = training.mix(images, labels)  # targets: (B, K), rows sum to 1
            with autocast(params, processes.device):
                scores = parallel(inputs)  # (B, 3, H, W) -> (B, K)
                loss = training.loss(scores, targets)
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
    """Return mean loss and scores on the validation photos; nothing if they are trained on.

    Without label smoothing and `train.balance`, so that val/loss compares experiments that differ
    in them.
    """
    if training.val_batches is None:
        return {}
    net, processes = training.result, training.processes
    processes.share_buffers(net)
    net.eval()
    sums = torch.zeros(3, device=processes.device)
    # Of each class: photos that were classified correctly, all photos, and photos predicted as it.
    counts = torch.zeros(3, len(training.photos), dtype=torch.int64, device=processes.device)
    for images, labels in training.val_batches:
        with autocast(training.params, processes.device):
            scores = net(images)  # (B, 3, H, W) -> (B, K)
            loss = F.cross_entropy(scores, labels)
        sums += _sums(loss, scores, labels)
        predicted = scores.argmax(dim=1)
        for row, classes in enumerate((labels[predicted == labels], labels, predicted)):
            counts[row] += classes.bincount(minlength=counts.shape[1])
    hits, photos, called = processes.sum(counts).cpu().numpy()  # (K,) each
    return _means("val", sums, processes) | {
        "val/macro_f1": float(macro_f1(hits, photos, called)),
        "val/bal_acc": float(balanced_accuracy(hits, photos)),
    }


@torch.inference_mode()
def calibrate_result(training: Training) -> Calibration | None:
    """Calibrate the network with the weights that are kept; None if there are no validation photos.

    Every process passes its photos through the network; the result is the same in all.
    """
    if training.val_batches is None:
        return None
    net = training.net.eval()
    scores, labels = [], []
    for images, labels_of_batch in training.val_batches:
        # In single precision, in which the classifier will be used.
        scores.append(net(images).float().cpu())
        labels.append(labels_of_batch.cpu())
    every = training.processes.gather((torch.cat(scores), torch.cat(labels)))
    return calibrate(
        torch.cat([one[0] for one in every]),
        torch.cat([one[1] for one in every]),
        target_precision=training.params.target_precision,
    )


def _sums(loss: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
    """Return the sum of losses, of correct answers and of photos of a batch: -> (3,), float32."""
    correct = (scores.argmax(1) == labels).sum()
    photos = torch.full_like(correct, len(labels))
    return torch.stack([loss.detach() * len(labels), correct, photos])


def _means(split: str, sums: Tensor, processes: Processes) -> dict[str, float]:
    """Sum over all processes and divide once: a mean over photos, not over batches."""
    loss, correct, photos = processes.sum(sums)
    return {f"{split}/loss": float(loss / photos), f"{split}/acc": float(correct / photos)}


def _summary(initial: InitialNetwork, model: ModelParams, auto: Mapping[str, object]) -> str:
    """Return the table of layers and, below it, what `auto` became."""
    size = initial.preprocessing.size
    if model.input_size == "auto":
        auto = {"input_size": size, **auto}
    table = summarize(initial.net, size=size)
    return f"{table}\n{describe_auto(auto)}" if auto else table


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
