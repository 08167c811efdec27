"""pinn/allen-cahn: the solver against exact solutions, the network's derivatives, the residual."""

import math

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness import catalogue
from harness.errors import UsageError
from harness.reference_step import ReferenceStep
from workloads.pinn.allen_cahn import (
    DIFFUSION,
    END_TIME,
    HELD_OUT_PLACES,
    HELD_OUT_TIMES,
    INITIAL_POINTS,
    INITIAL_WEIGHT,
    PLACE_STEPS,
    POINTS_PER_SLICE,
    REACTION,
    RESOLUTION,
    SLICES,
    SOLVER_STEPS,
    PINNAllenCahn,
    circle,
    initial_value,
    solve_allen_cahn,
    unrounded_solution,
)
from workloads.pinn.model import JetLinear, PeriodicPerceptron

Field = NDArray[np.float64]
Splits = dict[str, dict[str, Tensor]]

# The least distance of a value before rounding from a boundary that the file promises.
MARGIN = 1e-12


@pytest.fixture(scope="module")
def workload() -> PINNAllenCahn:
    return PINNAllenCahn(catalogue.workload("pinn/allen-cahn").card)


@pytest.fixture(scope="module")
def splits(workload: PINNAllenCahn) -> Splits:
    return workload.prepare()


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def with_model(**choices: str) -> PINNAllenCahn:
    card = catalogue.workload("pinn/allen-cahn").card
    return PINNAllenCahn(msgspec.structs.replace(card, model=choices))


def network(workload: PINNAllenCahn) -> PeriodicPerceptron:
    torch.manual_seed(0)
    model = workload.build_model()
    assert isinstance(model, PeriodicPerceptron)
    return model


def solved(initial: Field, *, diffusion: float, time: float, steps: int) -> Field:
    last: Field = solve_allen_cahn(
        initial, diffusion=diffusion, time=time, steps=steps, every=steps
    )[0]
    return last


def test_solver_against_the_exact_growth_of_a_constant() -> None:
    # u' = 5u - 5u³ is Bernoulli's: 1 ÷ u² - 1 shrinks by e^-10 a unit of time.
    solution = solved(np.full(16, 0.1), diffusion=DIFFUSION, time=0.7, steps=256)
    exact = 1 / math.sqrt(1 + (1 / 0.1**2 - 1) * math.exp(-2 * REACTION * 0.7))
    assert solution == pytest.approx(exact, abs=1e-8)


def test_solver_against_the_exact_growth_of_a_small_wave() -> None:
    x = circle(64)
    solution = solved(1e-6 * np.sin(3 * np.pi * x), diffusion=0.02, time=0.5, steps=256)
    growth = math.exp((REACTION - 0.02 * (3 * np.pi) ** 2) * 0.5)
    assert solution == pytest.approx(1e-6 * growth * np.sin(3 * np.pi * x), abs=1e-13)


def test_solver_keeps_interfaces_where_they_balance() -> None:
    # tanh(x √(5 ÷ 2D)) stands still; two of them, far apart, hardly feel each other.
    x = circle(512)
    steepness = math.sqrt(REACTION / (2 * 0.002))
    pair = np.tanh(steepness * (x + 0.5)) * np.tanh(steepness * (0.5 - x))
    solution = solved(pair, diffusion=0.002, time=0.5, steps=256)
    assert solution == pytest.approx(pair, abs=1e-5)
    assert abs(solved(pair, diffusion=0.003, time=0.5, steps=256) - pair).max() > 0.05


def test_solution_has_converged_in_steps_and_points() -> None:
    _, places, coarse = unrounded_solution()
    fine = circle(4096)
    finer = solve_allen_cahn(
        initial_value(fine),
        diffusion=DIFFUSION,
        time=END_TIME,
        steps=2 * SOLVER_STEPS,
        every=2 * SOLVER_STEPS // (2 * HELD_OUT_TIMES),
    )[:, :: 4096 // len(places)]
    # The initial slope jumps at x = ±1, which coefficients that are cut off blur the longest.
    assert np.abs(coarse - finer).max() < 2e-4
    assert np.linalg.norm(coarse - finer) < 2e-5 * np.linalg.norm(finer)


def test_no_value_lies_where_processors_could_round_it_apart(splits: Splits) -> None:
    solution = unrounded_solution()[2]
    for values in (solution, initial_value(circle(INITIAL_POINTS))):
        steps = values / RESOLUTION
        to_boundary = 0.5 - np.abs(steps - np.rint(steps))
        assert to_boundary.min() * RESOLUTION > MARGIN
    # How far the last bits carry: the equation is odd, even and without a place of its own.
    grid = circle(2048)
    shifted = solve_allen_cahn(
        -np.roll(initial_value(grid), 352),
        diffusion=DIFFUSION,
        time=END_TIME,
        steps=SOLVER_STEPS,
        every=SOLVER_STEPS // (2 * HELD_OUT_TIMES),
    )
    back = -np.roll(shifted, -352, axis=1)[:, :: 2048 // (2 * HELD_OUT_PLACES)]
    assert 0 < np.abs(back - solution).max() < MARGIN / 50
    for name, odd in (("evaluation", 0), ("test", 1)):
        exact = torch.from_numpy(solution[odd::2, odd::2].copy()).flatten()
        assert (splits[name]["values"] - exact).abs().max() <= RESOLUTION / 2


def test_training_points_stand_in_their_slices(splits: Splits) -> None:
    training = splits["training"]
    (t, x), groups = training["points"].T, training["groups"]
    assert training["points"].dtype == training["values"].dtype == torch.float64
    assert groups.dtype == torch.int64
    counts = [INITIAL_POINTS] + SLICES * [POINTS_PER_SLICE]
    assert torch.bincount(groups).tolist() == counts
    assert len(training["points"]) == len(training["values"]) == sum(counts)
    assert torch.equal(t, groups * (END_TIME / SLICES))
    assert x.min() >= -1 and x.max() < 1
    steps = (x + 1) * PLACE_STEPS / 2
    assert torch.equal(steps, steps.round())
    first = groups == 0
    assert torch.equal(x[first], torch.arange(INITIAL_POINTS) * 2.0 / INITIAL_POINTS - 1)
    expected = x[first] ** 2 * torch.cos(math.pi * x[first])
    assert (training["values"][first] - expected).abs().max() <= RESOLUTION / 2
    assert not training["values"][~first].any()


def test_held_out_points_are_apart_and_after_the_start(splits: Splits) -> None:
    held_out = [splits[name]["points"] for name in ("evaluation", "test")]
    for points in held_out:
        assert points.shape == (HELD_OUT_TIMES * HELD_OUT_PLACES, 2)
        assert points[:, 0].min() > 0 and points[:, 0].max() <= END_TIME
        assert len(torch.unique(points[:, 0])) == HELD_OUT_TIMES
    together = torch.cat((splits["training"]["points"], *held_out))
    assert len(torch.unique(together, dim=0)) == len(together)
    for name in ("evaluation", "test"):
        assert set(splits[name]) == {"points", "values"}


def test_training_batch_marks_the_initial_points(workload: PINNAllenCahn, splits: Splits) -> None:
    data, indices = splits["training"], torch.tensor([3, INITIAL_POINTS, 3, 1000])
    stream = generator(1)
    points, targets = workload.training_batch(data, indices, stream)
    assert torch.equal(points, data["points"][indices])
    assert torch.equal(targets[:, 0], data["values"][indices])
    assert targets[:, 1].tolist() == [1, 0, 1, 0]
    assert targets.dtype == torch.float64
    assert torch.equal(stream.get_state(), generator(1).get_state())


def test_loss_against_residual_and_error_by_hand(workload: PINNAllenCahn) -> None:
    outputs = torch.randn(8, 4, dtype=torch.float64, generator=generator(0))
    targets = torch.randn(8, 2, dtype=torch.float64, generator=generator(1))
    targets[:, 1] = torch.arange(8) % 2
    losses = workload.per_example_loss(outputs, targets, 0.0)
    assert losses.shape == (8,) and losses.dtype == torch.float64
    for (u, u_t, _, u_xx), (value, initial), loss in zip(
        outputs.tolist(), targets.tolist(), losses.tolist(), strict=True
    ):
        residual = u_t - DIFFUSION * u_xx - 5 * u + 5 * u**3
        expected = INITIAL_WEIGHT * (u - value) ** 2 if initial else residual**2
        assert loss == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="no labels to smooth"):
        workload.per_example_loss(outputs, targets, 0.1)


def test_exact_solution_has_no_residual(workload: PINNAllenCahn) -> None:
    # The standing interface again, and u(t) of a constant: every term of the residual counts.
    x = torch.linspace(-1, 1, 50, dtype=torch.float64)
    steepness = math.sqrt(REACTION / (2 * DIFFUSION))
    u = torch.tanh(steepness * x)
    u_x = steepness * (1 - u * u)
    interface = torch.stack((u, torch.zeros_like(u), u_x, -2 * steepness * u * u_x), dim=1)
    v = (1 + torch.exp(-2 * REACTION * x)).rsqrt()
    growth = torch.stack((v, REACTION * (v - v**3), torch.zeros_like(v), torch.zeros_like(v)), 1)
    for outputs in (interface, growth):
        losses = workload.per_example_loss(outputs, torch.zeros(50, 2, dtype=torch.float64), 0.0)
        assert losses.max() < 1e-24


@pytest.mark.parametrize("activation", ["tanh", "sine"])
def test_derivatives_against_reverse_mode(activation: str) -> None:
    model = network(with_model(activation=activation))
    with torch.no_grad():  # biases start at zero
        for parameter in model.parameters():
            parameter.add_(0.1)
    points = torch.rand(7, 2, dtype=torch.float64, generator=generator(0)).requires_grad_()
    u = model.values(points)
    first = torch.autograd.grad(u.sum(), points, create_graph=True)[0]
    second = torch.autograd.grad(first[:, 1].sum(), points)[0]
    expected = torch.stack((u, first[:, 0], first[:, 1], second[:, 1]), dim=1)
    torch.testing.assert_close(model(points), expected, rtol=1e-10, atol=1e-12)
    assert (expected.abs() > 1e-3).any(dim=0).all()
    with torch.no_grad():  # as in zeroth-order methods
        torch.testing.assert_close(model(points), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(model.eval()(points), expected, rtol=1e-10, atol=1e-12)


def test_model_against_a_perceptron_by_hand(workload: PINNAllenCahn) -> None:
    model = network(workload)
    with torch.no_grad():  # they start at zero
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.uniform_(-1, 1)
    t, x = 0.1, 0.3
    k = np.pi * np.arange(1, model.harmonics + 1)
    h = np.concatenate(([2 * t / END_TIME - 1], np.cos(k * x), np.sin(k * x)))
    for layer in model.layers:
        assert isinstance(layer, JetLinear)
        h = np.tanh(layer.linear.weight.detach().numpy() @ h + layer.bias.detach().numpy())
    expected = model.head.linear.weight.detach().numpy() @ h + model.head.bias.item()
    u = model.values(torch.tensor([[t, x]], dtype=torch.float64))
    assert u.item() == pytest.approx(expected.item(), rel=1e-12)


def test_model_is_periodic_in_place_alone(workload: PINNAllenCahn) -> None:
    model = network(workload)
    points = torch.rand(9, 2, dtype=torch.float64, generator=generator(0))
    shift = torch.tensor([0.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(model(points), model(points - shift), rtol=0, atol=1e-10)
    assert not torch.allclose(model(points), model(points - shift.flip(0)), atol=1e-3)


def test_everything_is_float64(workload: PINNAllenCahn, splits: Splits) -> None:
    assert workload.card.precision == "float64"
    # What the harness builds its pace and its warm-up from.
    step = ReferenceStep(workload, torch.device("cpu"))
    step.run()
    assert all(p.dtype == torch.float64 for p in step._parameters)
    model = network(workload)
    assert not dict(model.named_buffers())
    assert all(p.dtype == torch.float64 for p in model.parameters())
    points, targets = workload.training_batch(splits["training"], torch.arange(4), generator(0))
    outputs = model(points)
    assert outputs.dtype == workload.per_example_loss(outputs, targets, 0.0).dtype == torch.float64


def test_model_can_be_differentiated_twice(workload: PINNAllenCahn) -> None:
    model = network(workload)
    inputs, targets = workload.synthetic_batch(32, generator(0))
    parameters = list(model.parameters())
    loss = workload.per_example_loss(model(inputs), targets, 0.0).mean()
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    assert all(gradient.any() for gradient in gradients)
    size = torch.stack([g.square().sum() for g in gradients]).sum()
    curvature = torch.autograd.grad(size, parameters)
    assert all(torch.isfinite(tensor).all() and tensor.any() for tensor in curvature)


def test_an_interior_point_alone_trains_all_but_the_last_bias_by_its_residual(
    workload: PINNAllenCahn,
) -> None:
    model = network(workload)
    points = torch.tensor([[0.1, 0.4]], dtype=torch.float64)
    workload.per_example_loss(model(points), torch.zeros_like(points), 0.0).sum().backward()
    u, u_t, _, u_xx = model(points)[0].tolist()
    residual = u_t - DIFFUSION * u_xx - 5 * u + 5 * u**3
    assert model.head.bias.grad is not None
    # The bias shifts u alone: d r² ÷ d b = 2 r (15u² - 5).
    assert model.head.bias.grad.item() == pytest.approx(2 * residual * (15 * u * u - 5), rel=1e-9)


class TenPercentMore(PeriodicPerceptron):
    """Answers with 1.1 of a known function of the points."""

    def values(self, points: Tensor) -> Tensor:
        return 1.1 * (points[:, 0] + points[:, 1])


def test_evaluate_is_one_ratio_over_all_points(workload: PINNAllenCahn) -> None:
    points = torch.randn(5000, 2, dtype=torch.float64, generator=generator(0))
    points[:100] *= 1e-9  # an average of ratios would be far off
    values = points.sum(dim=1)
    values[:100] = 0
    model = TenPercentMore(width=2, depth=1, harmonics=1, end_time=1.0, activation="tanh")
    metrics = workload.evaluate(model, {"points": points, "values": values})
    assert metrics == {"relative_l2": pytest.approx(0.1, rel=1e-6)}


def test_evaluate_in_inference_mode_changes_no_state(
    workload: PINNAllenCahn, splits: Splits
) -> None:
    model = network(workload).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        value = workload.evaluate(model, splits["test"])["relative_l2"]
    assert value > 0.3  # an untrained model knows nothing
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_model_comes_in_training_mode_from_the_global_seed(workload: PINNAllenCahn) -> None:
    model, twin = network(workload), network(workload)
    assert model.training
    names = dict(model.named_parameters())
    assert workload.head_parameters <= names.keys()
    assert all(torch.equal(names[name], tensor) for name, tensor in twin.named_parameters())
    assert sum(tensor.numel() for tensor in names.values()) == workload.card.parameters


@pytest.mark.parametrize(
    "choices", [{"width": "24"}, {"depth": "2"}, {"harmonics": "2"}, {"activation": "sine"}]
)
def test_each_choice_of_the_card_changes_the_model(
    workload: PINNAllenCahn, choices: dict[str, str]
) -> None:
    default, other = network(workload), network(with_model(**choices))
    inputs, _ = workload.synthetic_batch(4, generator(0))
    assert not torch.allclose(default(inputs), other(inputs))
    sizes = [sum(p.numel() for p in model.parameters()) for model in (default, other)]
    assert (sizes[0] == sizes[1]) == ("activation" in choices)


def test_a_choice_that_the_family_does_not_offer_is_refused() -> None:
    with pytest.raises(UsageError, match="relu"):
        with_model(activation="relu").build_model()


def test_synthetic_batch_looks_like_a_real_one(workload: PINNAllenCahn, splits: Splits) -> None:
    indices = torch.arange(INITIAL_POINTS - 10, INITIAL_POINTS + 90)
    real = workload.training_batch(splits["training"], indices, generator(0))
    synthetic = workload.synthetic_batch(100, generator(0))
    for ours, theirs in zip(synthetic, real, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    for _, targets in (real, synthetic):
        assert set(targets[:, 1].tolist()) == {0, 1}
    again = workload.synthetic_batch(100, generator(0))
    assert all(torch.equal(a, b) for a, b in zip(synthetic, again, strict=True))
