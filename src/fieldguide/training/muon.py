"""Muon: an optimizer that orthogonalises the momentum of each weight matrix."""

from __future__ import annotations

import inspect
import math

import torch
from torch import Tensor

MOMENTUM = 0.9
# Five steps of a polynomial iteration that moves every singular value towards 1.
# https://leloykun.github.io/ponder/muon-opt-coeffs/
COEFFICIENTS = [
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
]


class Muon(torch.optim.AdamW):
    """AdamW, but weight matrices and convolution filters follow an orthogonalised momentum.

    Learning rates are those of AdamW, because each update is scaled to the root mean square that an
    update of AdamW has. AdamW itself updates all other parameters: biases, norms and filters of a
    single channel.

    PyTorch's own Muon refuses convolution filters, and computes in bfloat16, as timm's does. That
    takes some 40 times as long on a CPU without instructions for it.

    Source: Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/); scale of the update:
    Liu et al. 2025, section 2.2 (https://arxiv.org/abs/2502.16982).
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter once; gradients of matrices are deleted."""
        assert closure is None
        for group in self.param_groups:
            for weight in group["params"]:
                gradient = weight.grad
                if gradient is not None and is_matrix(weight):
                    self._update(weight, gradient, lr=group["lr"], decay=group["weight_decay"])
                    weight.grad = None  # so that AdamW skips it
        inspect.unwrap(torch.optim.AdamW.step)(self)  # see `optimizers.without_compiler`

    def _update(self, weight: Tensor, gradient: Tensor, *, lr: float, decay: float) -> None:
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros(())  # AdamW expects one when it loads a state
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        ahead = gradient.lerp(state["momentum"], MOMENTUM).flatten(1)  # (out, in × height × width)
        direction = orthogonalised(ahead)
        size = 0.2 * math.sqrt(max(direction.shape))  # gives a root mean square of 0.2
        weight.mul_(1 - lr * decay).add_(direction.reshape(weight.shape), alpha=-lr * size)


def is_matrix(weight: Tensor) -> bool:
    """Return whether a parameter maps several channels to several channels."""
    return weight.ndim > 1 and min(weight.shape[:2]) > 1


def orthogonalised(matrix: Tensor) -> Tensor:
    """Return about U Vᵀ of a matrix U S Vᵀ: (m, n) -> (m, n), by Newton-Schulz iteration."""
    near = matrix.to(torch.bfloat16 if matrix.is_cuda else torch.float32)
    tall = near.shape[0] > near.shape[1]  # the product below is smaller for a wide matrix
    near = near.mT if tall else near
    near = (near / near.norm().clamp(min=1e-7)).contiguous()  # no singular value above 1
    for a, b, c in COEFFICIENTS:  # X becomes a X + (b A + c A²) X, where A = X Xᵀ
        gram = near @ near.mT
        near = torch.addmm(near, torch.addmm(gram, gram, gram, beta=b, alpha=c), near, beta=a)
    return (near.mT if tall else near).to(matrix.dtype)
