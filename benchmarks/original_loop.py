"""The course work's training loop: `ImageFolder`, transforms per photo, a Lightning Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

BATCH = 64


class OriginalModule(L.LightningModule):
    """Cross-entropy with Adam at a constant learning rate."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def _step(self, batch: Any, name: str) -> Tensor:
        images, labels = batch
        scores = self.net(images)
        loss = F.cross_entropy(scores, labels)
        hits = (scores.argmax(1) == labels).float().mean()
        self.log_dict({f"{name}_loss": loss, f"{name}_acc": hits}, on_epoch=True, on_step=False)
        return loss

    def training_step(self, batch: Any) -> Tensor:
        """Return the loss of one batch."""
        return self._step(batch, "train")

    def validation_step(self, batch: Any) -> None:
        """Log loss and accuracy of one batch."""
        self._step(batch, "val")

    def test_step(self, batch: Any) -> None:
        """Log loss and accuracy of one batch."""
        self._step(batch, "test")

    def configure_optimizers(self) -> Any:
        """Return Adam with the learning rate of the best trial of the course work's sweep."""
        return torch.optim.Adam(self.parameters(), lr=1e-4)


def original_net(size: int, classes: int) -> nn.Module:
    """Build the network of the best of the course work's 480 sweep trials.

    It has 5 layers of 128 filters with batch norm and GELU.

    Args:
        size: pixels of the input's sides.
        classes: number of outputs.
    """
    layers: list[nn.Module] = []
    for channels in (3, 128, 128, 128, 128):
        layers += [nn.Conv2d(channels, 128, 3, padding=1), nn.BatchNorm2d(128), nn.GELU()]
        layers += [nn.MaxPool2d(2)]
    flat = 128 * (size // 32) ** 2
    head = [nn.Flatten(), nn.Linear(flat, 512), nn.GELU(), nn.Dropout(0.3)]
    return nn.Sequential(*layers, *head, nn.Linear(512, classes))


def original_loader(
    photos: Path, split: str, *, size: int, jitter: float | None = None
) -> DataLoader[Any]:
    """Load batches from a folder of class folders; training photos are shuffled.

    Args:
        photos: folder with <split>/<class>/*.jpg.
        split: "train", "val" or "test".
        size: pixels.
        jitter: colour jitter, used with a random crop and flip; None for no augmentation, as in the
            best trial of the course work.
    """
    random: list[Any] = []
    if jitter is not None:
        random = [
            transforms.RandomCrop(size, padding=size // 8, padding_mode="reflect"),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(jitter, jitter, jitter),
        ]
    transform = transforms.Compose(
        [
            transforms.Resize((size, size)),
            *random,
            transforms.ToTensor(),
            transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ]
    )
    return DataLoader(
        ImageFolder(photos / split, transform),
        BATCH,
        shuffle=split == "train",
        num_workers=2,
        persistent_workers=True,
    )
