"""AdaHessian: Adam with the squared diagonal of the Hessian in place of the squared gradient.

Yao et al. 2021, "ADAHESSIAN: An Adaptive Second Order Optimizer for Machine Learning",
arXiv 2006.00719. Step t counts from 1, z has entries ±1 with equal chance:

    D = |z ⊙ Hz|, in a convolution its mean over the kernel (every dimension after the second)
    m ← β1 m + (1 - β1) g
    v ← β2 v + (1 - β2) D²
    θ ← θ - lr (m / (1 - β1ᵗ) / ((v / (1 - β2ᵗ))^(k/2) + ε) + wd θ)

z ⊙ Hz is Hutchinson's estimate of the Hessian's diagonal. Since |z| = 1 its modulus is |Hz|. As in
the authors' code the modulus is taken before the mean over the kernel; theirs handles kernels of
two dimensions only, and gives a 1-D convolution the estimate of the layer before it.

Defaults: lr 0.15, β (0.9, 0.999), ε 1e-4, Hessian power k 1, wd 0: the authors' for images. ε is
not a safeguard here: it bounds the step where the curvature vanishes.

`interval` n > 1 takes a new D only at steps 1, n + 1, … and leaves v alone in between; its bias
correction then counts the estimates. The gradients' graph is built at every step all the same:
the card's closure is `graph`.

Needs `session` to count the Hessian-vector product, a backward pass over the batch. Flash
attention and fused losses cannot be differentiated twice. H is of the loss before gradient
clipping. The graph and the gradients refer to each other: every step drops the gradients, else
the memory of each step's graph would stay until the garbage collector runs.

`foreach=True` runs each operation over all tensors of a group; `foreach=False` is the rule above,
one tensor at a time. Both draw the same z and agree to rounding.
"""

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

if TYPE_CHECKING:
    from harness.session import Session

RANDOM_BITS = 31  # of a non-negative int32
# On a CPU blocks of about this many elements keep their temporaries in the cache.
CPU_BLOCK_ELEMENTS = 2**15


class _Batch(NamedTuple):
    """Tensors of a group whose bias corrections agree."""

    thetas: list[Tensor]
    gs: list[Tensor]
    ms: list[Tensor]
    vs: list[Tensor]
    Ds: list[Tensor]  # empty where D is not due


class AdaHessian(torch.optim.Optimizer):
    """AdaHessian; groups of role `conv`, or without a role and with ndim > 2, share D by kernel.

    Raises:
        ValueError: a hyperparameter is out of its range.
    """

    def __init__(
        self,
        params: ParamsT,
        *,
        session: "Session",
        lr: float = 0.15,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-4,
        weight_decay: float = 0.0,
        hessian_power: float = 1.0,
        interval: int = 1,
        foreach: bool = True,
    ) -> None:
        self._session = session
        if interval < 1:
            raise ValueError(f"AdaHessian: interval must be at least 1, not {interval!r}")
        defaults = {
            "lr": lr,
            "beta1": beta1,
            "beta2": beta2,
            "eps": eps,
            "weight_decay": weight_decay,
            "hessian_power": hessian_power,
            "interval": interval,
            "foreach": foreach,
            "steps": 0,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; what it does not set is the constructor's."""
        settings = {**self.defaults, **param_group}
        for name in ("lr", "weight_decay", "eps", "hessian_power", "beta1", "beta2"):
            value, end = settings[name], 1 if name.startswith("beta") else math.inf
            # A tensor would have to be read back from the device at every step.
            if isinstance(value, Tensor) or not 0 <= value < end:
                raise ValueError(
                    f"AdaHessian: {name} must be a number in [0, {end}), not {value!r}"
                )
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Update every parameter that has a gradient; return what `closure` does.

        Args:
            closure: evaluates the loss and leaves gradients that can be differentiated again;
                without one they are there already.

        Raises:
            RuntimeError: a gradient is sparse, or none can be differentiated.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        first = self.param_groups[0]
        Hz = self._hessian_products() if first["steps"] % first["interval"] == 0 else {}
        for group in self.param_groups:
            group["steps"] += 1
            batches: dict[tuple[int, int], _Batch] = {}
            for theta in group["params"]:
                state = self.state[theta]
                if theta in Hz and not state:
                    state["steps"] = state["estimates"] = 0
                    state["m"], state["v"] = torch.zeros_like(theta), torch.zeros_like(theta)
                if theta.grad is None or not state:  # no gradient, or no estimate of D so far
                    continue
                state["steps"] += 1
                state["estimates"] += theta in Hz
                key = state["steps"], state["estimates"]
                batch = batches.setdefault(key, _Batch([], [], [], [], []))
                batch.thetas.append(theta)
                batch.gs.append(theta.grad.detach())
                batch.ms.append(state["m"])
                batch.vs.append(state["v"])
                if theta in Hz:
                    batch.Ds.append(_diagonal(Hz.pop(theta), group.get("role")))
            for (steps, estimates), batch in batches.items():
                bias1, bias2 = 1 - group["beta1"] ** steps, 1 - group["beta2"] ** estimates
                if not group["foreach"]:
                    _update_each(batch, bias1, bias2, group)
                    continue
                for block in _blocks(batch.thetas):
                    part = _Batch(*(tensors[block] for tensors in batch))
                    _update_all(part, bias1, bias2, group)
        self.zero_grad(set_to_none=True)
        return loss

    def _hessian_products(self) -> dict[Tensor, Tensor]:
        """Return Hz for every parameter with a gradient, z drawn anew."""
        thetas = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        gs = {p: p.grad for p in thetas if p.grad is not None and p.grad.requires_grad}
        if any(p.grad is not None and p.grad.is_sparse for p in thetas):
            raise RuntimeError("AdaHessian: sparse gradients are not supported")
        if not gs:
            raise RuntimeError("AdaHessian: no gradient has a graph; the closure must be `graph`")
        products = torch.autograd.grad(
            list(gs.values()), thetas, _random_signs(list(gs)), materialize_grads=True
        )
        batch = self._session.last_batch
        assert batch is not None
        self._session.count(forward=0, backward=batch.size)
        return dict(zip(thetas, products, strict=True))


def _random_signs(thetas: list[Tensor]) -> list[Tensor]:
    """Return tensors of -1 and 1 in the shapes of `thetas`, cut from one draw of random bits."""
    sizes = [theta.numel() for theta in thetas]
    device, dtype = thetas[0].device, thetas[0].dtype
    words = torch.empty(-(-sum(sizes) // RANDOM_BITS), dtype=torch.int32, device=device).random_()
    places = torch.arange(RANDOM_BITS, dtype=torch.int32, device=device)
    bits = (words[:, None] >> places).bitwise_and_(1)
    signs = bits.flatten()[: sum(sizes)].to(dtype).mul_(2).sub_(1)
    return [z.view_as(p) for z, p in zip(signs.split(sizes), thetas, strict=True)]


def _diagonal(Hz: Tensor, role: str | None) -> Tensor:
    if Hz.ndim <= 2 or role not in (None, "conv"):
        return Hz  # its sign is lost in D²
    return Hz.abs().mean(dim=tuple(range(2, Hz.ndim)), keepdim=True).expand_as(Hz).contiguous()


def _update_each(batch: _Batch, bias1: float, bias2: float, group: dict[str, Any]) -> None:
    lr, beta1, beta2 = group["lr"], group["beta1"], group["beta2"]
    for v, D in zip(batch.vs, batch.Ds, strict=False):
        v.mul_(beta2).add_((1 - beta2) * D**2)
    for theta, g, m, v in zip(batch.thetas, batch.gs, batch.ms, batch.vs, strict=True):
        m.lerp_(g, 1 - beta1)
        direction = m / bias1 / ((v / bias2) ** (group["hessian_power"] / 2) + group["eps"])
        theta.sub_(lr * (direction + group["weight_decay"] * theta))


def _update_all(batch: _Batch, bias1: float, bias2: float, group: dict[str, Any]) -> None:
    thetas, gs, ms, vs, Ds = batch
    if Ds:
        torch._foreach_mul_(vs, group["beta2"])
        torch._foreach_addcmul_(vs, Ds, Ds, value=1 - group["beta2"])
    torch._foreach_lerp_(ms, gs, 1 - group["beta1"])
    scales = torch._foreach_div(vs, bias2)
    if group["hessian_power"] == 1:
        torch._foreach_sqrt_(scales)
    else:
        torch._foreach_pow_(scales, group["hessian_power"] / 2)
    torch._foreach_add_(scales, group["eps"])
    if group["weight_decay"]:
        torch._foreach_mul_(thetas, 1 - group["lr"] * group["weight_decay"])
    torch._foreach_addcdiv_(thetas, ms, scales, value=-group["lr"] / bias1)


def _blocks(thetas: list[Tensor]) -> Iterator[slice]:
    start = elements = 0
    for i, theta in enumerate(thetas):
        elements += theta.numel()
        if theta.is_cpu and elements >= CPU_BLOCK_ELEMENTS:
            yield slice(start, i + 1)
            start, elements = i + 1, 0
    if start < len(thetas):
        yield slice(start, None)
