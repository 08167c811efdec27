"""SAM: AdamW along the gradient taken at the worst nearby weights.

Foret et al. 2021, "Sharpness-Aware Minimization for Efficiently Improving Generalization",
arXiv 2010.01412, Algorithm 1 with p = 2:

    g = ∇L(θ)                      first pass
    ε = ρ g / (‖g‖ + 1e-12)        one norm over all parameters
    h = ∇L(θ + ε)                  second pass: same batch, same randomness
    θ ← AdamW's step from θ along h

The paper's base optimizer is SGD; here it is the reference recipe's AdamW (arXiv 1711.05101), so
that a comparison isolates SAM. ρ is 0.05, the paper's default.

Two forward and two backward passes a step. The harness's closure replays dropout and
augmentation, keeps batch-norm's running statistics as the first pass left them (otherwise they
would follow weights nobody evaluates), clips the gradient each time, and counts the passes.
Clipping does not change ε, which only has the gradient's direction. ρ stays as it is when a
schedule lowers lr. Weight decay is AdamW's own and takes no part in ε.

`foreach=True` climbs with a few kernels for all tensors and steps with AdamW's fused one;
`foreach=False` does either one tensor at a time. Both agree to rounding.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT


class SAM(torch.optim.AdamW):
    """SAM. `lr`, `weight_decay` and `rho` may differ by group.

    Raises:
        ValueError: a hyperparameter is out of its range.
    """

    def __init__(
        self,
        params: ParamsT,
        rho: float = 0.05,
        lr: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        foreach: bool = True,
    ) -> None:
        self._rho = rho
        super().__init__(
            params,
            lr=lr,
            betas=(beta1, beta2),
            eps=eps,
            weight_decay=weight_decay,
            foreach=False,
            fused=foreach,
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; what it does not set is the constructor's."""
        rho = param_group.setdefault("rho", self._rho)
        # A tensor would have to be read back from the device at every step.
        if isinstance(rho, Tensor) or not 0 <= rho < math.inf:
            raise ValueError(f"SAM: rho must be a number in [0, inf), not {rho!r}")
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor:  # type: ignore[override]
        """Climb, evaluate, return and update; return the loss at the weights before the step.

        Args:
            closure: zeroes the gradients, evaluates the loss and its gradients, returns the loss.

        Raises:
            ValueError: there is no closure.
            RuntimeError: a gradient is sparse.
        """
        if closure is None:
            raise ValueError("SAM: step needs a closure that evaluates loss and gradients")
        with torch.enable_grad():
            loss = closure()
        climbing = [
            [(p, p.grad) for p in group["params"] if p.grad is not None]
            for group in self.param_groups
        ]
        norm = _norm([g for pairs in climbing for _, g in pairs])
        before: list[tuple[list[Tensor], list[Tensor]]] = []
        try:
            for group, pairs in zip(self.param_groups, climbing, strict=True):
                if not pairs:
                    continue
                thetas, gs = ([pair[side] for pair in pairs] for side in (0, 1))
                before.append((thetas, [theta.clone() for theta in thetas]))
                climb = _climb_all if group["fused"] else _climb_one_by_one
                climb(thetas, gs, group["rho"] / (norm + 1e-12))
            with torch.enable_grad():
                closure()
        finally:  # θ + ε - ε would be θ only to rounding
            for thetas, originals in before:
                torch._foreach_copy_(thetas, originals)
        super().step()
        return loss


def _norm(gs: list[Tensor]) -> Tensor:
    if any(g.is_sparse for g in gs):
        raise RuntimeError("SAM: sparse gradients are not supported")
    return torch.nn.utils.get_total_norm(gs)


def _climb_one_by_one(thetas: list[Tensor], gs: list[Tensor], scale: Tensor) -> None:
    for theta, g in zip(thetas, gs, strict=True):
        theta.add_(scale * g)


def _climb_all(thetas: list[Tensor], gs: list[Tensor], scale: Tensor) -> None:
    torch._foreach_mul_(gs, scale)  # the closure is about to drop these gradients
    torch._foreach_add_(thetas, gs)
