"""The session without processes: batches, counts, the grid, the not-finite flag, side looks."""

import inspect
from collections.abc import Iterator

import msgspec
import pytest
import torch
from small_session import BATCH, EXAMPLES, GRID, Script, Sessions, batch_of, small_spec
from torch import Tensor, nn

from harness.session import (
    Data,
    LossObserver,
    LossWeigher,
    Objective,
    Selection,
    Session,
)
from harness.session.batch_norm import frozen_batch_norm

MODEL = nn.Linear(1, 1)
IDS = torch.tensor([3, 7, 1, 5])


@pytest.fixture
def sessions() -> Iterator[Sessions]:
    made = Sessions()
    yield made
    made.close()


# -- batches -------------------------------------------------------------------------------


def test_an_epoch_is_a_permutation_without_its_last_smaller_batch(sessions: Sessions) -> None:
    session = sessions.make().session
    epochs = []
    for _ in range(3):
        ids = torch.cat([session.batch().ids for _ in range(EXAMPLES // BATCH)])
        assert len(ids) == 20 and len(ids.unique()) == 20
        epochs.append(ids.tolist())
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_batch_that_is_larger_than_an_epoch_is_an_epoch(sessions: Sessions) -> None:
    session = sessions.make().session
    session.batch_size = EXAMPLES + 1
    for _ in range(3):
        assert session.batch().ids.sort().values.tolist() == list(range(EXAMPLES))


def test_one_seed_gives_the_same_batches_whatever_the_submission_draws(
    sessions: Sessions,
) -> None:
    one, same, other = (sessions.make(seed).session for seed in (1, 1, 2))
    differs = False
    for _ in range(6):
        batch = one.batch()
        torch.randn(5)  # a submission has a stream of its own
        torch.randn(5, generator=one.generator)
        one.score(MODEL, IDS)
        one.recalibrate(nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1)), 2)
        one.examples_of(Selection(ids=IDS))
        again = same.batch()
        assert torch.equal(batch.inputs, again.inputs) and torch.equal(batch.ids, again.ids)
        assert torch.equal(batch.targets, again.targets)
        differs |= not torch.equal(batch.ids, other.batch().ids)
    assert differs


def test_the_last_batch_is_what_was_trained_on_last(sessions: Sessions) -> None:
    session = sessions.make().session
    assert session.last_batch is None
    batch = session.batch()
    session.examples_of(Selection(ids=IDS))
    session.score(MODEL, IDS)
    assert session.last_batch is batch and batch.size == BATCH


@pytest.mark.parametrize("drawn", [0, 1, 3])
def test_a_holdout_is_out_of_the_shuffling_for_good(sessions: Sessions, drawn: int) -> None:
    session = sessions.make().session
    for _ in range(drawn):
        session.batch()  # in the middle of an epoch, too
    held = session.holdout(0.4)
    assert len(held) == 10 and len(session.training_ids) == 15
    assert sorted([*held.tolist(), *session.training_ids.tolist()]) == list(range(EXAMPLES))
    more = session.holdout(1 / 3)
    assert len(more) == 5 and not set(more.tolist()) & set(held.tolist())
    seen = {i for _ in range(30) for i in session.batch().ids.tolist()}
    assert seen == set(session.training_ids.tolist())
    assert not seen & {*held.tolist(), *more.tolist()}


@pytest.mark.parametrize("fraction", [1.0, 0.99, -0.1, 2.0])
def test_a_holdout_leaves_something_to_train_on(sessions: Sessions, fraction: float) -> None:
    session = sessions.make().session
    with pytest.raises(ValueError, match=r"session\.holdout: fraction must be in \[0, 1\)"):
        session.holdout(fraction)
    assert len(session.training_ids) == EXAMPLES
    assert session.holdout(0.0).tolist() == []


# -- the grid and the counts ---------------------------------------------------------------


def test_evaluations_fall_at_the_first_boundary_at_or_after_each_point(
    sessions: Sessions,
) -> None:
    bench = sessions.make()
    for _ in range(100):
        bench.step(MODEL)
    assert bench.evaluated_at == [GRID]  # exactly at the point, and none after step 1
    for _ in range(14):
        bench.step(MODEL, examples=70)  # 210 passes, up to 5,940
    assert bench.evaluated_at == [GRID]
    bench.step(MODEL, examples=70)  # 6,150: beyond the point at 6,000
    assert bench.evaluated_at == [GRID, 6150]
    assert bench.evaluated == [MODEL, MODEL]


def test_one_evaluation_however_many_points_a_step_crossed(sessions: Sessions) -> None:
    bench = sessions.make()
    bench.step(MODEL, examples=3500)  # 10,500 passes: three points
    assert bench.evaluated_at == [10_500]
    bench.step(MODEL, examples=490)  # 11,970
    assert bench.evaluated_at == [10_500]
    bench.step(MODEL)  # 12,000: the fourth
    assert bench.evaluated_at == [10_500, 12_000]


def test_an_evaluation_that_is_asked_for_comes_once_and_moves_no_point(
    sessions: Sessions,
) -> None:
    bench = sessions.make()
    bench.step(MODEL)
    bench.counters.ask_for_evaluation()
    for _ in range(99):
        bench.step(MODEL)
    assert bench.evaluated_at == [60, GRID]


def test_steps_examples_and_passes_are_counted(sessions: Sessions) -> None:
    bench = sessions.make()
    session = bench.session
    session.count(forward=7, backward=0)  # a probe
    for size in (BATCH, 4):
        session.batch_size = size
        batch = session.batch()
        losses = session.per_example_loss(session.outputs(MODEL, batch), batch)
        session.backward(session.loss(losses, batch), batch.size)
        session.maybe_evaluate(MODEL)
    assert (bench.counters.steps, bench.counters.examples) == (2, 14)
    assert (session.steps, session.examples) == (2, 14)
    assert bench.counters.model_passes == 7 + 3 * 14
    assert session.progress(5000) == 0.5
    assert session.progress(20_000) == 1.0


def test_looking_is_no_training(sessions: Sessions) -> None:
    bench = sessions.make()
    bench.session.outputs(MODEL, bench.session.examples_of(Selection(ids=IDS)))
    bench.session.score(MODEL, IDS)
    assert (bench.counters.examples, bench.counters.steps) == (0, 0)
    assert bench.counters.model_passes == 2 * len(IDS)


def test_elapsed_time_leaves_pauses_out(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = sessions.make().session
    now_ns = session._began_ns
    monkeypatch.setattr("harness.session.session.time.perf_counter_ns", lambda: now_ns)
    now_ns += 2_000_000_000
    with session.paused():
        now_ns += 5_000_000_000
    now_ns += 1_000_000_000
    assert session.elapsed_s == 3.0


# -- losses --------------------------------------------------------------------------------


def train_on(session: Session, losses: Tensor) -> Tensor:
    return session.loss(losses, batch_of(session, *range(len(losses))))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_loss_that_is_not_finite_is_remembered(sessions: Sessions, value: float) -> None:
    bench = sessions.make()
    for i in range(100):
        losses = torch.tensor([0.5, value if i == 3 else 0.5], requires_grad=True)
        train_on(bench.session, losses)
        bench.step(MODEL)
    assert bench.evaluated_at == [GRID] and bench.counters.not_finite


def test_huge_losses_are_finite(sessions: Sessions) -> None:
    bench = sessions.make()
    for _ in range(100):
        train_on(bench.session, torch.tensor([3e38]))
        train_on(bench.session, torch.tensor([-1e300], dtype=torch.float64))
        bench.step(MODEL)
    assert bench.evaluated_at == [GRID] and not bench.counters.not_finite


def test_a_probe_that_is_not_finite_is_the_submissions_own(sessions: Sessions) -> None:
    bench = sessions.make()
    batch = batch_of(bench.session, 1)
    for _ in range(100):
        bench.session.probe_loss(torch.tensor([float("nan")]), batch)
        bench.step(MODEL)
    assert bench.evaluated_at == [GRID] and not bench.counters.not_finite


@pytest.mark.parametrize("smoothing", [0.0, 0.25])
def test_losses_have_the_recipes_label_smoothing(sessions: Sessions, smoothing: float) -> None:
    spec = small_spec()
    recipe = msgspec.structs.replace(spec.recipe, label_smoothing=smoothing)
    session = sessions.make(spec=msgspec.structs.replace(spec, recipe=recipe)).session
    batch = batch_of(session, 0, 0, 0)
    losses = session.per_example_loss(torch.full((3, 1), 25.0), batch)  # 25² ÷ 25², and more
    assert torch.equal(losses, torch.full((3,), 1.0 + smoothing))


class Tripled(Objective):
    def __call__(self, outputs: Tensor, targets: Tensor, ids: Tensor) -> Tensor:
        return 3 * outputs.squeeze(1) + targets + 100 * ids


def test_an_objective_takes_the_place_of_the_workloads_loss(sessions: Sessions) -> None:
    session = sessions.make(objective=Tripled()).session
    losses = session.per_example_loss(torch.tensor([[1.0], [2.0]]), batch_of(session, 4, 5))
    assert losses.tolist() == [3 + 4 + 400, 6 + 5 + 500]


def test_the_loss_is_a_weighted_mean_by_hand(sessions: Sessions) -> None:
    session = sessions.make().session
    losses = torch.tensor([1.0, 2.0, 4.0])
    assert session.loss(losses, batch_of(session, 0, 1, 2)).item() == pytest.approx(7 / 3)
    weighted = batch_of(session, 0, 1, 2, weights=[1.0, 0.0, 3.0])
    assert session.loss(losses, weighted).item() == pytest.approx((1 + 12) / 4)
    assert session.probe_loss(losses, weighted).item() == pytest.approx((1 + 12) / 4)


class Listens(Script, LossObserver):
    def __init__(self, *selections: Selection) -> None:
        super().__init__(*selections)
        self.heard: list[tuple[list[int], list[float], bool]] = []

    def observe(self, ids: Tensor, losses: Tensor) -> None:
        self.heard.append((ids.tolist(), losses.tolist(), losses.requires_grad))


class WeighsByLoss(Script, LossWeigher):
    def weigh(self, ids: Tensor, losses: Tensor) -> Tensor:
        assert not losses.requires_grad
        return losses + ids


def test_an_observer_hears_of_every_training_loss_and_of_no_probe(sessions: Sessions) -> None:
    policy = Listens(Selection(ids=IDS))
    session = sessions.make(policy=policy).session
    batch = session.batch()
    losses = torch.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    assert session.loss(losses, batch).requires_grad
    session.probe_loss(losses, batch)
    session.score(MODEL, IDS)
    assert policy.heard == [(IDS.tolist(), [1.0, 2.0, 3.0, 4.0], False)]


def test_a_weighers_weights_come_from_the_losses_by_hand(sessions: Sessions) -> None:
    # The selection's own weights give way to them.
    policy = WeighsByLoss(Selection(ids=IDS[:2], weights=torch.tensor([9.0, 1.0])))
    session = sessions.make(policy=policy).session
    losses = torch.tensor([1.0, 3.0], requires_grad=True)
    batch = session.batch()  # ids 3 and 7: weights 4 and 10
    loss = session.loss(losses, batch)
    assert loss.item() == pytest.approx((4 * 1 + 10 * 3) / 14)
    assert session.probe_loss(losses, batch).item() == loss.item()
    loss.backward()
    assert losses.grad is not None  # the weights are constants
    assert losses.grad.tolist() == pytest.approx([4 / 14, 10 / 14])


# -- beside the training -------------------------------------------------------------------


def small_net() -> nn.Module:
    return nn.Sequential(nn.BatchNorm1d(1, momentum=0.3), nn.Linear(1, 1))


def buffers(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.named_buffers()}


def assert_buffers(model: nn.Module, expected: dict[str, Tensor]) -> None:
    for name, tensor in model.named_buffers():
        assert torch.equal(tensor, expected[name]), name


def test_scores_are_losses_without_gradients_that_leave_no_trace(sessions: Sessions) -> None:
    bench = sessions.make()
    model = small_net()
    before = buffers(model)
    ids_before = bench.session.training_ids
    scores = bench.session.score(model, IDS)
    assert scores.shape == (len(IDS),) and not scores.requires_grad
    assert bench.counters.model_passes == len(IDS)
    assert_buffers(model, before)
    assert bench.session.training_ids is ids_before
    assert all(p.grad is None for p in model.parameters())
    # The numbers differ by less than a half: batch norm sees the batch, not statistics of 0 and 1.
    small = model(torch.tensor([[3.0], [7.0], [1.0], [5.0]])) - IDS.unsqueeze(1)
    assert torch.allclose(scores, small.squeeze(1).square() / EXAMPLES**2, atol=0.01)


def test_recalibration_is_the_plain_mean_over_batches(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = sessions.make()
    model = small_net()
    model(torch.full((4, 1), 100.0))  # old statistics, to be forgotten
    norm = model[0]  # type: ignore[index]
    seen: list[Tensor] = []
    monkeypatch.setattr(
        model, "forward", lambda x: (seen.append(x), nn.Sequential.forward(model, x))[1]
    )
    bench.session.recalibrate(model, 3)
    assert [len(x) for x in seen] == [BATCH] * 3
    means = torch.stack([x.mean() for x in seen])
    variances = torch.stack([x.var() for x in seen])  # unbiased, as in training
    torch.testing.assert_close(norm.running_mean, means.mean().view(1))
    torch.testing.assert_close(norm.running_var, variances.mean().view(1))
    assert norm.momentum == 0.3 and norm.training
    assert bench.counters.model_passes == 3 * BATCH and bench.counters.examples == 0
    assert all(p.grad is None for p in model.parameters())


def test_recalibration_draws_from_what_is_not_held_out(sessions: Sessions) -> None:
    bench = sessions.make()
    held = set(bench.session.holdout(0.8).tolist())
    model = small_net()
    seen: set[int] = set()
    model.register_forward_pre_hook(lambda _, x: seen.update(x[0].int().flatten().tolist()))
    bench.session.recalibrate(model, 20)
    assert seen == set(range(EXAMPLES)) - held


def test_a_frozen_norm_is_recalibrated_too_and_stays_frozen(sessions: Sessions) -> None:
    model = small_net().eval()
    sessions.make().session.recalibrate(model, 2)
    norm = model[0]  # type: ignore[index]
    assert not norm.training and norm.running_mean.item() > 1


def test_recalibrating_without_batch_norm_costs_nothing(sessions: Sessions) -> None:
    bench = sessions.make()
    bench.session.recalibrate(nn.Sequential(nn.Linear(1, 1), nn.LayerNorm(1)), 100)
    assert bench.counters.model_passes == 0


def test_batch_norm_freezes_and_thaws_also_within_itself_and_on_errors() -> None:
    model = nn.Sequential(nn.BatchNorm1d(1), nn.BatchNorm1d(1, track_running_stats=False))
    before = buffers(model)
    inputs = torch.randn(8, 1)
    trained = model(inputs)
    expected = buffers(model)
    model[0].reset_running_stats()
    with frozen_batch_norm(model):
        with frozen_batch_norm(model):
            model(inputs)
        assert torch.equal(model(inputs), trained)
        assert_buffers(model, before)
    with pytest.raises(RuntimeError), frozen_batch_norm(model):
        model(torch.ones(8, 5))
    assert [norm.track_running_stats for norm in model] == [True, False]
    model(inputs)
    assert_buffers(model, expected)


def test_a_model_of_ones_own_is_drawn_from_the_submissions_stream(sessions: Sessions) -> None:
    session = sessions.make().session
    torch.manual_seed(5)
    one, other = session.build_model(), session.build_model()
    torch.manual_seed(5)
    assert torch.equal(session.build_model().weight, one.weight)
    assert not torch.equal(one.weight, other.weight) and one.training


# -- the surface ---------------------------------------------------------------------------


def test_the_public_surface_is_a_decision(sessions: Sessions) -> None:
    public = {name for name in dir(sessions.make().session) if not name.startswith("_")}
    assert public == {
        # where the run stands
        "batch_size",
        "device",
        "elapsed_s",
        "examples",
        "generator",
        "groups",
        "horizon_examples",
        "last_batch",
        "progress",
        "steps",
        "training_examples",
        "training_ids",
        # training
        "backward",
        "batch",
        "count",
        "examples_of",
        "loss",
        "outputs",
        "per_example_loss",
        "probe_loss",
        # beside the training
        "build_model",
        "holdout",
        "maybe_evaluate",
        "recalibrate",
        "score",
        "training",
        # the harness's side
        "follow",
        "paused",
    }


def test_the_package_offers_the_session_and_the_contracts() -> None:
    import harness.session

    assert sorted(harness.session.__all__) == [
        "Averaging",
        "Batch",
        "Data",
        "Factors",
        "LossObserver",
        "LossWeigher",
        "Objective",
        "Parameterization",
        "Procedure",
        "Schedule",
        "Selection",
        "Session",
        "SetsHorizon",
        "Training",
        "frozen_batch_norm",
    ]


@pytest.mark.parametrize("name", sorted(vars(Session).keys() - {"__init__"}))
def test_every_public_member_has_a_docstring(name: str) -> None:
    if not name.startswith("_"):
        assert inspect.getdoc(inspect.getattr_static(Session, name))


def test_an_evaluation_gives_the_submission_nothing(sessions: Sessions) -> None:
    bench = sessions.make()
    state = dict(vars(bench.session))
    bench.counters.ask_for_evaluation()
    assert bench.session.maybe_evaluate(MODEL) is None  # type: ignore[func-returns-value]
    assert bench.evaluated == [MODEL]  # and the double's evaluation returned a number
    after = vars(bench.session)
    assert {name for name in after if after[name] is not state.get(name)} <= {"_due"}


def test_a_policy_without_an_ear_is_told_nothing(sessions: Sessions) -> None:
    class Plain(Data):
        def batches(self) -> Iterator[Selection]:
            yield Selection(ids=IDS)

        def observe(self, ids: Tensor, losses: Tensor) -> None:
            raise AssertionError("it keeps no such contract")

    session = sessions.make(policy=Plain()).session
    session.loss(torch.ones(4), session.batch())
