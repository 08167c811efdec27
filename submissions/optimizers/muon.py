"""Muon: momentum made orthogonal for the hidden matrices, AdamW for everything else.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks",
https://kellerjordan.github.io/posts/muon/. For a weight W [r, c] with gradient G:

    M ← μ M + (1 - μ) G,   U = μ M + (1 - μ) G        Nesterov
    X = U / (‖U‖_F + 1e-7), transposed if r > c
    5 times: A = X Xᵀ,  X ← a X + (b A + c A²) X      (a, b, c) = (3.4445, -4.775, 2.0315)
    W ← W - lr wd W - lr √max(1, r / c) X             X transposed back

Roles `matrix` and `conv` are trained so, a convolution's kernel seen as [out, in·height·width];
roles `embedding`, `head`, `norm` and `bias` by AdamW with the hyperparameters `adamw_…`. Every
group holds its own base learning rate in `lr`, so one schedule drives both.

Defaults: lr 0.02, μ 0.95, wd 0; AdamW 3e-4, β (0.9, 0.95), ε 1e-10. X is not UVᵀ of the singular
value decomposition: the five steps leave singular values between about 0.7 and 1.2. The authors'
code scales a convolution by its kernel's height / width; here r / c of the matrix counts. They
leave a network's first convolution to AdamW; the role `conv` does not tell it apart.

The iteration runs in bfloat16 on a GPU, as theirs does. On a CPU it keeps the parameter's
precision, so that a run's path does not hang on the CPU's instructions: 8 matrices of 128×512, one
thread of a shared machine, lower quartile of n = 30: 35-52 ms in float32, in bfloat16 256 ms
without instructions for it and 15 ms with AMX, at 64×256 1.9, 25 and 2.7 ms.

`foreach=True` orthogonalises matrices of one shape together, and wide ones on a CPU by their
Gram matrix; `foreach=False` is the rule above, one tensor at a time. Both agree to rounding.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

A, B, C = 3.4445, -4.775, 2.0315
ITERATIONS = 5
MUON_ROLES = ("matrix", "conv")
ADAMW_ROLES = ("embedding", "head", "norm", "bias")
# Where c / r is at least this, products of r×r matrices cost less than those of r×c ones:
# 2 c/r + 17 against 10 c/r + 5 in units of r³ multiplications.
GRAM_ASPECT = 2


class Muon(torch.optim.Optimizer):
    """Muon for groups of role `matrix` and `conv`, AdamW for the others.

    Raises:
        ValueError: a group has no role, or a hyperparameter is out of its range.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        adamw_lr: float = 3e-4,
        adamw_beta1: float = 0.9,
        adamw_beta2: float = 0.95,
        adamw_eps: float = 1e-10,
        adamw_weight_decay: float = 0.0,
        foreach: bool = True,
    ) -> None:
        # What a group lacks it takes from its side of the defaults, under torch's usual keys.
        self._sides = {
            "muon": {"lr": lr, "momentum": momentum, "weight_decay": weight_decay},
            "adamw": {
                "lr": adamw_lr,
                "beta1": adamw_beta1,
                "beta2": adamw_beta2,
                "eps": adamw_eps,
                "weight_decay": adamw_weight_decay,
            },
        }
        super().__init__(params, {"foreach": foreach})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group labelled with its `role`."""
        role = param_group.get("role")
        if role not in MUON_ROLES + ADAMW_ROLES:
            known = ", ".join(MUON_ROLES + ADAMW_ROLES)
            raise ValueError(f"Muon: every group needs a role, one of {known}, not {role!r}")
        prefix, side = ("", "muon") if role in MUON_ROLES else ("adamw_", "adamw")
        for name, default in self._sides[side].items():
            value = param_group.setdefault(name, default)
            end = 1 if name in ("momentum", "beta1", "beta2") else math.inf
            # A tensor would have to be read back from the device at every step.
            if isinstance(value, Tensor) or not 0 <= value < end:
                raise ValueError(
                    f"Muon: {prefix}{name} must be a number in [0, {end}), not {value!r}"
                )
        super().add_param_group(param_group)
        for theta in param_group["params"] if role in MUON_ROLES else ():
            if theta.ndim < 2:
                raise ValueError(f"Muon: a {role} has two dimensions or more, not {theta.ndim}")

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

        batches: dict[tuple[Any, ...], tuple[list[Tensor], list[Tensor], list[Tensor]]] = {}
        for group in self.param_groups:
            thetas = [p for p in group["params"] if p.grad is not None and p.numel() > 0]
            if any(p.grad.is_sparse for p in thetas):
                raise RuntimeError("Muon: sparse gradients are not supported")
            if group["role"] in ADAMW_ROLES:
                self._adamw_step(thetas, group)
                continue
            rule = group["lr"], group["weight_decay"], group["momentum"]
            for theta in thetas:
                state = self.state[theta]
                if not state:
                    state["momentum"] = torch.zeros_like(theta)
                if not group["foreach"]:
                    _update_one(theta, theta.grad, state["momentum"], *rule)
                    continue
                short, long = sorted((len(theta), theta.numel() // len(theta)))
                key = (short, long, theta.device, theta.dtype, *rule)
                batch_thetas, batch_gs, batch_ms = batches.setdefault(key, ([], [], []))
                batch_thetas.append(theta)
                batch_gs.append(theta.grad)
                batch_ms.append(state["momentum"])
        for (_, _, _, _, *shared), batch in batches.items():
            _update_batch(*batch, *shared)
        return loss

    def _adamw_step(self, thetas: list[Tensor], group: dict[str, Any]) -> None:
        batches: dict[tuple[torch.device, torch.dtype], _AdamWBatch] = {}
        for theta in thetas:
            g, state = theta.grad, self.state[theta]
            assert g is not None
            if not state:
                # The count is a number: one on the device would have to be read back from it.
                state.update(step=0, m=torch.zeros_like(theta), v=torch.zeros_like(theta))
            state["step"] += 1
            m, v, t = state["m"], state["v"], state["step"]
            # The fused kernel walks memory, not indices: the layouts have to agree.
            alike = theta.stride() == g.stride() == m.stride() == v.stride()
            if not (group["foreach"] and alike):
                _adamw_one(theta, g, m, v, t, group)
                continue
            batch = batches.setdefault((theta.device, theta.dtype), _AdamWBatch([], [], [], [], []))
            for column, value in zip(batch, (theta, g, m, v, t), strict=True):
                column.append(value)
        for batch in batches.values():
            _adamw_all(batch, group)


class _AdamWBatch(NamedTuple):
    """Tensors that one kernel updates, and the steps of each."""

    thetas: list[Tensor]
    gs: list[Tensor]
    ms: list[Tensor]
    vs: list[Tensor]
    ts: list[int]


def _adamw_one(
    theta: Tensor, g: Tensor, m: Tensor, v: Tensor, t: int, group: dict[str, Any]
) -> None:
    beta1, beta2 = group["beta1"], group["beta2"]
    theta.mul_(1 - group["lr"] * group["weight_decay"])
    m.lerp_(g, 1 - beta1)
    v.lerp_(g.square(), 1 - beta2)
    m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
    theta.sub_(group["lr"] * m_hat / (v_hat.sqrt() + group["eps"]))


def _adamw_all(batch: _AdamWBatch, group: dict[str, Any]) -> None:
    thetas, gs, ms, vs, ts = batch
    # The kernel wants the counts on the device; mostly it is one for all tensors.
    on_device = {t: torch.full((), float(t), device=thetas[0].device) for t in set(ts)}
    steps = [on_device[t] for t in ts]
    settings = {name: group[name] for name in ("lr", "beta1", "beta2", "weight_decay", "eps")}
    torch._fused_adamw_(thetas, gs, ms, vs, [], steps, amsgrad=False, maximize=False, **settings)


def _update_one(theta: Tensor, g: Tensor, m: Tensor, lr: float, wd: float, mu: float) -> None:
    m.lerp_(g, 1 - mu)
    X = orthogonalised(g.lerp(m, mu).flatten(1)).reshape(theta.shape)
    theta.sub_(lr * wd * theta + lr * _scale(theta) * X)


def _update_batch(
    thetas: list[Tensor], gs: list[Tensor], ms: list[Tensor], lr: float, wd: float, mu: float
) -> None:
    torch._foreach_lerp_(ms, gs, 1 - mu)
    Us = [u.flatten(1) for u in torch._foreach_lerp(gs, ms, mu)]
    X = _normalised(torch.stack([_wide(U) for U in Us]))  # [n, r, c], r ≤ c
    # bfloat16 has too few digits for small eigenvalues of a Gram matrix.
    by_gram = X.dtype != torch.bfloat16 and X.shape[2] >= GRAM_ASPECT * X.shape[1]
    X = _iterated_by_gram(X) if by_gram else _iterated(X)
    if wd:
        torch._foreach_mul_(thetas, 1 - lr * wd)
    for theta, U, x in zip(thetas, Us, X, strict=True):
        update = x if x.shape == U.shape else x.mT
        theta.add_(update.reshape(theta.shape), alpha=-lr * _scale(theta))


def _scale(theta: Tensor) -> float:
    rows: int = theta.shape[0]
    return math.sqrt(max(1.0, rows**2 / theta.numel()))  # r / c = r² / (r c)


def _wide(U: Tensor) -> Tensor:
    return U.mT if U.shape[0] > U.shape[1] else U


def _normalised(X: Tensor) -> Tensor:
    X = X if X.is_cpu else X.bfloat16()
    norm: Tensor = torch.linalg.matrix_norm(X, keepdim=True)
    return X / (norm + 1e-7)  # spectral norm ≤ 1


def orthogonalised(U: Tensor) -> Tensor:
    """Return a matrix with the singular vectors of `U` [r, c] and singular values near 1."""
    X = _normalised(_wide(U))
    for _ in range(ITERATIONS):
        gram = X @ X.mT
        X = A * X + (B * gram + C * gram @ gram) @ X
    return (X if X.shape == U.shape else X.mT).to(U.dtype)


def _iterated(X: Tensor) -> Tensor:
    """The same iteration for a stack of matrices [n, r, c], sums taken inside the products."""
    for _ in range(ITERATIONS):
        gram = X @ X.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=B, alpha=C)
        X = torch.baddbmm(X, polynomial, X, beta=A)
    return X


def _iterated_by_gram(X: Tensor) -> Tensor:
    """The same once more: X ← P X makes its Gram matrix G ← P G P, and all the P commute.

    So the P, polynomials of G [n, r, r], are multiplied together and X [n, r, c] comes last.
    """
    G = X @ X.mT
    product = P = _polynomial(G)
    for _ in range(ITERATIONS - 1):
        G = P @ (G @ P)
        P = _polynomial(G)
        product = product @ P
    return product @ X


def _polynomial(G: Tensor) -> Tensor:
    P = torch.baddbmm(G, G, G, beta=B, alpha=C)
    P.diagonal(dim1=1, dim2=2).add_(A)
    return P
