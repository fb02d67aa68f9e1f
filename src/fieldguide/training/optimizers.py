"""Optimizers, learning-rate schedules and averages of weights."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.overrides import TorchFunctionMode

from fieldguide.core.params import TrainParams
from fieldguide.network.blocks import layer_decay_groups
from fieldguide.training.muon import Muon


def make_optimizer(
    net: nn.Module, params: TrainParams, *, layer_decay: float = 1.0
) -> torch.optim.Optimizer:
    """Build the optimizer; weight decay applies to weights, not to biases and norms.

    Args:
        net: its parameters that need gradients are trained.
        params: of the training.
        layer_decay: learning rate of each layer, as a fraction of that of the next layer.

    Source: Goyal et al. 2017, section 5.3 (https://arxiv.org/abs/1706.02677).
    """
    lr, decay = params.learning_rate, params.weight_decay
    trained = [p for p in net.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if layer_decay < 1:
        groups = layer_decay_groups(net, weight_decay=decay, layer_decay=layer_decay, lr=lr)
    # A fused optimizer unscales the gradients of 16-mixed in its own step, which is too late for
    # clipping and for Muon.
    early = params.gradient_clipping > 0 or params.optimizer == "muon"
    fused = {"fused": not (early and params.precision == "16-mixed")}
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "adam": (torch.optim.Adam, fused),
        "adamw": (torch.optim.AdamW, fused),
        "muon": (Muon, fused),
        "nadam": (torch.optim.NAdam, {}),
        "rmsprop": (torch.optim.RMSprop, {}),
        "sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, **fused}),
    }
    kind, options = kinds[params.optimizer]
    return without_compiler(kind)(groups, lr=lr, **options)


class ExactRoots(TorchFunctionMode):
    """Within this context the square roots of float32 on a CPU are correctly rounded.

    PyTorch takes those of MKL, which differ between processors. Adam's fused step has its own.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.sqrt and args[0].device.type == "cpu":
            return args[0].double().sqrt().to(args[0].dtype)
        return func(*args, **(kwargs or {}))


def without_compiler(kind: Any) -> Callable[..., torch.optim.Optimizer]:
    """Return an optimizer class whose methods do not import PyTorch's compiler.

    Decorators of these methods import torch._dynamo, only to protect the methods from being
    compiled. The import takes as long as that of PyTorch itself. This project compiles networks
    but never an optimizer, so that it needs the methods without the decorators.
    """
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    unwrapped = inspect.unwrap(kind.step)

    @torch.no_grad()
    def step(self: Any) -> None:
        with ExactRoots():
            unwrapped(self)

    return type(kind.__name__, (kind,), {**methods, "step": step, "__doc__": kind.__doc__})


def make_schedule(
    optimizer: torch.optim.Optimizer, params: TrainParams, *, steps: int
) -> lr_scheduler.LRScheduler:
    """Build the learning-rate schedule; `steps` is the number of batches of the whole training."""
    if params.precision == "16-mixed":  # its scaler may skip the first steps of the optimizer
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
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


def average_weights(net: nn.Module, decay: float) -> AveragedModel:
    """Return an exponential moving average of a network's weights and statistics.

    Frozen weights stay exactly as they are. The decay, in (0, 1), is the weight of the old average
    in an update. It rises to its final value, so that the random weights at the start do not
    dominate a short training.

    Source: Tarvainen & Valpola 2017, section 2 (https://arxiv.org/abs/1703.01780); rising decay:
    https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage.
    """

    def update(averages: Any, weights: Any, updates: Any) -> None:
        done = int(updates)
        rising = min(decay, (1 + done) / (10 + done))
        get_ema_multi_avg_fn(rising)(averages, weights, updates)  # type: ignore[no-untyped-call]

    return AveragedModel(net, multi_avg_fn=update, use_buffers=True)
