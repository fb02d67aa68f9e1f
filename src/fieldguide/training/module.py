"""The Lightning wrapper: one shared step, the optimizer and its schedule."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fieldguide.data.batches import DROPOUT, Batches, derive_seed
from fieldguide.data.store import Store
from fieldguide.params import TrainParams

EVAL_BATCH = 256  # images; bounds memory, changes no result beyond rounding


class ClassifierModule(L.LightningModule):
    """Cross-entropy training of any network that maps images to K scores."""

    def __init__(self, net: nn.Module, params: TrainParams, *, image_size: int) -> None:
        """Wrap a network; `image_size` in pixels is for the model summary."""
        super().__init__()
        self.net = net
        self.params = params
        self.example_input_array = torch.zeros(1, 3, image_size, image_size)

    def forward(self, images: Tensor) -> Tensor:
        """Unnormalised scores: (B, 3, H, W) -> (B, K)."""
        scores: Tensor = self.net(images)
        return scores

    def on_train_epoch_start(self) -> None:
        """Draw order, augmentation and dropout by (seed, epoch): a resumed epoch is the same."""
        self._batches("train").epoch = self.current_epoch
        key = (DROPOUT, self.current_epoch, self.global_rank)
        torch.manual_seed(derive_seed(self.params.seed, *key))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Loss of one batch."""
        return self._step(batch, "train")

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        """Log loss and accuracy of one batch."""
        self._step(batch, "val")

    def _step(self, batch: tuple[Tensor, Tensor], split: str) -> Tensor:
        images, labels = batch
        scores = self(images)  # (B, 3, H, W) -> (B, K)
        loss = F.cross_entropy(scores, labels, label_smoothing=self.params.label_smoothing)
        hits = (scores.argmax(dim=1) == labels).sum()  # (B, K) -> ()
        # Shares of the epoch's mean, summed over batches and processes: Lightning's own weighted
        # mean rounds the batch size down where processes have different ones.
        photos = self._batches(split).photos
        self.log_dict(
            {f"{split}/loss": loss.detach() * len(labels) / photos, f"{split}/acc": hits / photos},
            on_step=False,
            on_epoch=True,
            reduce_fx="sum",
            sync_dist=True,
        )
        return loss

    def _batches(self, split: str) -> Batches:
        trainer = self.trainer
        batches = trainer.train_dataloader if split == "train" else trainer.val_dataloaders
        assert isinstance(batches, Batches)
        return batches

    def configure_optimizers(self) -> Any:
        """Optimizer and schedule, stepped after every batch."""
        optimizer = make_optimizer(self.net, self.params)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = make_schedule(optimizer, self.params, steps=steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def make_optimizer(net: nn.Module, params: TrainParams) -> torch.optim.Optimizer:
    """Build the optimizer; weight decay acts on weights alone, not on biases and norms.

    Source: Goyal et al. 2017, section 5.3 (https://arxiv.org/abs/1706.02677).
    """
    weights = [p for p in net.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in net.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": params.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    lr = params.learning_rate
    match params.optimizer:
        case "adam":
            return torch.optim.Adam(groups, lr, fused=True)
        case "adamw":
            return torch.optim.AdamW(groups, lr, fused=True)
        case "nadam":
            return torch.optim.NAdam(groups, lr)
        case "rmsprop":
            return torch.optim.RMSprop(groups, lr)
        case "sgd":
            return torch.optim.SGD(groups, lr, momentum=0.9, nesterov=True, fused=True)


def make_schedule(
    optimizer: torch.optim.Optimizer, params: TrainParams, *, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Build the learning-rate schedule over `steps` batches, the whole training."""
    match params.schedule:
        case "one_cycle":  # Smith & Topin 2018, https://arxiv.org/abs/1708.07120
            return torch.optim.lr_scheduler.OneCycleLR(
                optimizer,
                params.learning_rate,
                total_steps=steps + 1,  # it is stepped once more, after the last batch
                cycle_momentum=False,
            )
        case "cosine":
            return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        case "constant":
            return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


class StoreData(L.LightningDataModule):
    """Batches of a prepared store for the process and device that Lightning chose."""

    def __init__(self, store: Store, params: TrainParams) -> None:
        """Keep what batches are made of."""
        super().__init__()
        self.store = store
        self.params = params

    def train_dataloader(self) -> Batches:
        """Shuffled and, if asked for, augmented."""
        params = self.params
        jitter = params.color_jitter if params.use_augmentation else None
        return self._batches("train", params.batch_size, seed=params.seed, jitter=jitter)

    def val_dataloader(self) -> Batches:
        """In order and as they are."""
        return self._batches("val", EVAL_BATCH)

    def _batches(self, split: str, batch_size: int, **options: Any) -> Batches:
        trainer = self.trainer
        assert trainer is not None
        return Batches(
            self.store.split(split),
            batch_size,
            mean=self.store.mean,
            std=self.store.std,
            device=trainer.strategy.root_device,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            **options,
        )
