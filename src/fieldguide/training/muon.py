"""Muon: momentum that is orthogonalised before a weight follows it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.9
# Five steps of a polynomial that draws every singular value towards 1.
# https://leloykun.github.io/ponder/muon-opt-coeffs/
COEFFICIENTS = [
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
]


class Muon(torch.optim.AdamW):
    """AdamW whose matrices, filters included, follow their orthogonalised Nesterov momentum.

    The learning rate is as for AdamW: an update has the root mean square that AdamW's has. What is
    no matrix, such as a bias, a norm or a filter of a single channel, is AdamW's.

    PyTorch's Muon takes no filters of convolutions, and both PyTorch's and timm's compute in
    bfloat16, which takes some 40 times as long on a CPU without instructions for it.

    Source: Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/); size of the update:
    Liu et al. 2025, section 2.2 (https://arxiv.org/abs/2502.16982).
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move every parameter once; matrices are left without gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                gradient = weight.grad
                if gradient is not None and is_matrix(weight):
                    self._follow(weight, gradient, lr=group["lr"], decay=group["weight_decay"])
                    weight.grad = None  # AdamW passes over it
        super().step()
        return loss

    def _follow(self, weight: Tensor, gradient: Tensor, *, lr: float, decay: float) -> None:
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros(())  # AdamW looks for one when it loads a state
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        ahead = gradient.lerp(state["momentum"], MOMENTUM).flatten(1)  # (out, in × places)
        direction = orthogonalised(ahead)
        size = 0.2 * math.sqrt(max(direction.shape))  # root mean square 0.2
        weight.mul_(1 - lr * decay).add_(direction.reshape(weight.shape), alpha=-lr * size)


def is_matrix(weight: Tensor) -> bool:
    """Whether a parameter maps several channels to several."""
    return weight.ndim > 1 and min(weight.shape[:2]) > 1


def orthogonalised(matrix: Tensor) -> Tensor:
    """Return about U Vᵀ of a matrix U S Vᵀ: (m, n) -> (m, n), by Newton and Schulz's iteration."""
    from timm.optim.muon import (  # noqa: PLC0415 - seconds that the other optimizers need not wait
        zeropower_via_newtonschulz,
    )

    dtype = torch.bfloat16 if matrix.is_cuda else torch.float32
    steps = len(COEFFICIENTS)
    near: Tensor = zeropower_via_newtonschulz(matrix, steps, COEFFICIENTS, dtype=dtype)
    return near.to(matrix.dtype)
