"""What an optimizer's closure does at each kind, and what it leaves as it was."""

from collections.abc import Iterator

import pytest
import torch
from small_session import BATCH, Bench, Script, Sessions
from torch import Tensor, nn

from harness.cards import Closure as ClosureKind
from harness.session import Batch, LossObserver, Selection
from harness.trainee.closure import Closure

KINDS: tuple[ClosureKind, ...] = ("forward", "backward", "graph")
WITH_GRADIENTS: tuple[ClosureKind, ...] = ("none", "backward", "graph")


class Net(nn.Module):
    """Batch norm and dropout, with a memory of its dropout masks."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1)
        self.wide = nn.Linear(1, 64)
        self.dropout = nn.Dropout(0.5)
        self.out = nn.Linear(64, 1)
        self.masks: list[Tensor] = []
        self.graphs: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        dropped = self.dropout(torch.ones(len(x), 64))
        self.masks.append(dropped)
        outputs: Tensor = self.out(self.wide(self.norm(x)) * dropped)
        self.graphs.append(outputs.requires_grad)
        return outputs


class Setting:
    def __init__(
        self, bench: Bench, model: nn.Module, kind: ClosureKind, clip: float | None
    ) -> None:
        self.bench = bench
        self.model = model
        self.parameters = list(model.parameters())
        self.optimizer = torch.optim.SGD(self.parameters, lr=0.1)
        self.closure = Closure(bench.session, model, kind, self.optimizer, clip)
        self.closure.next_batch()

    def gradients(self) -> list[Tensor]:
        found = [p.grad for p in self.parameters]
        assert all(g is not None for g in found)
        return [g.detach().clone() for g in found if g is not None]


class Setup:
    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def __call__(
        self,
        kind: ClosureKind,
        *,
        model: nn.Module | None = None,
        clip: float | None = None,
        policy: Script | None = None,
    ) -> Setting:
        torch.manual_seed(0)
        return Setting(self._sessions.make(policy=policy), model or Net(), kind, clip)


@pytest.fixture
def setup() -> Iterator[Setup]:
    sessions = Sessions()
    yield Setup(sessions)
    sessions.close()


@pytest.mark.parametrize("kind", KINDS)
def test_every_call_has_the_same_batch_and_the_same_randomness(
    setup: Setup, kind: ClosureKind
) -> None:
    setting = setup(kind)
    losses = []
    for _ in range(4):
        losses.append(setting.closure())
        torch.randn(3)  # what the optimizer draws between the calls is its own
    masks = setting.model.masks
    assert all(torch.equal(mask, masks[0]) for mask in masks)
    assert all(torch.equal(loss, losses[0]) for loss in losses)
    assert setting.bench.counters.examples == BATCH
    setting.closure.next_batch()
    setting.closure()
    assert not torch.equal(setting.model.masks[-1], masks[0])
    assert setting.bench.counters.examples == 2 * BATCH


@pytest.mark.parametrize("kind", KINDS)
def test_a_probe_leaves_the_random_stream_where_it_was(setup: Setup, kind: ClosureKind) -> None:
    setting = setup(kind)
    fresh = torch.get_rng_state()
    setting.closure()
    after_first = torch.get_rng_state()
    assert not torch.equal(after_first, fresh)
    torch.randn(3)
    before_probe = torch.get_rng_state()
    setting.closure()
    assert torch.equal(torch.get_rng_state(), before_probe)


def test_an_error_in_a_probe_puts_everything_back(setup: Setup) -> None:
    setting = setup("backward")
    setting.closure()
    state = torch.get_rng_state()
    setting.model.out = nn.Linear(3, 1)
    drawn = torch.get_rng_state()
    assert not torch.equal(drawn, state)
    with pytest.raises(RuntimeError):
        setting.closure()
    assert torch.equal(torch.get_rng_state(), drawn) and setting.model.norm.track_running_stats


@pytest.mark.parametrize("kind", KINDS)
def test_batch_norm_learns_from_the_first_call_alone(setup: Setup, kind: ClosureKind) -> None:
    setting = setup(kind)
    norm = setting.model.norm
    setting.closure()
    assert norm.num_batches_tracked.item() == 1 and norm.running_mean.item() != 0
    first = [buffer.clone() for buffer in norm.buffers()]
    with torch.no_grad():
        setting.parameters[0].add_(1.0)
    for _ in range(3):
        setting.closure()
    assert all(torch.equal(a, b) for a, b in zip(norm.buffers(), first, strict=True))
    setting.closure.next_batch()
    setting.closure()
    assert norm.num_batches_tracked.item() == 2


@pytest.mark.parametrize(("kind", "passes"), [("forward", 1), ("backward", 3), ("graph", 3)])
def test_passes_are_counted_at_every_call(setup: Setup, kind: ClosureKind, passes: int) -> None:
    setting = setup(kind)
    for calls in (1, 2, 3):
        setting.closure()
        assert setting.bench.counters.model_passes == calls * passes * BATCH
    assert setting.bench.counters.steps == 0


@pytest.mark.parametrize("kind", WITH_GRADIENTS)
def test_gradients_are_of_this_call_and_not_a_sum(setup: Setup, kind: ClosureKind) -> None:
    setting = setup(kind)
    for p in setting.parameters:
        p.grad = torch.full_like(p, 1e6)  # of a former step
    setting.closure()
    first = setting.gradients()
    assert all(g.abs().max() < 1e5 for g in first)
    if kind != "none":
        setting.closure()
        for again, expected in zip(setting.gradients(), first, strict=True):
            torch.testing.assert_close(again, expected)


@pytest.mark.parametrize("kind", WITH_GRADIENTS)
def test_gradients_are_clipped_to_the_norm_as_torch_does(setup: Setup, kind: ClosureKind) -> None:
    free = setup(kind)
    free.closure()
    norm = nn.utils.get_total_norm(free.gradients())
    clip = norm.item() / 4
    setting = setup(kind, clip=clip)
    for _ in range(2 if kind != "none" else 1):
        setting.closure()
        for clipped, whole in zip(setting.gradients(), free.gradients(), strict=True):
            torch.testing.assert_close(clipped, whole / 4, rtol=1e-4, atol=1e-6)


def test_forward_builds_no_graph_and_leaves_no_gradient_anywhere(setup: Setup) -> None:
    setting = setup("forward", clip=1.0)
    for _ in range(3):
        assert not setting.closure().requires_grad
    assert all(p.grad is None for p in setting.parameters)
    assert setting.model.graphs == [False] * 3
    assert torch.is_grad_enabled()
    with torch.enable_grad():
        setting.closure()
    assert setting.model.graphs[-1] is False


@pytest.mark.parametrize("kind", WITH_GRADIENTS)
def test_gradients_come_also_to_an_optimizer_that_steps_without(
    setup: Setup, kind: ClosureKind
) -> None:
    setting = setup(kind)
    with torch.no_grad():
        assert not setting.closure().requires_grad
        assert not torch.is_grad_enabled()
    assert len(setting.gradients()) == len(setting.parameters)


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_a_graphs_gradients_can_be_differentiated_again(setup: Setup, clip: float | None) -> None:
    # loss = mean (w x + b - t)² / 25²: second derivatives 2 mean(x²) / 25² and 2 / 25².
    setting = setup("graph", model=nn.Linear(1, 1), clip=clip)
    setting.closure()
    w, b = setting.parameters
    assert w.grad is not None and b.grad is not None
    rows = [torch.autograd.grad(g, (w, b), retain_graph=True) for g in (w.grad.sum(), b.grad.sum())]
    batch = setting.bench.session.last_batch
    assert isinstance(batch, Batch)
    x = batch.inputs
    expected = torch.tensor([[x.square().mean(), x.mean()], [x.mean(), 1.0]]) * 2 / 625
    found = torch.tensor([[derivative.item() for derivative in row] for row in rows])
    torch.testing.assert_close(found, expected)  # of the loss itself, whatever the clipping
    if clip is not None:
        norm = nn.utils.get_total_norm(setting.gradients())
        assert norm.item() == pytest.approx(clip, rel=1e-2)


@pytest.mark.parametrize("kind", ["none", "backward"])
def test_only_a_graph_is_kept(setup: Setup, kind: ClosureKind) -> None:
    setting = setup(kind)
    setting.closure()
    assert all(p.grad is not None and not p.grad.requires_grad for p in setting.parameters)


class Listens(Script, LossObserver):
    def __init__(self, *selections: Selection) -> None:
        super().__init__(*selections)
        self.heard: list[list[int]] = []

    def observe(self, ids: Tensor, losses: Tensor) -> None:
        self.heard.append(ids.tolist())


@pytest.mark.parametrize("kind", ["none", *KINDS])
def test_an_observer_is_told_once_a_step(setup: Setup, kind: ClosureKind) -> None:
    policy = Listens(Selection(ids=torch.tensor([1, 2])), Selection(ids=torch.tensor([3, 4])))
    setting = setup(kind, policy=policy)
    for _ in range(1 if kind == "none" else 3):
        setting.closure()
    setting.closure.next_batch()
    setting.closure()
    assert policy.heard == [[1, 2], [3, 4]]


def test_a_first_loss_that_is_not_finite_is_remembered_and_a_probes_is_not(setup: Setup) -> None:
    for at, lost in ((0, True), (1, False)):
        setting = setup("forward")
        for call in range(2):
            with torch.no_grad():
                setting.parameters[-1].fill_(float("nan") if call == at else 0.0)
            setting.closure()
        setting.bench.counters.ask_for_evaluation()
        setting.bench.session.maybe_evaluate(setting.model)
        assert setting.bench.counters.not_finite is lost
