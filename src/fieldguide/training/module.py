"""The Lightning wrapper: one shared step, the optimizer and its schedule."""

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
from fieldguide.training.shared_layers import Part

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class ClassifierModule(L.LightningModule):
    """Cross-entropy training of any network that maps images to K scores."""

    def __init__(
        self,
        net: nn.Module,
        params: TrainParams,
        *,
        input_size: int,
        num_classes: int,
        layer_decay: float = 1.0,
        mix: Mix | None = None,
        part: Part | None = None,
    ) -> None:
        """Wrap a network.

        Args:
            net: scores of images, or of features where only the head is trained.
            params: how to train.
            input_size: pixels, for the model summary.
            num_classes: K.
            layer_decay: learning rate of each layer, relative to that of the layer above.
            mix: what mixes the photos of a batch, if they are.
            part: of several processes, what the network's shared layers know a step by.
        """
        super().__init__()
        # A NaN must show, to stop the training; by default it would be dropped.
        self.train_loss = MeanMetric(nan_strategy="disable")
        self.val_loss = MeanMetric(nan_strategy="disable")
        self.train_acc = MulticlassAccuracy(num_classes, average="micro")
        self.val_acc = MulticlassAccuracy(num_classes, average="micro")
        self.net = net
        self.params = params
        self.layer_decay = layer_decay
        self.mix = mix
        self.part = part
        self.example_input_array = torch.zeros(1, 3, input_size, input_size)

    def forward(self, images: Tensor) -> Tensor:
        """Unnormalised scores: (B, 3, H, W) -> (B, K)."""
        scores: Tensor = self.net(images)
        return scores

    def on_train_epoch_start(self) -> None:
        """Draw order, augmentation and dropout by (seed, epoch): a resumed epoch is the same."""
        batches = self.trainer.train_dataloader
        assert batches is not None
        batches.order.epoch = self.current_epoch
        # Alike in all processes, as each uses its part of the same draws. The 0 stood for the first
        # process when each drew by itself: with it one process draws what it always has.
        torch.manual_seed(derive_seed(self.params.seed, DROPOUT, self.current_epoch, 0))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of one batch, whose photos may be mixed with each other."""
        self._log("train", batch_idx)
        images, labels = batch
        if self.part is not None:
            batches = self.trainer.train_dataloader
            assert batches is not None
            self.part.of_step(batches.order, batch_idx)
        targets = labels
        if self.mix is not None:
            images, targets = self.mix(images, labels)  # targets: (B, K), rows sum to 1
        loss = self._step(images, labels, targets, "train")
        return loss if self.part is None else loss * self.part.weight

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Add one batch to loss and accuracy."""
        self._log("val", batch_idx)
        images, labels = batch
        self._step(images, labels, labels, "val")

    def _log(self, split: str, batch_idx: int) -> None:
        """Hand an epoch's metrics to Lightning, which reads and resets them at its end.

        Once: they gather batches themselves, and `log` takes as long as a tenth of a small step.
        """
        if batch_idx == 0:
            for name in ("loss", "acc"):
                metric = getattr(self, f"{split}_{name}")
                self.log(f"{split}/{name}", metric, on_step=False, on_epoch=True)

    def _step(self, images: Tensor, labels: Tensor, targets: Tensor, split: str) -> Tensor:
        scores = self(images)  # (B, 3, H, W) -> (B, K)
        # Not smoothed in validation: val/loss compares experiments of different smoothing.
        smoothing = self.params.label_smoothing if split == "train" else 0.0
        loss = F.cross_entropy(scores, targets, label_smoothing=smoothing)
        # Summed over images and divided once, over all processes.
        train = split == "train"
        mean = self.train_loss if train else self.val_loss
        accuracy = self.train_acc if train else self.val_acc
        # Once an image: torchmetrics forgets weights where it is told to keep NaNs.
        mean.update(loss.detach().expand(len(labels)))
        accuracy.update(scores.detach(), labels)
        return loss

    def configure_optimizers(self) -> Any:
        """Optimizer and schedule, stepped after every batch."""
        optimizer = make_optimizer(self.net, self.params, layer_decay=self.layer_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = make_schedule(optimizer, self.params, steps=steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def make_mix(params: TrainParams, *, num_classes: int) -> Mix | None:
    """Return what mixes the photos and labels of a batch: torchvision's MixUp, CutMix or either.

    It takes images (B, 3, H, W) and labels (B,), returns images and shares of classes (B, K), and
    draws from PyTorch's global generator.

    Source: https://arxiv.org/abs/1710.09412 and https://arxiv.org/abs/1905.04899.
    """
    if not params.use_augmentation or params.mixup == params.cutmix == 0:
        return None
    from torchvision.transforms import v2  # noqa: PLC0415 - half a second that most need not wait

    kinds = ((v2.MixUp, params.mixup), (v2.CutMix, params.cutmix))
    mixes = [kind(alpha=alpha, num_classes=num_classes) for kind, alpha in kinds if alpha > 0]
    mix: Mix = mixes[0] if len(mixes) == 1 else v2.RandomChoice(mixes)
    return mix


def make_optimizer(
    net: nn.Module, params: TrainParams, *, layer_decay: float = 1.0
) -> torch.optim.Optimizer:
    """Build the optimizer; weight decay acts on weights alone, not on biases and norms.

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
    # Fused ones undo the scaling of half precision themselves, too late for Muon; and Lightning
    # does not clip what they step in any mixed precision.
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
    """Build the learning-rate schedule over `steps` batches, the whole training."""
    rising = round(params.warmup * steps)  # batches
    match params.schedule:
        case "one_cycle":  # Smith & Topin 2018, https://arxiv.org/abs/1708.07120
            total = steps + 1  # it is stepped once more, after the last batch
            return lr_scheduler.OneCycleLR(
                optimizer,
                [group["lr"] for group in optimizer.param_groups],
                total_steps=total,
                # PyTorch divides by the length of a rise, which from step 0 to step 0 is none.
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
