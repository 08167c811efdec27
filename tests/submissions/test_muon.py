"""Muon against its rule, written out element by element."""

import copy
import inspect
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.cards import SubmissionCard, read_card
from submissions.optimizers import muon
from submissions.optimizers.muon import Muon

PATHS = pytest.mark.parametrize("foreach", [True, False], ids=["fast", "reference"])
# Wide and tall, square, one row, a convolution of each rank; two pairs that share a batch.
MATRICES = [(6, 3), (3, 6), (4, 4), (1, 5), (5, 1), (2, 9), (9, 2)]
KERNELS = [(4, 2, 3, 3), (6, 1, 2), (18, 4, 1, 1)]
OTHERS = [(7, 3), (5,), ()]

Matrix = list[list[float]]


def parameters(
    shapes: list[tuple[int, ...]], dtype: torch.dtype = torch.float64, seed: int = 0
) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(s, generator=generator, dtype=dtype)) for s in shapes]


def groups(dtype: torch.dtype = torch.float64) -> list[dict[str, Any]]:
    return [
        {"params": parameters(MATRICES, dtype), "role": "matrix"},
        {"params": parameters(KERNELS, dtype, 1), "role": "conv"},
        {"params": parameters(OTHERS[:1], dtype, 2), "role": "embedding"},
        {"params": parameters(OTHERS[1:], dtype, 3), "role": "bias", "weight_decay": 0.0},
    ]


def flat(optimizer: Muon) -> list[torch.nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def set_gradients(params: list[torch.nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(1000 + step)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)


def product(a: Matrix, b: Matrix) -> Matrix:
    columns = transposed(b)
    return [[sum(x * y for x, y in zip(row, c, strict=True)) for c in columns] for row in a]


def transposed(a: Matrix) -> Matrix:
    return [list(column) for column in zip(*a, strict=True)]


def orthogonalised(u: Matrix) -> Matrix:
    tall = len(u) > len(u[0])
    x = transposed(u) if tall else u
    norm = math.sqrt(sum(value**2 for row in x for value in row)) + 1e-7
    x = [[value / norm for value in row] for row in x]
    for _ in range(5):
        gram = product(x, transposed(x))
        square = product(gram, gram)
        polynomial = [
            [-4.775 * a + 2.0315 * b for a, b in zip(*rows, strict=True)]
            for rows in zip(gram, square, strict=True)
        ]
        x = [
            [3.4445 * a + b for a, b in zip(*rows, strict=True)]
            for rows in zip(x, product(polynomial, x), strict=True)
        ]
    return transposed(x) if tall else x


def as_rows(p: torch.Tensor) -> Matrix:
    return p.detach().reshape(p.shape[0], -1).tolist()  # type: ignore[no-any-return]


@PATHS
def test_matrices_and_kernels_follow_the_published_rule(foreach: bool) -> None:
    lr, mu, wd = 0.1, 0.9, 0.3
    matrices, kernels = parameters(MATRICES), parameters(KERNELS, seed=1)
    optimizer = Muon(
        [{"params": matrices, "role": "matrix"}, {"params": kernels, "role": "conv"}],
        lr=lr,
        momentum=mu,
        weight_decay=wd,
        foreach=foreach,
    )
    params = matrices + kernels
    theta = [as_rows(p) for p in params]
    m = [[[0.0] * len(row) for row in rows] for rows in theta]
    for step in range(4):
        set_gradients(params, step)
        for k, p in enumerate(params):
            assert p.grad is not None
            g = as_rows(p.grad)
            r, c = len(g), len(g[0])
            m[k] = [[mu * m[k][i][j] + (1 - mu) * g[i][j] for j in range(c)] for i in range(r)]
            u = [[mu * m[k][i][j] + (1 - mu) * g[i][j] for j in range(c)] for i in range(r)]
            x = orthogonalised(u)
            scale = math.sqrt(max(1.0, r / c))
            for i in range(r):
                for j in range(c):
                    theta[k][i][j] -= lr * wd * theta[k][i][j] + lr * scale * x[i][j]
        optimizer.step()
        for p, rows in zip(params, theta, strict=True):
            flat_rows = [value for row in rows for value in row]
            assert p.detach().flatten().tolist() == pytest.approx(flat_rows, rel=1e-9, abs=1e-11)


@PATHS
@pytest.mark.parametrize("role", ["embedding", "head", "norm", "bias"])
def test_other_roles_follow_adamw(role: str, foreach: bool) -> None:
    lr, beta1, beta2, eps, wd = 0.05, 0.8, 0.9, 1e-3, 0.2
    p = parameters([(3, 2)])[0]
    optimizer = Muon(
        [{"params": [p], "role": role}],
        adamw_lr=lr,
        adamw_beta1=beta1,
        adamw_beta2=beta2,
        adamw_eps=eps,
        adamw_weight_decay=wd,
        foreach=foreach,
    )
    theta = p.detach().flatten().tolist()
    m, v = [0.0] * 6, [0.0] * 6
    for step in range(1, 7):
        set_gradients([p], step)
        assert p.grad is not None
        for j, g in enumerate(p.grad.flatten().tolist()):
            theta[j] -= lr * wd * theta[j]
            m[j] = beta1 * m[j] + (1 - beta1) * g
            v[j] = beta2 * v[j] + (1 - beta2) * g * g
            m_hat, v_hat = m[j] / (1 - beta1**step), v[j] / (1 - beta2**step)
            theta[j] -= lr * m_hat / (math.sqrt(v_hat) + eps)
        optimizer.step()
        assert p.detach().flatten().tolist() == pytest.approx(theta, rel=1e-12)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-3)], ids=["64", "32"]
)
def test_fast_and_reference_paths_agree(dtype: torch.dtype, tolerance: float) -> None:
    both = {}
    for foreach in (True, False):
        optimizer = Muon(groups(dtype), weight_decay=0.1, adamw_lr=0.01, foreach=foreach)
        for step in range(5):
            set_gradients(flat(optimizer), step)
            for skipped in (step, step + 8) if step % 2 else ():
                flat(optimizer)[skipped].grad = None
            optimizer.step()
        both[foreach] = flat(optimizer)
    for fast, reference in zip(both[True], both[False], strict=True):
        torch.testing.assert_close(fast, reference, rtol=tolerance, atol=tolerance)


def test_paths_agree_for_channels_last_kernels_and_transposed_embeddings() -> None:
    both = {}
    for foreach in (True, False):
        kernel, table = parameters([(4, 3, 2, 2), (5, 6)])
        kernel.data = kernel.data.contiguous(memory_format=torch.channels_last)
        table.data = table.data.t()
        optimizer = Muon(
            [{"params": [kernel], "role": "conv"}, {"params": [table], "role": "embedding"}],
            foreach=foreach,
        )
        for step in range(3):
            set_gradients([kernel, table], step)
            optimizer.step()
        both[foreach] = kernel, table
    for fast, reference in zip(both[True], both[False], strict=True):
        torch.testing.assert_close(fast, reference, rtol=1e-9, atol=1e-9)


def test_paths_agree_where_the_tensors_of_a_group_are_unlike() -> None:
    both = {}
    for foreach in (True, False):
        generator = torch.Generator().manual_seed(0)
        dense, gaps, other = (torch.randn(4, 6, generator=generator).double() for _ in range(3))
        params = [torch.nn.Parameter(t) for t in (dense, gaps[:, ::2], other, other.float())]
        optimizer = Muon(
            [{"params": params, "role": "embedding"}],
            adamw_lr=0.01,
            adamw_weight_decay=0.1,
            foreach=foreach,
        )
        for step in range(4):
            set_gradients(params, step)
            if step == 1:  # from here on the counts differ
                params[0].grad = None
            elif params[2].grad is not None:
                params[2].grad = params[2].grad.mT.contiguous().mT
            optimizer.step()
        both[foreach] = params
    for fast, reference in zip(both[True], both[False], strict=True):
        tolerance = 1e-9 if fast.dtype == torch.float64 else 1e-6
        torch.testing.assert_close(fast, reference, rtol=tolerance, atol=tolerance)


def test_the_gram_matrix_gives_the_same_iteration_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(3, 16, 64, generator=generator)
    X[0, 1] = X[0, 0]  # a matrix of lower rank
    X = muon._normalised(X)
    torch.testing.assert_close(muon._iterated_by_gram(X), muon._iterated(X), rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(24, 8), (8, 24), (16, 16)])
def test_an_orthogonalised_matrix_has_singular_values_near_one(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    U = torch.randn(shape, generator=generator, dtype=torch.float64)
    left, values, right = torch.linalg.svd(U, full_matrices=False)
    X = muon.orthogonalised(U)
    inner = left.T @ X @ right.T  # diagonal: the singular vectors stay
    large = values / values.norm() > 0.02
    assert torch.allclose(inner, inner.diagonal().diag(), atol=1e-10)
    assert ((inner.diagonal()[large] > 0.6) & (inner.diagonal()[large] < 1.3)).all()


@PATHS
def test_a_zero_gradient_moves_nothing(foreach: bool) -> None:
    p = parameters([(3, 4)])[0]
    before = p.detach().clone()
    optimizer = Muon([{"params": [p], "role": "matrix"}], foreach=foreach)
    p.grad = torch.zeros_like(p)
    optimizer.step()
    assert torch.equal(p, before)


def test_every_group_holds_its_own_base_learning_rate() -> None:
    optimizer = Muon(groups(), lr=0.5, adamw_lr=0.25, weight_decay=0.1, adamw_weight_decay=0.2)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5, 0.25, 0.25]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.1, 0.2, 0.0]


@PATHS
def test_a_schedule_is_honoured_on_both_sides(foreach: bool) -> None:
    optimizer = Muon(groups(), foreach=foreach)
    for group in optimizer.param_groups:
        group["lr"] *= 0.0
    before = copy.deepcopy(flat(optimizer))
    set_gradients(flat(optimizer), 0)
    optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(flat(optimizer), before, strict=True))


@PATHS
def test_state_dict_round_trip(foreach: bool) -> None:
    optimizer = Muon(groups(), foreach=foreach)
    for step in range(2):
        set_gradients(flat(optimizer), step)
        optimizer.step()
    twin_groups = [{**g, "params": copy.deepcopy(g["params"])} for g in optimizer.param_groups]
    twin = Muon(twin_groups, lr=9.0)
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for step in range(2, 4):
        for owner in (optimizer, twin):
            set_gradients(flat(owner), step)
            owner.step()
    for p, q in zip(flat(optimizer), flat(twin), strict=True):
        assert torch.equal(p, q)


def test_gradients_are_left_as_they_were() -> None:
    optimizer = Muon(groups())
    set_gradients(flat(optimizer), 0)
    before = [p.grad.clone() for p in flat(optimizer) if p.grad is not None]
    optimizer.step()
    assert all(torch.equal(p.grad, g) for p, g in zip(flat(optimizer), before, strict=True))


@pytest.mark.parametrize("role", [None, "tensor"])
def test_a_group_needs_a_role(role: str | None) -> None:
    group = {"params": parameters([(2, 2)])} | ({} if role is None else {"role": role})
    with pytest.raises(ValueError, match=r"needs a role, one of matrix, conv, .*, not "):
        Muon([group])


def test_a_matrix_has_two_dimensions() -> None:
    with pytest.raises(ValueError, match="a matrix has two dimensions or more, not 1"):
        Muon([{"params": parameters([(2,)]), "role": "matrix"}])


@pytest.mark.parametrize(
    ("name", "role"),
    [("lr", "matrix"), ("momentum", "matrix"), ("weight_decay", "conv"), ("adamw_lr", "bias"),
     ("adamw_beta1", "norm"), ("adamw_beta2", "norm"), ("adamw_eps", "head"),
     ("adamw_weight_decay", "embedding")],
)  # fmt: skip
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, torch.tensor(0.5)])
def test_illegal_hyperparameters_are_refused(name: str, role: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"Muon: {name} must be a number in \[0, .*not "):
        Muon([{"params": parameters([(2, 2)]), "role": role}], **{name: value})


@pytest.mark.parametrize("role", ["matrix", "embedding"])
def test_sparse_gradients_are_refused(role: str) -> None:
    p = torch.nn.Parameter(torch.zeros(4, 2))
    p.grad = torch.sparse_coo_tensor([[1]], [[1.0, 1.0]], (4, 2), check_invariants=True)
    with pytest.raises(RuntimeError, match="sparse"):
        Muon([{"params": [p], "role": role}]).step()


def test_closure_runs_with_gradients_enabled() -> None:
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = Muon([{"params": [p], "role": "bias"}])

    def closure() -> float:
        loss = (p**2).sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 2.0


def test_the_card_and_the_constructor_agree() -> None:
    card = read_card(Path(muon.__file__).with_suffix(".yaml"), SubmissionCard)
    arguments = inspect.signature(Muon).parameters
    assert {name: float(h.default) for name, h in card.hyperparameters.items()} == {
        name: argument.default
        for name, argument in arguments.items()
        if name not in ("params", "foreach")
    }
