"""Sophia-G: momentum over a sampled diagonal of the Gauss-Newton matrix, clipped.

Liu et al. 2024, "Sophia: A Scalable Stochastic Second-order Optimizer for Language Model
Pre-training", arXiv 2305.14342, Algorithms 2 and 3. At steps 1, k + 1, 2k + 1, …, before the
update, ĥ is estimated on the step's batch:

    m ← β1 m + (1 - β1) g
    h ← β2 h + (1 - β2) ĥ                     only at those steps
    θ ← θ - lr wd θ
    θ ← θ - lr clip(m / max(ρ h, ε), -1, 1)   no bias correction in m or h

ρ is the paper's γ; the name and the defaults (lr 1e-4, β (0.965, 0.99), ρ 0.04, wd 0.1, k 10) are
the authors' code's, ε = 1e-12 is the paper's. lr is a bound on each weight's step, as Lion's is.
The authors tune ρ until between 10 and 50 % of the weights are not clipped. h needs some hundred
steps to fill: (1 - β2ʲ) of it is there after j estimates, so a short run is all but sign descent.

The Gauss-Newton-Bartlett estimator. The loss is L = Σ cᵢ eᵢ, the eᵢ being cross-entropies of
predictions: one an example, or one a position of a sequence whose target is not -100. With labels
drawn from the model's own softmax in place of the targets (êᵢ), ĝ = ∇ Σ √cᵢ êᵢ. The ∇êᵢ are
independent with mean zero, so E[ĝ ⊙ ĝ] = Σ cᵢ E[∇êᵢ ⊙ ∇êᵢ], the Gauss-Newton diagonal of L:
ĥ = ĝ ⊙ ĝ. In a plain mean over B predictions cᵢ = 1/B, and ĥ = B (∇ mean ê)² as in the paper. This
B is what the authors' code takes as `bs`: *predictions* in the batch (sequences × length), not
examples. There it enters at every step, beside ρ; here it is part of h and right, too, for
weighted examples and for sequences of different lengths (the mean over each one's positions, then
over examples).

ê is cross-entropy whatever the objective; label smoothing has the same Gauss-Newton matrix. An
estimate costs a forward and a backward pass, counted here, and is not clipped. Batch norm's
running statistics stay as they are; dropout is drawn anew. Weights that a data policy derives from
the losses of the batch are not known here: examples count alike unless the batch has weights.

`foreach=True` runs each operation over all tensors that share hyperparameters; `foreach=False` is
the rule above, one tensor at a time. Both agree to rounding.
"""

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.optimizer import ParamsT

from harness.session import frozen_batch_norm

if TYPE_CHECKING:
    from harness.session import Batch, Session

IGNORED = -100  # a target that does not count
# On a CPU blocks of about this many elements keep their temporaries in the cache.
CPU_BLOCK_ELEMENTS = 2**15


class Sophia(torch.optim.Optimizer):
    """Sophia-G for classifiers with logits [B, C] or [B, T, C].

    Raises:
        ValueError: a hyperparameter is out of its range.
    """

    def __init__(
        self,
        params: ParamsT,
        *,
        session: "Session",
        model: nn.Module,
        lr: float = 1e-4,
        beta1: float = 0.965,
        beta2: float = 0.99,
        rho: float = 0.04,
        eps: float = 1e-12,
        weight_decay: float = 0.1,
        interval: int = 10,
        foreach: bool = True,
    ) -> None:
        self._session = session
        self._model = model
        if interval < 1:
            raise ValueError(f"Sophia: interval must be at least 1, not {interval!r}")
        defaults = {
            "lr": lr,
            "beta1": beta1,
            "beta2": beta2,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "interval": interval,
            "foreach": foreach,
            "steps": 0,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; what it does not set is the constructor's."""
        settings = {**self.defaults, **param_group}
        for name in ("lr", "weight_decay", "beta1", "beta2", "rho", "eps"):
            value, end = settings[name], 1 if name.startswith("beta") else math.inf
            # A tensor would have to be read back from the device at every step.
            if isinstance(value, Tensor) or not 0 <= value < end:
                raise ValueError(f"Sophia: {name} must be a number in [0, {end}), not {value!r}")
        for name in ("rho", "eps"):
            if settings[name] == 0:
                raise ValueError(f"Sophia: {name} divides and must be more than 0")
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient; return what `closure`, called first, does.

        Raises:
            RuntimeError: a gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        first = self.param_groups[0]
        gs_hat = self._sampled_gradients() if first["steps"] % first["interval"] == 0 else {}
        for group in self.param_groups:
            group["steps"] += 1
            thetas = [p for p in group["params"] if p.grad is not None]
            for theta in thetas:
                if theta.grad.is_sparse:
                    raise RuntimeError("Sophia: sparse gradients are not supported")
                state = self.state[theta]
                if not state:
                    state["m"], state["h"] = torch.zeros_like(theta), torch.zeros_like(theta)
                if theta in gs_hat:
                    g_hat, beta2 = gs_hat[theta], group["beta2"]
                    state["h"].mul_(beta2).addcmul_(g_hat, g_hat, value=1 - beta2)
            gs = [theta.grad for theta in thetas]
            ms = [self.state[theta]["m"] for theta in thetas]
            hs = [self.state[theta]["h"] for theta in thetas]
            if not group["foreach"]:
                _update_each(thetas, gs, ms, hs, group)
                continue
            for block in _blocks(thetas):
                _update_all(thetas[block], gs[block], ms[block], hs[block], group)
        return loss

    def _sampled_gradients(self) -> dict[Tensor, Tensor]:
        """Return ĝ of every parameter on the last batch; counts a forward and a backward pass."""
        batch = self._session.last_batch
        assert batch is not None
        thetas = [p for group in self.param_groups for p in group["params"]]
        with torch.enable_grad(), frozen_batch_norm(self._model):
            logits = self._session.outputs(self._model, batch)
            sampled_loss = sampled_cross_entropy(logits, batch)
            gs = torch.autograd.grad(sampled_loss, thetas, materialize_grads=True)
        self._session.count(forward=0, backward=batch.size)
        return dict(zip(thetas, gs, strict=True))


def sampled_cross_entropy(logits: Tensor, batch: "Batch") -> Tensor:
    """Return Σ √cᵢ êᵢ for logits [B, C] or [B, T, C], labels drawn from their softmax."""
    with torch.no_grad():
        # argmax(logit - log E), E exponential, has the softmax's distribution, and unlike
        # torch.multinomial it neither waits for the device nor fails when training diverged.
        labels = (logits - torch.empty_like(logits).exponential_().log_()).argmax(-1)
        counted = (batch.targets != IGNORED).to(logits.dtype)  # [B] or [B, T]
        per_example = counted.flatten(1).sum(1) if counted.ndim > 1 else counted
        weights = torch.ones_like(per_example) if batch.weights is None else batch.weights
        share = weights / weights.sum() / per_example.clamp_min(1)  # [B]
        c = counted * share.view(-1, *[1] * (counted.ndim - 1))
    losses = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none")
    return (c.sqrt().flatten() * losses).sum()


def _update_each(
    thetas: list[Tensor],
    gs: list[Tensor],
    ms: list[Tensor],
    hs: list[Tensor],
    group: dict[str, Any],
) -> None:
    for theta, g, m, h in zip(thetas, gs, ms, hs, strict=True):
        m.lerp_(g, 1 - group["beta1"])
        theta.mul_(1 - group["lr"] * group["weight_decay"])
        theta.sub_(group["lr"] * (m / (group["rho"] * h).clamp(min=group["eps"])).clamp(-1, 1))


def _update_all(
    thetas: list[Tensor],
    gs: list[Tensor],
    ms: list[Tensor],
    hs: list[Tensor],
    group: dict[str, Any],
) -> None:
    torch._foreach_lerp_(ms, gs, 1 - group["beta1"])
    # clip(m / max(ρ h, ε), ±1) = clip(m / max(h, ε/ρ), ±ρ) / ρ: one kernel less.
    us = torch._foreach_clamp_min(hs, group["eps"] / group["rho"])
    us = torch._foreach_div(ms, us)
    torch._foreach_clamp_min_(us, -group["rho"])
    torch._foreach_clamp_max_(us, group["rho"])
    torch._foreach_mul_(thetas, 1 - group["lr"] * group["weight_decay"])
    torch._foreach_add_(thetas, us, alpha=-group["lr"] / group["rho"])


def _blocks(thetas: list[Tensor]) -> Iterator[slice]:
    start = elements = 0
    for i, theta in enumerate(thetas):
        elements += theta.numel()
        if theta.is_cpu and elements >= CPU_BLOCK_ELEMENTS:
            yield slice(start, i + 1)
            start, elements = i + 1, 0
    if start < len(thetas):
        yield slice(start, None)
