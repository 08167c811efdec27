"""Schedule-Free AdamW: an average of the iterates takes the place of the schedule.

Defazio et al. 2024, "The Road Less Scheduled", arXiv 2405.15682, Algorithm 1. Gradients are taken
at y, AdamW moves z, and the average x is what is evaluated. Step t counts from 1, γ is the learning
rate with the warm-up in it:

    γ_t = γ √(1 - β2ᵗ)
    v ← β2 v + (1 - β2) g²              g at y
    u = g / (√v + ε) + wd y
    z ← z - γ_t u
    x ← (1 - c) x + c z                 c = γ_t² / Σ γ_i²
    y ← (1 - β) z + β x

Only y (in the model) and z are stored, x follows from them, and y moves without it:

    y ← (1 - c) y + c z - γ_t (1 - β (1 - c)) u      z the old one

Defaults as published: lr 2.5e-3, β 0.9, β2 0.999, no weight decay; the paper's learning rates are
1 to 10 times AdamW's, β 0.95 to 0.98 suits long runs.

- The warm-up is the schedule's (`WarmupConstant`), not the optimizer's: alone, `ScheduleFreeAdamW`
  has none. A decaying schedule on top would count the decay twice, in γ and in the average.
- The authors' package since corrects v alone for its bias, so that the weights c lack the factor
  1 - β2ᵗ, and takes the largest γ so far in c. `adamw_schedulefree_paper.py` there is this rule.
- β is not called β1, and no schedule can change it: y would no longer tell where x is.
- Step counts are each parameter's own. A weight that starts to learn late would otherwise get a
  first step 1 / √(1 - β2) times too large.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import ParamsT

from harness.session import Averaging, Factors, Schedule, Session

_ENDS = {"lr": math.inf, "weight_decay": math.inf, "eps": math.inf, "beta": 1, "beta2": 1}


class ScheduleFreeAdamW(torch.optim.Optimizer):
    """Schedule-Free AdamW. The model holds y after `train()`, as at first, and x after `eval()`.

    Raises:
        ValueError: a hyperparameter, of the constructor or of a group, is out of its range.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 2.5e-3,
        beta: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        foreach: bool = True,
    ) -> None:
        defaults = {
            "lr": lr,
            "beta": beta,
            "beta2": beta2,
            "eps": eps,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "training": True,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; what it does not set is the constructor's."""
        settings = {**self.defaults, **param_group}
        for name, end in _ENDS.items():
            value = settings[name]
            # A tensor would have to be read back from the device at every step.
            if isinstance(value, Tensor) or not 0 <= value < end:
                raise ValueError(
                    f"ScheduleFreeAdamW: {name} must be a number in [0, {end}), not {value!r}"
                )
        if settings["beta"] == 0:
            raise ValueError("ScheduleFreeAdamW: beta must be above 0: y would not tell where x is")
        super().add_param_group(param_group)

    @torch.no_grad()
    def eval(self) -> None:
        """Put the average x into the model. Nothing happens if it is there."""
        for group in self.param_groups:
            for y in group["params"] if group["training"] else ():
                if state := self.state.get(y):
                    state["y"] = y.detach().clone()  # coming back from x would round
                    y.lerp_(state["z"], 1 - 1 / group["beta"])
            group["training"] = False

    @torch.no_grad()
    def train(self) -> None:
        """Put y back, bit for bit. Nothing happens if it is there."""
        for group in self.param_groups:
            for x in () if group["training"] else group["params"]:
                if state := self.state.get(x):
                    x.copy_(state.pop("y"))
            group["training"] = True

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient; return what `closure`, called first, does.

        Raises:
            RuntimeError: the model holds x, or a gradient is sparse.
        """
        if not all(group["training"] for group in self.param_groups):
            raise RuntimeError("ScheduleFreeAdamW: call train() before step(), the model holds x")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()

        batches: dict[tuple[Any, ...], tuple[list[Tensor], ...]] = {}
        for group in self.param_groups:
            beta, beta2 = group["beta"], group["beta2"]
            for y in group["params"]:
                g = y.grad
                if g is None:
                    continue
                state = self.state[y]
                if not state:
                    if g.is_sparse:
                        raise RuntimeError("ScheduleFreeAdamW: sparse gradients are not supported")
                    state.update(
                        step=0, weight_sum=0.0, z=y.detach().clone(), v=torch.zeros_like(y)
                    )
                state["step"] += 1
                gamma = group["lr"] * math.sqrt(1 - beta2 ** state["step"])
                state["weight_sum"] += gamma**2
                # At a rate of 0 neither z nor the average moves.
                c = gamma**2 / state["weight_sum"] if gamma > 0 else 0.0
                rule = gamma, c, beta, beta2, group["eps"], group["weight_decay"]
                tensors = y, g, state["z"], state["v"]
                if not group["foreach"]:
                    _update_one(*tensors, *rule)
                    continue
                batch = batches.setdefault((y.device, y.dtype, *rule), ([], [], [], []))
                for column, tensor in zip(batch, tensors, strict=True):
                    column.append(tensor)
        for (_, _, *shared), (ys, gs, zs, vs) in batches.items():
            _update_all(ys, gs, zs, vs, *shared)
        return loss


def _update_one(
    y: Tensor,
    g: Tensor,
    z: Tensor,
    v: Tensor,
    gamma: float,
    c: float,
    beta: float,
    beta2: float,
    eps: float,
    wd: float,
) -> None:
    x = (y - (1 - beta) * z) / beta
    v.mul_(beta2).add_((1 - beta2) * g * g)
    z.sub_(gamma * (g / (v.sqrt() + eps) + wd * y))
    x = (1 - c) * x + c * z
    y.copy_((1 - beta) * z + beta * x)


def _update_all(
    ys: list[Tensor],
    gs: list[Tensor],
    zs: list[Tensor],
    vs: list[Tensor],
    gamma: float,
    c: float,
    beta: float,
    beta2: float,
    eps: float,
    wd: float,
) -> None:
    torch._foreach_mul_(vs, beta2)
    torch._foreach_addcmul_(vs, gs, gs, value=1 - beta2)
    denominators = torch._foreach_sqrt(vs)
    torch._foreach_add_(denominators, eps)
    us = torch._foreach_div(gs, denominators)
    if wd != 0:
        torch._foreach_add_(us, ys, alpha=wd)
    torch._foreach_lerp_(ys, zs, c)
    torch._foreach_add_(ys, us, alpha=-gamma * (1 - beta * (1 - c)))
    torch._foreach_add_(zs, us, alpha=-gamma)


class WarmupConstant(Schedule):
    """Linear warm-up over `warmup_fraction` of the horizon, then constant.

    Raises:
        ValueError: `warmup_fraction` is out of its range.
    """

    def __init__(self, warmup_fraction: float = 0.05) -> None:
        if not 0 <= warmup_fraction <= 1:
            raise ValueError(
                f"WarmupConstant: warmup_fraction must be a number in [0, 1], "
                f"not {warmup_fraction!r}"
            )
        self._warmup = warmup_fraction

    def __call__(self, progress: float) -> Factors:
        return Factors(learning_rate=min(1.0, progress / self._warmup) if self._warmup else 1.0)


class EvaluatedAverage(Averaging):
    """Evaluates x, with batch-norm statistics estimated anew: those of training belong to y.

    Raises:
        ValueError: `recalibration_batches` is below 1.
    """

    def __init__(
        self,
        *,
        session: Session,
        model: nn.Module,
        optimizer: ScheduleFreeAdamW,
        recalibration_batches: int = 4,
    ) -> None:
        if recalibration_batches < 1:
            raise ValueError(
                "EvaluatedAverage: recalibration_batches must be at least 1, "
                f"not {recalibration_batches!r}"
            )
        self._session = session
        self._model = model
        self._optimizer = optimizer
        self._batches = recalibration_batches

    def update(self) -> None:
        """Do nothing: the optimizer's step averages."""

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        buffers = list(self._model.buffers())
        kept = [buffer.clone() for buffer in buffers]
        self._optimizer.eval()
        try:
            self._session.recalibrate(self._model, self._batches)
            yield
        finally:
            self._optimizer.train()
            with torch.no_grad():
                for buffer, value in zip(buffers, kept, strict=True):
                    buffer.copy_(value)
