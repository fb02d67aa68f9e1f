"""Which part of a network is trained, and when: the strategies of `model.finetune`."""

from __future__ import annotations

from itertools import chain
from typing import Any

import lightning as L
import torch
from torch import nn

from fieldguide.core.errors import TrainingError
from fieldguide.core.params import ModelParams
from fieldguide.network.interface import Network, output_layers


class Blocks:
    """A network's blocks, first to last; the last of them is the head, with what belongs to it.

    Their bounds are timm's, by each network's `group_matcher(coarse=True)`.
    """

    def __init__(self, net: Network) -> None:
        """Group parameters and modules.

        Raises:
            TrainingError: the network has no such bounds.
        """
        if not hasattr(net, "group_matcher"):
            raise TrainingError(
                "model.finetune: timm does not divide this network into blocks; allowed: head, full"
            )
        from timm.models._manipulate import group_with_matcher  # noqa: PLC0415 - slow to import

        # In one list, or blocks without parameters of their own would be counted differently.
        named = chain(net.named_parameters(), net.named_modules())
        groups = group_with_matcher(named, net.group_matcher(coarse=True), return_values=True)
        self.parameters: list[list[nn.Parameter]] = []
        self.modules: list[list[nn.Module]] = []
        for group in (groups[k] for k in sorted(groups)):
            parameters = [one for one in group if isinstance(one, nn.Parameter)]
            modules = [one for one in group if isinstance(one, nn.Module)]
            if parameters or not self.modules:
                self.parameters.append(parameters)
                self.modules.append(modules)
            else:  # VGG's pooling, say, belongs to the block before it
                self.modules[-1] += modules

    def __len__(self) -> int:
        """Count the blocks below the head."""
        return len(self.parameters) - 1

    def freeze_below(self, first: int) -> None:
        """Train block `first` and all above it; those below keep weights and statistics.

        Below, modules are in eval mode: batch norm neither uses nor updates batch statistics.
        """
        for k, (parameters, modules) in enumerate(zip(self.parameters, self.modules, strict=True)):
            for parameter in parameters:
                parameter.requires_grad_(k >= first)
            for module in modules:
                # Not `eval()`, which would reach the blocks above through their container.
                module.training = k >= first


class Freeze(L.Callback):
    """Keeps blocks frozen: the same ones for `last_k`, fewer from epoch to epoch for `gradual`.

    Source of the latter: Howard & Ruder 2018, section 3.3 (https://arxiv.org/abs/1801.06146).
    """

    def __init__(self, net: Network, model: ModelParams, *, epochs: int) -> None:
        """Freeze what is never trained, so that the optimizer does not see it.

        Raises:
            TrainingError: the network has no blocks, or fewer than `model.last_k`.
        """
        self._blocks, self._model, self._epochs = Blocks(net), model, epochs
        if model.finetune == "last_k" and model.last_k > len(self._blocks):
            raise TrainingError(
                f"model.last_k: found {model.last_k}; {model.name} has {len(self._blocks)} blocks; "
                f"allowed: 1 to {len(self._blocks)}"
            )
        self._blocks.freeze_below(self.first_trained(epochs - 1))

    def first_trained(self, epoch: int) -> int:
        """Return the first block that trains in an epoch, both counted from 0.

        `gradual`: the head alone in the first epoch, then block by block from the top, at an even
        pace, so that all train from the middle of the training on.
        """
        if self._model.finetune == "last_k":
            return len(self._blocks) - self._model.last_k
        until = max(1, self._epochs // 2)  # epochs
        return len(self._blocks) - min(len(self._blocks), epoch * len(self._blocks) // until)

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:  # noqa: ARG002, D102
        self._blocks.freeze_below(self.first_trained(trainer.current_epoch))


def freeze(net: Network, model: ModelParams, *, epochs: int) -> list[L.Callback]:
    """Freeze what is never trained; return the callbacks that keep or change it by epoch.

    Raises:
        TrainingError: see `Freeze`; or there is more than one output layer.
    """
    if model.finetune == "full":
        return []
    if model.head_only:  # trained on features that the rest has computed before
        layers = output_layers(net)
        if len(layers) > 1:
            raise TrainingError(
                f"model.finetune: head needs one output layer, and {model.name} has {len(layers)}; "
                "allowed: last_k, gradual, full"
            )
        net.requires_grad_(False).eval()
        layers[0].requires_grad_(True)
        return []
    return [Freeze(net, model, epochs=epochs)]


def layer_decay_groups(
    net: nn.Module, *, weight_decay: float, layer_decay: float, lr: float
) -> list[dict[str, Any]]:
    """Group parameters by layer, each with `layer_decay` × the learning rate of the one above.

    Source: Bao et al. 2022, BEiT, section 3.2 (https://arxiv.org/abs/2106.08254).
    """
    from timm.optim import param_groups_layer_decay  # noqa: PLC0415 - slow to import

    groups: list[dict[str, Any]] = param_groups_layer_decay(
        net,
        weight_decay=weight_decay,
        no_weight_decay_list=getattr(net, "no_weight_decay", set)(),
        layer_decay=layer_decay,
    )
    for group in groups:
        group["lr"] = lr * group.pop("lr_scale")
    return groups


def count_parameters(net: nn.Module) -> dict[str, int]:
    """Return how many parameters are trained, and how many there are."""
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    return {"trained": trained, "all": sum(p.numel() for p in net.parameters())}


class Head(nn.Module):
    """Dropout and the output layer of a network: (B, F) features -> (B, K) scores."""

    def __init__(self, classifier: nn.Module, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classifier = classifier

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Unnormalised scores; some output layers are convolutions of one pixel."""
        scores: torch.Tensor = self.classifier(self.dropout(features)).flatten(1)
        return scores
