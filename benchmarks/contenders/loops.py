"""Train fieldguide's network by other loops: bare PyTorch, the course work's, fastai, timm.

The figure is images per second of an epoch. The course work's loop and fastai validate on ten
photos within each epoch, because they validate after every epoch.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from contender import ROOT, Link
from torch import nn
from torch.nn import functional as F

from fieldguide.core.params import Params, load_params
from fieldguide.network.cnn import CNN

MEAN = STD = (0.5, 0.5, 0.5)
Settings = dict[str, Any]


def main() -> None:
    """Measure the loop that the settings name."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    link, settings = Link.open()
    params = load_params(ROOT / "params.yaml")
    LOOPS[settings["contender"]](link, settings, params)


def network(settings: Settings, params: Params) -> nn.Module:
    """Build params.yaml's CNN."""
    architecture = params.model.architecture
    assert not isinstance(architecture, str), "params.yaml: model.name must be cnn"
    return CNN(architecture, image_size=settings["size"], num_classes=settings["classes"])


def bare(link: Link, settings: Settings, params: Params) -> None:
    """Run training steps alone, on floats already in memory; on a GPU on one fixed batch.

    The process reuses freed memory as `train` does, so that only the loops differ.
    """
    from fieldguide.core.memory import keep_freed_memory
    from fieldguide.training.optimizers import make_optimizer

    keep_freed_memory()
    device, size = torch.device(settings["device"]), settings["size"]
    net = network(settings, params).to(device).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(net, params.train)
    step: Callable[[torch.Tensor], torch.Tensor] = net
    if settings["compile"]:
        step = torch.compile(net, mode="reduce-overhead")
    steps = settings["images"] // settings["batch"]
    images_an_epoch: int = steps * settings["batch"]
    batches = []
    for _ in range(steps if device.type == "cpu" else 1):
        images = torch.randn(settings["batch"], 3, size, size, device=device)
        labels = torch.randint(0, settings["classes"], (settings["batch"],), device=device)
        batches.append((images.contiguous(memory_format=torch.channels_last), labels))
    smoothing = params.train.label_smoothing
    precision = settings["precision"]
    half = torch.float16 if precision == "16-mixed" else torch.bfloat16
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "16-mixed")

    def measure() -> float:
        start = time.perf_counter()
        for k in range(steps):
            images, labels = batches[k % len(batches)]
            with torch.autocast(device.type, half) if precision != "32" else nullcontext():
                loss = F.cross_entropy(step(images), labels, label_smoothing=smoothing)
            optimizer.zero_grad()
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            scaler.step(optimizer)
            scaler.update()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return images_an_epoch / (time.perf_counter() - start)

    link.serve(measure)


def original(link: Link, settings: Settings, params: Params) -> None:
    """Train with the course work's loop and transforms per photo."""
    import lightning as L
    from original_loop import OriginalModule, original_loader

    class Pace(L.Callback):
        def __init__(self) -> None:
            self.start = 0.0

        def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:  # noqa: ARG002
            if trainer.current_epoch:
                link.answer(settings["images"] / (time.perf_counter() - self.start))
            else:
                link.ready()
            if not link.wait():
                raise KeyboardInterrupt
            self.start = time.perf_counter()

    photos, size = Path(settings["photos"]), settings["size"]
    loaders = (
        original_loader(photos, "train", size=size, jitter=settings["jitter"]),
        original_loader(photos, "test", size=size),
    )
    trainer = L.Trainer(
        max_epochs=-1,
        callbacks=[Pace()],
        accelerator="gpu" if settings["device"] == "cuda" else "cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(OriginalModule(network(settings, params)), *loaders)


def fastai(link: Link, settings: Settings, params: Params) -> None:
    """Train with fastai's Learner; flip and colours on whole batches, as fastai does."""
    from fastai.data.transforms import Normalize
    from fastai.losses import CrossEntropyLossFlat
    from fastai.metrics import accuracy
    from fastai.vision.augment import (
        Brightness,
        Contrast,
        Flip,
        RandomCrop,
        Resize,
        Saturation,
    )
    from fastai.vision.data import ImageDataLoaders
    from fastai.vision.learner import Learner

    size, jitter = settings["size"], settings["jitter"]
    loaders = ImageDataLoaders.from_folder(
        Path(settings["photos"]),
        train="train",
        valid="test",
        bs=settings["batch"],
        num_workers=settings["workers"],
        device=torch.device(settings["device"]),
        # fastai has no crop of a padded photo: crop a larger photo, with the same range of shifts.
        item_tfms=[Resize(size + size // 4), RandomCrop(size)],
        batch_tfms=[
            Flip(),
            Brightness(jitter, p=1.0),
            Contrast(jitter, p=1.0),
            Saturation(jitter, p=1.0),
            Normalize.from_stats(MEAN, STD, cuda=settings["device"] == "cuda"),
        ],
    )
    smoothing = params.train.label_smoothing
    loss = CrossEntropyLossFlat(label_smoothing=smoothing)
    learner = Learner(loaders, network(settings, params), loss_func=loss, metrics=accuracy)
    if settings["device"] == "cuda" and settings["precision"] != "32":
        learner = learner.to_fp16()
    images: int = len(loaders.train) * settings["batch"]

    def measure() -> float:
        start = time.perf_counter()
        with learner.no_logging():
            learner.fit(1, params.train.learning_rate)
        return images / (time.perf_counter() - start)

    link.serve(measure)


def timm(link: Link, settings: Settings, params: Params) -> None:
    """Train with timm's parts in the order of its train.py, which its package does not contain."""
    from contenders.loaders import timm as timm_loader
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2
    from timm.utils import AverageMeter, NativeScaler

    device, precision = torch.device(settings["device"]), settings["precision"]
    net = network(settings, params).to(device).to(memory_format=torch.channels_last)
    loader: Any = timm_loader(settings)
    recipe = params.train
    optimizer = create_optimizer_v2(
        net, opt="adamw", lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=100,
        step_on_epochs=False,
        updates_per_epoch=len(loader),
    )
    loss_of = LabelSmoothingCrossEntropy(recipe.label_smoothing)
    half = torch.float16 if precision == "16-mixed" else torch.bfloat16
    scaler = NativeScaler() if precision == "16-mixed" else None
    updates = 0

    def measure() -> float:
        nonlocal updates
        start, losses, count = time.perf_counter(), AverageMeter(), 0
        net.train()
        for batch, labels in loader:
            images = batch.contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, half) if precision != "32" else nullcontext():
                loss = loss_of(net(images), labels)
            if scaler is not None:
                scaler(loss, optimizer, parameters=net.parameters())
            else:
                loss.backward()
                optimizer.step()
            optimizer.zero_grad()
            losses.update(loss.item(), len(images))
            updates += 1
            scheduler.step_update(num_updates=updates, metric=losses.avg)
            count += len(images)
        return count / (time.perf_counter() - start)

    link.serve(measure)


LOOPS: dict[str, Callable[[Link, Settings, Params], None]] = {
    "bare loop": bare,
    "original": original,
    "fastai": fastai,
    "timm": timm,
}

if __name__ == "__main__":
    main()
