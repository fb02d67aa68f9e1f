"""The Lightning module: steps of training and validation, optimizer, learning-rate schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import lr_scheduler
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from fieldguide.core.params import TrainParams
from fieldguide.network.batches import DROPOUT, derive_seed
from fieldguide.training.finetune import layer_decay_groups
from fieldguide.training.muon import Muon
from fieldguide.training.shared_layers import RankSlice

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class ClassifierModule(L.LightningModule):
    """Trains any network that maps images to K scores, by cross-entropy."""

    def __init__(
        self,
        net: nn.Module,
        params: TrainParams,
        *,
        input_size: int,
        num_classes: int,
        layer_decay: float = 1.0,
        mix: Mix | None = None,
        rank_slice: RankSlice | None = None,
    ) -> None:
        """Wrap a network.

        Args:
            net: maps images, or features if only the head is trained, to scores.
            params: how to train.
            input_size: height and width in pixels, for the model summary.
            num_classes: K.
            layer_decay: learning rate of each layer, as a fraction of that of the next layer.
            mix: mixes the photos of a batch (MixUp, CutMix); None: no mixing.
            rank_slice: tells the shared layers which photos of a step this process has; None if
                there is only one process.
        """
        super().__init__()
        # By default torchmetrics ignores NaN, but a NaN must stop the training.
        self.train_loss = MeanMetric(nan_strategy="disable")
        self.val_loss = MeanMetric(nan_strategy="disable")
        self.train_acc = MulticlassAccuracy(num_classes, average="micro")
        self.val_acc = MulticlassAccuracy(num_classes, average="micro")
        self.net = net
        self.params = params
        self.layer_decay = layer_decay
        self.mix = mix
        self.rank_slice = rank_slice
        self.example_input_array = torch.zeros(1, 3, input_size, input_size)

    def forward(self, images: Tensor) -> Tensor:
        """Unnormalised scores: (B, 3, H, W) -> (B, K)."""
        scores: Tensor = self.net(images)
        return scores

    def on_train_epoch_start(self) -> None:
        """Seed order, augmentation and dropout by (seed, epoch): a resumed epoch is the same."""
        batches: Any = self.trainer.train_dataloader
        batches.order.epoch = self.current_epoch
        # The same in all processes, because each uses its slice of the same random numbers.
        torch.manual_seed(derive_seed(self.params.seed, DROPOUT, self.current_epoch, 0))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of one batch, after mixing."""
        self._log("train", batch_idx)
        images, labels = batch
        if self.rank_slice is not None:
            batches: Any = self.trainer.train_dataloader
            self.rank_slice.set_step(batches.order, batch_idx)
        targets = labels
        if self.mix is not None:
            images, targets = self.mix(images, labels)  # targets: (B, K), rows sum to 1
        loss = self._step(images, labels, targets, "train")
        return loss if self.rank_slice is None else loss * self.rank_slice.weight

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Add one batch to the loss and accuracy of the epoch."""
        self._log("val", batch_idx)
        images, labels = batch
        self._step(images, labels, labels, "val")

    def _log(self, split: str, batch_idx: int) -> None:
        """Register the metrics of an epoch, which Lightning reads and resets at its end.

        Only in the first batch: metrics collect the batches themselves, and `log` takes up to a
        tenth of a small step.
        """
        if batch_idx == 0:
            for name in ("loss", "acc"):
                metric = getattr(self, f"{split}_{name}")
                self.log(f"{split}/{name}", metric, on_step=False, on_epoch=True)

    def _step(self, images: Tensor, labels: Tensor, targets: Tensor, split: str) -> Tensor:
        scores = self(images)  # (B, 3, H, W) -> (B, K)
        # No smoothing in validation, so that val/loss compares experiments of different smoothing.
        smoothing = self.params.label_smoothing if split == "train" else 0.0
        loss = F.cross_entropy(scores, targets, label_smoothing=smoothing)
        # Metrics sum over the images of all processes and divide once. The loss gets one value per
        # image, because torchmetrics ignores weights if it must not ignore NaN.
        getattr(self, f"{split}_loss").update(loss.detach().expand(len(labels)))
        getattr(self, f"{split}_acc").update(scores.detach(), labels)
        return loss

    def configure_optimizers(self) -> Any:
        """Return optimizer and schedule; the schedule moves after every batch."""
        optimizer = make_optimizer(self.net, self.params, layer_decay=self.layer_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = make_schedule(optimizer, self.params, steps=steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def make_mix(params: TrainParams, *, num_classes: int) -> Mix | None:
    """Return torchvision's MixUp or CutMix, or a random choice of both; None: no mixing.

    The result maps images (B, 3, H, W) and labels (B,) to images and class fractions (B, K). It
    draws from PyTorch's global generator.

    Source: https://arxiv.org/abs/1710.09412 and https://arxiv.org/abs/1905.04899.
    """
    if not params.use_augmentation or params.mixup == params.cutmix == 0:
        return None
    from torchvision.transforms import v2  # noqa: PLC0415 - takes half a second

    kinds = ((v2.MixUp, params.mixup), (v2.CutMix, params.cutmix))
    mixes = [kind(alpha=alpha, num_classes=num_classes) for kind, alpha in kinds if alpha > 0]
    mix: Mix = mixes[0] if len(mixes) == 1 else v2.RandomChoice(mixes)
    return mix


def make_optimizer(
    net: nn.Module, params: TrainParams, *, layer_decay: float = 1.0
) -> torch.optim.Optimizer:
    """Build the optimizer; weight decay applies to weights, not to biases and norms.

    Source: Goyal et al. 2017, section 5.3 (https://arxiv.org/abs/1706.02677).
    """
    lr, decay = params.learning_rate, params.weight_decay
    groups: list[dict[str, Any]]
    if layer_decay < 1:
        groups = layer_decay_groups(net, weight_decay=decay, layer_decay=layer_decay, lr=lr)
    else:
        weights = [p for p in net.parameters() if p.requires_grad and p.ndim > 1]
        others = [p for p in net.parameters() if p.requires_grad and p.ndim <= 1]
        groups = [
            {"params": weights, "weight_decay": decay},
            {"params": others, "weight_decay": 0.0},
        ]
    # A fused optimizer unscales gradients of 16-mixed itself, which is too late for Muon. And in
    # mixed precision Lightning does not clip the gradients of a fused optimizer.
    clipped = params.gradient_clipping > 0 and params.precision != "32"
    fused = not (clipped or (params.optimizer == "muon" and params.precision == "16-mixed"))
    match params.optimizer:
        case "adam":
            return torch.optim.Adam(groups, lr, fused=fused)
        case "adamw":
            return torch.optim.AdamW(groups, lr, fused=fused)
        case "muon":
            return Muon(groups, lr, fused=fused)
        case "nadam":
            return torch.optim.NAdam(groups, lr)
        case "rmsprop":
            return torch.optim.RMSprop(groups, lr)
        case "sgd":
            return torch.optim.SGD(groups, lr, momentum=0.9, nesterov=True, fused=fused)


def make_schedule(
    optimizer: torch.optim.Optimizer, params: TrainParams, *, steps: int
) -> lr_scheduler.LRScheduler:
    """Build the learning-rate schedule; `steps` is the number of batches of the whole training."""
    rising = round(params.warmup * steps)  # batches
    match params.schedule:
        case "one_cycle":  # Smith & Topin 2018, https://arxiv.org/abs/1708.07120
            total = steps + 1  # it also moves after the last batch
            return lr_scheduler.OneCycleLR(
                optimizer,
                [group["lr"] for group in optimizer.param_groups],
                total_steps=total,
                # PyTorch would divide by zero if the warm-up had no step.
                pct_start=params.warmup if params.warmup * total > 1 else 0.0,
                cycle_momentum=False,
            )
        case "cosine":  # Goyal et al. 2017, section 2.2; Loshchilov & Hutter 2016
            falling = lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps - rising))
            if rising == 0:
                return falling
            warming = lr_scheduler.LinearLR(optimizer, 1 / (rising + 1), total_iters=rising)
            return lr_scheduler.SequentialLR(optimizer, [warming, falling], [rising])
        case "constant":
            return lr_scheduler.ConstantLR(optimizer, factor=1.0)
