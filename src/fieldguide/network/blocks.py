"""The blocks of a network: which are trained, in which epochs, and at which learning rate."""

from __future__ import annotations

from typing import Any

from torch import nn

from fieldguide.core.errors import TrainingError
from fieldguide.core.params import ModelParams
from fieldguide.network.interface import Network, output_layers


def block_parameters(net: Network) -> list[list[nn.Parameter]]:
    """Return the parameters of each block, first to last; the last block holds the output layer.

    timm defines the blocks: `group_matcher(coarse=True)` of each network.

    Raises:
        TrainingError: timm does not define blocks for this network.
    """
    if not hasattr(net, "group_matcher"):
        raise TrainingError(
            "model.finetune: timm does not divide this network into blocks; allowed: head, full"
        )
    from timm.models import group_parameters  # noqa: PLC0415 - slow to import

    groups = group_parameters(net, net.group_matcher(coarse=True), return_values=True)
    return [groups[number] for number in sorted(groups)]


class Freezing:
    """Keeps blocks frozen: for `last_k` always the same, for `gradual` fewer in each epoch.

    Source of `gradual`: Howard & Ruder 2018, section 3.3 (https://arxiv.org/abs/1801.06146).
    """

    def __init__(self, net: Network, model: ModelParams, *, epochs: int) -> None:
        """Freeze the blocks that are never trained, so that the optimizer ignores them.

        Raises:
            TrainingError: the network has no blocks, or fewer than `model.last_k`.
        """
        self._net, self._model, self._epochs = net, model, epochs
        self._blocks = block_parameters(net)
        self._below = len(self._blocks) - 1  # blocks below the output layer's
        if model.finetune == "last_k" and model.last_k > self._below:
            raise TrainingError(
                f"model.last_k: found {model.last_k}; {model.name} has {self._below} blocks; "
                f"allowed: 1 to {self._below}"
            )
        self.set_epoch(epochs - 1)

    def first_trained(self, epoch: int) -> int:
        """Return the first block that is trained in an epoch; both count from 0.

        `gradual` trains the output layer alone in the first epoch and then adds blocks from the
        top at an even pace, so that all blocks are trained in the second half of the epochs.
        """
        if self._model.finetune == "last_k":
            return self._below - self._model.last_k
        growing = max(1, self._epochs // 2)  # epochs
        return self._below - min(self._below, epoch * self._below // growing)

    def set_epoch(self, epoch: int) -> None:
        """Train the blocks of an epoch, which counts from 0, and freeze the others.

        Frozen modules are in eval mode: their batch norm neither uses nor updates the statistics of
        a batch.
        """
        first = self.first_trained(epoch)
        for number, block in enumerate(self._blocks):
            for parameter in block:
                parameter.requires_grad_(number >= first)
        self._net.train()
        for module in self._net.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()


def freeze(net: Network, model: ModelParams, *, epochs: int) -> Freezing | None:
    """Freeze what is never trained.

    Returns:
        What freezes blocks in each epoch; None if every epoch trains the same parameters.

    Raises:
        TrainingError: see `Freezing`; or only the head is trained and there are two output layers.
    """
    if model.finetune == "full":
        return None
    if not model.head_only:
        return Freezing(net, model, epochs=epochs)
    layers = output_layers(net)
    if len(layers) > 1:
        raise TrainingError(
            f"model.finetune: head needs one output layer, and {model.name} has {len(layers)}; "
            "allowed: last_k, gradual, full"
        )
    net.requires_grad_(False).eval()  # it computes the features once, before the training
    layers[0].requires_grad_(True)
    return None


def batch_norms(net: nn.Module) -> list[nn.Module]:
    """Return the batch norms of a network."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    return [module for module in net.modules() if isinstance(module, kinds)]


def count_parameters(net: nn.Module) -> dict[str, int]:
    """Return the number of trained parameters and of all parameters."""
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    return {"trained": trained, "all": sum(p.numel() for p in net.parameters())}


def layer_decay_groups(
    net: nn.Module, *, weight_decay: float, layer_decay: float, lr: float
) -> list[dict[str, Any]]:
    """Group parameters by layer; each layer has `layer_decay` × the learning rate of the next.

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
