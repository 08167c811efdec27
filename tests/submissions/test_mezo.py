"""MeZO against Algorithm 1 of Malladi et al. 2023, and its memory against plain inference."""

import copy
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from harness.cards import SubmissionCard, read_card
from submissions.zeroth_order import mezo
from submissions.zeroth_order.mezo import MeZO

# Differing ranks; with the smallest blocks in use, several of them share one, and one fills many.
SHAPES = [(), (1,), (7,), (5, 3), (2, 3, 3, 3), (0, 4), (50, 60), (3,)]
PATHS = pytest.mark.parametrize("foreach", [True, False], ids=["fast", "reference"])


def parameters(
    shapes: list[tuple[int, ...]] = SHAPES, dtype: torch.dtype = torch.float64, seed: int = 0
) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(s, generator=generator, dtype=dtype)) for s in shapes]


def flat(params: list[nn.Parameter]) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in params])


def cubic(params: list[nn.Parameter]) -> Tensor:
    """A loss whose slope differs from element to element and from place to place."""
    theta = flat(params)
    factors = torch.linspace(0.5, 2.0, len(theta), dtype=theta.dtype)
    return (factors * theta**2 + 0.1 * theta**3).sum()


def watched(params: list[nn.Parameter]) -> tuple[Callable[[], Tensor], list[Tensor]]:
    """Return a closure, and the list in which it leaves what the parameters were."""
    seen: list[Tensor] = []

    def closure() -> Tensor:
        assert not torch.is_grad_enabled()
        seen.append(flat(params))
        return cubic(params)

    return closure, seen


def cubic_by_hand(theta: list[float]) -> float:
    n = len(theta)
    factors = [0.5 + 1.5 * i / (n - 1) for i in range(n)]
    return sum(f * x**2 + 0.1 * x**3 for f, x in zip(factors, theta, strict=True))


@PATHS
def test_follows_the_published_rule(foreach: bool) -> None:
    lr, wd, eps = 0.003, 0.2, 1e-3
    params = parameters([(3,), (2, 2), ()])
    groups = [
        {"params": params[:2], "role": "matrix"},
        {"params": params[2:], "role": "bias", "weight_decay": 0.0, "lr": 2 * lr},
    ]
    optimizer = MeZO(groups, lr=lr, eps=eps, weight_decay=wd, foreach=foreach)
    theta = flat(params).tolist()
    directions = []
    for _ in range(5):
        closure, seen = watched(params)
        loss = optimizer.step(closure)
        above, below = (t.tolist() for t in seen)
        z = [(a - b) / (2 * eps) for a, b in zip(above, below, strict=True)]
        for x, direction, a in zip(theta, z, above, strict=True):
            assert a == pytest.approx(x + eps * direction, rel=1e-13)
        loss_above = cubic_by_hand(above)
        assert float(loss) == pytest.approx(loss_above, rel=1e-13)
        slope = (loss_above - cubic_by_hand(below)) / (2 * eps)
        for i, direction in enumerate(z):
            group_lr, group_wd = (lr, wd) if i < 7 else (2 * lr, 0.0)
            theta[i] = theta[i] - group_lr * (slope * direction + group_wd * theta[i])
        # 2 ε divides the losses' rounding of 1e-15
        assert flat(params).tolist() == pytest.approx(theta, rel=1e-10)
        theta = flat(params).tolist()
        directions.append(z)
    assert len({tuple(z) for z in directions}) == 5


@PATHS
@pytest.mark.parametrize("block", [1, 7, 1000, mezo.SMALLEST_BLOCK])
def test_the_parameters_return_to_the_start(
    foreach: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mezo, "SMALLEST_BLOCK", block)
    monkeypatch.setattr(mezo, "BLOCK_SHARE", 10**6)
    shapes = SHAPES if block > 1 else [(), (3, 4), (2,)]
    for dtype, atol in ((torch.float64, 1e-15), (torch.float32, 1e-6)):
        params = parameters(shapes, dtype)
        before = flat(params)
        closure, seen = watched(params)
        MeZO(params, lr=0.0, foreach=foreach).step(closure)
        assert len(seen) == 2
        for moved in seen:
            assert ((moved - before).abs() > 0).double().mean() > 0.99
        torch.testing.assert_close(flat(params), before, rtol=1e-6, atol=atol)


def test_the_direction_is_standard_normal_and_new_at_each_step() -> None:
    params = parameters([(100, 100), (300,)])
    optimizer = MeZO(params, lr=0.0, eps=0.5)
    directions = []
    for _ in range(4):
        closure, seen = watched(params)
        optimizer.step(closure)
        directions.append(seen[0] - seen[1])
    z = torch.stack(directions)
    n = z.shape[1]
    assert z.mean(dim=1).abs().max() < 4 / math.sqrt(n)
    assert (z.var(dim=1) - 1).abs().max() < 4 * math.sqrt(2 / n)
    correlations = torch.corrcoef(z) - torch.eye(4)
    assert correlations.abs().max() < 4 / math.sqrt(n)


@pytest.mark.parametrize("block", [1, 40, mezo.SMALLEST_BLOCK])
def test_fast_and_reference_paths_agree(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mezo, "SMALLEST_BLOCK", block)
    shapes = SHAPES if block > 1 else [(), (3, 4), (2,), (2, 2)]
    both = []
    for foreach in (True, False):
        params = parameters(shapes)
        groups: list[dict[str, Any]] = [
            {"params": params[:2], "weight_decay": 0.0},
            {"params": params[2:3], "lr": 0.02},
            {"params": params[3:]},
        ]
        torch.manual_seed(5)
        optimizer = MeZO(groups, lr=1e-4, weight_decay=0.3, foreach=foreach)
        for _ in range(4):
            optimizer.step(lambda params=params: cubic(params))
        both.append(flat(params))
    torch.testing.assert_close(*both, rtol=1e-14, atol=1e-15)


def test_unusual_layouts_and_mixed_dtypes_return_to_the_start() -> None:
    base = parameters([(6, 8)])[0].detach()
    gaps = nn.Parameter(base[:, ::2])
    strided = nn.Parameter(base.clone()[0, ::2])
    swapped = nn.Parameter(parameters([(5, 4)], seed=1)[0].detach().t())
    image = nn.Parameter(
        parameters([(2, 3, 4, 5)], torch.float32, seed=2)[0]
        .detach()
        .contiguous(memory_format=torch.channels_last)
    )
    half = nn.Parameter(torch.ones(30, dtype=torch.bfloat16))
    params = [gaps, strided, swapped, image, half]
    before = [p.detach().clone() for p in params]
    guard = base[:, 1::2].clone()
    moved = []

    def closure() -> float:
        moved.append([bool((p != b).double().mean() > 0.9) for p, b in zip(params, before)])  # noqa: B905
        return 1.0

    MeZO(params, lr=0.0, eps=0.5).step(closure)
    assert moved == [[True] * 5] * 2
    assert torch.equal(base[:, 1::2], guard)  # the memory between the elements is not ours
    for p, start in zip(params, before, strict=True):
        tolerance = 0.05 if p.dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(p.detach(), start, rtol=tolerance, atol=tolerance)


def test_the_global_generator_is_left_alone() -> None:
    params = parameters()
    optimizer = MeZO(params)
    state = torch.get_rng_state()
    seen = []

    def closure() -> Tensor:
        seen.append(torch.get_rng_state())
        torch.rand(3)  # dropout, say; it must not shift the direction
        return cubic(params)

    before = flat(params)
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step(closure)
    assert torch.equal(seen[0], state)
    torch.testing.assert_close(flat(params), before)


def test_the_run_seed_decides_the_directions() -> None:
    ends = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        params = parameters()
        optimizer = MeZO(params, lr=1e-4)
        for _ in range(2):
            optimizer.step(lambda params=params: cubic(params))
        ends.append(flat(params))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_state_dict_round_trip() -> None:
    params = parameters()
    optimizer = MeZO(params, lr=1e-4, weight_decay=0.1)
    for _ in range(3):
        optimizer.step(lambda: cubic(params))
    twins = copy.deepcopy(params)
    twin = MeZO(twins, lr=9.0)
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(3):
        optimizer.step(lambda: cubic(params))
        twin.step(lambda: cubic(twins))
    assert torch.equal(flat(params), flat(twins))


def test_a_schedule_is_honoured() -> None:
    params = parameters([(4,)])
    optimizer = MeZO(params, lr=1e-3)
    moves = []
    for factor in (1.0, 0.5, 0.0):
        before = flat(params)
        optimizer.param_groups[0]["lr"] = 1e-3 * factor
        optimizer.param_groups[0]["step"] = 7  # the same direction each time
        optimizer.step(lambda: flat(params).sum())
        moves.append(flat(params) - before)
    torch.testing.assert_close(moves[1], moves[0] / 2, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(moves[2], torch.zeros_like(moves[2]), rtol=0, atol=1e-15)


def test_lowers_a_loss() -> None:
    torch.manual_seed(0)
    params = parameters([(4,), (3,)])
    optimizer = MeZO(params, lr=0.02)

    def loss() -> Tensor:
        return (flat(params) ** 2).sum()

    start = float(loss())
    for _ in range(300):
        optimizer.step(loss)
    assert float(loss()) < 1e-3 * start


class OperatorLog(TorchDispatchMode):
    """The names of the operators that pass."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_a_fast_step_reads_nothing_back_and_launches_per_block() -> None:
    params = parameters([(7,)] * 64, torch.float32)
    optimizer = MeZO(params, weight_decay=0.1)
    loss = torch.tensor(1.0)
    with OperatorLog() as log:
        optimizer.step(lambda: loss)
    views = {"split_with_sizes", "slice", "view", "permute", "detach", "alias"}
    launches = [name for name in log.names if name not in views and "record" not in name]
    draw = ["normal_", "_foreach_add_"]
    update = ["sub", "div", *draw, "_foreach_mul_", "mul_", "_foreach_add_"]
    assert launches == ["empty", *draw, *draw, *update]


class LiveBytes(TorchDispatchMode):
    """Follows the storages that operators return: `live` and `peak`, in bytes."""

    def __init__(self, *present: Tensor) -> None:
        super().__init__()
        self._storages: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0
        self._take_in(present)

    def _take_in(self, tensors: Any) -> None:
        self._storages = {k: v for k, v in self._storages.items() if not v[0].expired()}
        for tensor in tensors:
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._storages[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.peak = max(self.peak, sum(size for _, size in self._storages.values()))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self._take_in(result if isinstance(result, tuple | list) else [result])
        return result


def fully_connected() -> tuple[nn.Module, Tensor]:
    return nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    ), torch.randn(8, 64)


def convolutional() -> tuple[nn.Module, Tensor]:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 64, 3),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * 36, 10),
    ), torch.randn(32, 1, 8, 8)


def peaks(
    build: Callable[[], tuple[nn.Module, Tensor]],
) -> tuple[int, int, nn.Module]:
    """Return the live bytes of a forward pass, and of a MeZO step, at their peaks."""
    model, inputs = build()
    labels = torch.randint(10, (len(inputs),))
    optimizer = MeZO(model.parameters(), lr=1e-4, weight_decay=0.1)

    def loss() -> Tensor:
        return nn.functional.cross_entropy(model(inputs), labels)

    present = [*model.parameters(), *model.buffers(), inputs, labels]
    for _ in range(2):  # nothing may be left over from one step to the next either
        with torch.no_grad(), LiveBytes(*present) as inference:
            loss()
        with LiveBytes(*present) as step:
            optimizer.step(loss)
    return inference.peak, step.peak, model


@pytest.mark.parametrize("build", [fully_connected, convolutional])
def test_a_step_takes_little_more_memory_than_inference(
    build: Callable[[], tuple[nn.Module, Tensor]],
) -> None:
    inference, step, model = peaks(build)
    parameter_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    assert inference > parameter_bytes
    assert step <= 1.05 * inference
    assert all(p.grad is None for p in model.parameters())


def test_the_memory_measurement_would_see_a_whole_direction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mezo, "BLOCK_SHARE", 1)
    inference, step, _ = peaks(fully_connected)
    assert step > 1.3 * inference


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_step_takes_little_more_device_memory_than_inference() -> None:
    model = nn.Sequential(*[nn.Linear(1024, 1024) for _ in range(8)]).cuda()
    inputs = torch.randn(64, 1024, device="cuda")
    optimizer = MeZO(model.parameters(), lr=1e-6)

    def peak(work: Callable[[], Any]) -> int:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()

    def loss() -> Tensor:
        return model(inputs).square().mean()

    with torch.no_grad():
        loss()
        inference = peak(loss)
    optimizer.step(loss)
    assert peak(lambda: optimizer.step(loss)) <= 1.05 * inference


@pytest.mark.parametrize("name", ["lr", "weight_decay", "eps"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, torch.tensor(0.5)])
def test_illegal_hyperparameters_are_refused(name: str, value: Any) -> None:
    for arguments, group in (({name: value}, {}), ({}, {name: value})):
        with pytest.raises(ValueError, match=rf"MeZO: {name} must be a number in \[0, inf\)"):
            MeZO([{"params": parameters(), **group}], **arguments)


def test_eps_is_above_zero_and_one_for_all() -> None:
    with pytest.raises(ValueError, match=r"eps must be above 0 and the same .* not 0\.0"):
        MeZO(parameters(), eps=0.0)
    with pytest.raises(ValueError, match=r"the same in every group, not 0\.5"):
        MeZO([{"params": parameters(), "eps": 0.5}], eps=1e-3)


def test_a_step_without_a_closure_is_refused() -> None:
    with pytest.raises(RuntimeError, match="closure"):
        MeZO(parameters()).step()


def test_the_card_and_the_constructor_agree() -> None:
    card = read_card(Path(mezo.__file__).with_suffix(".yaml"), SubmissionCard)
    arguments = inspect.signature(MeZO).parameters
    assert {name: h.convert(h.default) for name, h in card.hyperparameters.items()} == {
        name: argument.default
        for name, argument in arguments.items()
        if name not in ("params", "foreach")
    }
    assert (card.kind, card.implementation) == ("zeroth-order", "mezo:MeZO")
    assert card.closure == "forward"
