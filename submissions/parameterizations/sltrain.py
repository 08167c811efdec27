"""SLTrain: every hidden weight is a low-rank product plus a sparse matrix on a fixed support.

Han et al. 2024, "SLTrain: a sparse plus low-rank approach for parameter and memory efficient
pretraining", NeurIPS, arXiv 2406.02214. In place of each W [out, in] of a hidden linear layer

    W = (α/r) B A + S      B [out, r] = 0, A [r, in] Kaiming-uniform: both U(±1/√in) in effect,
                           S: δ·out·in entries at random places, drawn once, U(±1/√in) at first

are trained: r (out + in) + δ·out·in numbers, and the optimizer keeps state for no more. The paper
takes r = 128 at width 512 (a quarter), α = 32, δ = 0.03, AdamW with lr 3e-3 and no decay.
Defaults: the same r ÷ width, α/r and δ at width 64.

Nothing gets faster: W is built for the product, and once more in the backward pass, so that it
need not be kept meanwhile. What is saved is memory, mainly of gradients and optimizer state.

Gotchas. Training starts at W = S, not at the model's own weights; biases stay as they are.
Decay on A and B is no decay on W. The values of S are a vector, so they have the role `bias`.
Embeddings, norms and the head stay dense, as in the paper; the last linear layer that the model
registers counts as its head. Layers that do not train are left alone.

`recompute=False` is the rule above, left to autograd, which then keeps W. Both agree to rounding,
and both can be differentiated twice.
"""

import math
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.session import Parameterization


def dense_weight(B: Tensor, A: Tensor, values: Tensor, support: Tensor, scale: float) -> Tensor:
    """Return scale·BA + S [out, in]; S holds `values` [n] at the flat places `support` [n]."""
    W = scale * (B @ A)
    return W.flatten().index_add(0, support, values).view_as(W)


class RecomputedLinear(torch.autograd.Function):
    """x Wᵀ, which keeps W's factors for the backward pass and not W."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, B: Tensor, A: Tensor, values: Tensor, support: Tensor, scale: float
    ) -> Tensor:
        ctx.save_for_backward(x, B, A, values, support)
        ctx.scale = scale
        W = torch.mm(B, A).mul_(scale)
        W.view(-1).index_add_(0, support, values)
        return x @ W.mT

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (dy,) = gradients
        x, B, A, values, support = ctx.saved_tensors
        dx = (
            dy @ dense_weight(B, A, values, support, ctx.scale) if ctx.needs_input_grad[0] else None
        )
        dW = dy.reshape(-1, dy.shape[-1]).mT @ x.reshape(
            -1, x.shape[-1]
        )  # [out, in]; freed with this call
        dB, dA = ctx.scale * (dW @ A.mT), ctx.scale * (B.mT @ dW)
        return dx, dB, dA, dW.flatten()[support], None, None


class SparseLowRankLinear(nn.Module):
    """A linear layer [..., in] → [..., out] whose weight is scale·BA + S."""

    support: Tensor

    def __init__(
        self, replaced: nn.Linear, rank: int, alpha: float, density: float, recompute: bool
    ) -> None:
        super().__init__()
        rows, columns = replaced.weight.shape
        count = round(density * rows * columns)
        self.scale = alpha / rank
        self.recompute = recompute
        like, bound = replaced.weight.detach(), columns**-0.5  # nn.Linear's Kaiming-uniform, a = √5
        self.B = nn.Parameter(like.new_zeros(rows, rank))
        self.A = nn.Parameter(like.new_empty(rank, columns).uniform_(-bound, bound))
        self.values = nn.Parameter(like.new_empty(count).uniform_(-bound, bound))
        places = torch.randperm(rows * columns)[:count].sort().values
        self.register_buffer("support", places.to(like.device))
        self.bias: nn.Parameter | None = replaced.bias

    @property
    def weight(self) -> Tensor:
        """The dense weight [out, in]."""
        return dense_weight(self.B, self.A, self.values, self.support, self.scale)

    def forward(self, x: Tensor) -> Tensor:
        if not self.recompute:
            return F.linear(x, self.weight, self.bias)
        y: Tensor = RecomputedLinear.apply(  # type: ignore[no-untyped-call]
            x, self.B, self.A, self.values, self.support, self.scale
        )
        return y if self.bias is None else y + self.bias


class SLTrain(Parameterization):
    """SLTrain. `rank` is r, `alpha` is α, `density` is δ.

    Raises:
        ValueError: a hyperparameter is out of its range, or no layer is there to replace.
    """

    def __init__(
        self, *, rank: int = 16, alpha: float = 4.0, density: float = 0.03, recompute: bool = True
    ) -> None:
        if not rank >= 1:
            raise ValueError(f"SLTrain: rank must be at least 1, not {rank!r}")
        if not 0 < alpha < math.inf:
            raise ValueError(f"SLTrain: alpha must be in (0, inf), not {alpha!r}")
        if not 0 <= density <= 1:
            raise ValueError(f"SLTrain: density must be in [0, 1], not {density!r}")
        self._settings = rank, alpha, density, recompute

    def wrap(self, model: nn.Module) -> nn.Module:
        layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
        hidden = [layer for layer in layers[:-1] if layer.weight.requires_grad]
        if not hidden:
            raise ValueError(
                "SLTrain: the model has no hidden nn.Linear that trains; "
                f"it has {len(layers)} in all, the last of them its head"
            )
        weights = {layer.weight for layer in hidden}
        owned = [
            f"{path}.{name}"
            for path, module in model.named_modules()
            for name, parameter in module.named_parameters(recurse=False)
            if parameter in weights
        ]
        if len(owned) > len(weights):
            raise ValueError(f"SLTrain: hidden weights are shared, among {', '.join(owned)}")
        replacements = {layer: SparseLowRankLinear(layer, *self._settings) for layer in hidden}
        for path, module in list(model.named_modules(remove_duplicate=False)):
            if isinstance(module, nn.Linear) and module in replacements:
                model.set_submodule(path, replacements[module])
        return model

    @torch.no_grad()
    def canonical_weights(self, model: nn.Module) -> dict[str, Tensor]:
        weights: dict[str, Tensor] = {}
        ours = {n: m for n, m in model.named_modules() if isinstance(m, SparseLowRankLinear)}
        for name, tensor in chain(model.named_parameters(), model.named_buffers()):
            prefix, _, own_name = name.rpartition(".")
            if prefix not in ours or own_name == "bias":
                weights[name] = tensor.detach()
        for name, layer in ours.items():
            weights[f"{name}.weight"] = layer.weight
        return weights
