"""fno/burgers: the solver against the exact solution, the rounding, model and metric by hand."""

import math

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness import catalogue
from harness.errors import UsageError
from workloads.fno.burgers import (
    DATA_SEED,
    FINAL_TIME,
    INITIAL_MODES,
    POINTS,
    RESOLUTION,
    SOLVER_POINTS,
    SOLVER_STEPS,
    SPLIT_SIZES,
    VISCOSITY,
    FNOBurgers,
    random_fields,
    solve_burgers,
    unrounded_pairs,
)
from workloads.fno.model import FNO, FourierLayer, truncated_dft

Fields = NDArray[np.float64]
Splits = dict[str, dict[str, Tensor]]

# The least distance of a value before rounding from a boundary that the file promises.
MARGIN = 1e-11


@pytest.fixture(scope="module")
def workload() -> FNOBurgers:
    return FNOBurgers(catalogue.workload("fno/burgers").card)


@pytest.fixture(scope="module")
def pairs() -> tuple[Fields, Fields]:
    return unrounded_pairs()


@pytest.fixture(scope="module")
def splits(workload: FNOBurgers) -> Splits:
    return workload.prepare()


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def with_model(**choices: str) -> FNOBurgers:
    card = catalogue.workload("fno/burgers").card
    return FNOBurgers(msgspec.structs.replace(card, model=choices))


def fields(number: int, points: int) -> Fields:
    return random_fields(np.random.RandomState(DATA_SEED), number, points)


def cole_hopf(initial: Fields, viscosity: float, time: float) -> Fields:
    """Return Burgers' exact solution on the grid of `initial` [B, N].

    u = -2ν φ_x ÷ φ, where φ solves the heat equation from exp(-∫ u0 ÷ 2ν).
    """
    points = initial.shape[1]
    wave = 2 * np.pi * np.arange(points // 2 + 1)
    integral = np.fft.rfft(initial, axis=1)
    integral[:, 1:] /= 1j * wave[1:]
    integral[:, 0] = 0
    phi = np.fft.rfft(np.exp(-np.fft.irfft(integral, n=points, axis=1) / (2 * viscosity)), axis=1)
    phi *= np.exp(-viscosity * wave**2 * time)
    slope = np.fft.irfft(1j * wave * phi, n=points, axis=1)
    solution: Fields = -2 * viscosity * slope / np.fft.irfft(phi, n=points, axis=1)
    return solution


def test_solver_against_the_exact_solution_of_cole_and_hopf() -> None:
    fine = 1024
    initial = fields(32, fine)
    every = fine // SOLVER_POINTS
    solved = solve_burgers(
        initial[:, ::every], viscosity=VISCOSITY, time=FINAL_TIME, steps=SOLVER_STEPS
    )
    exact = cole_hopf(initial, VISCOSITY, FINAL_TIME)[:, ::every]
    # Far less than rounding takes off, and the fields themselves are far from that close.
    assert np.abs(solved - exact).max() < RESOLUTION / 20
    assert np.abs(initial[:, ::every] - exact).max() > 0.3


def test_solver_is_of_fourth_order_in_time() -> None:
    initial = fields(4, SOLVER_POINTS)

    def solved(steps: int) -> Fields:
        return solve_burgers(initial, viscosity=VISCOSITY, time=FINAL_TIME, steps=steps)

    exact = solved(1024)
    errors = [np.abs(solved(steps) - exact).max() for steps in (64, 128)]
    assert 12 < errors[0] / errors[1] < 20


def test_solver_conserves_momentum_and_loses_energy() -> None:
    initial = fields(8, SOLVER_POINTS)
    solved = solve_burgers(initial + 0.25, viscosity=VISCOSITY, time=0.5, steps=64)
    assert solved.mean(axis=1) == pytest.approx(0.25, abs=1e-13)
    assert (solved.var(axis=1) < initial.var(axis=1)).all()


def test_initial_fields_have_the_stated_covariance() -> None:
    random = np.random.RandomState(0)
    drawn = random_fields(random, 20_000, 2 * INITIAL_MODES + 2)
    modes = np.fft.rfft(drawn, axis=1) / drawn.shape[1]
    for mode in range(INITIAL_MODES + 2):
        power = (np.abs(modes[:, mode]) ** 2).mean()
        if 1 <= mode <= INITIAL_MODES:
            expected = 12.5**2 / ((2 * np.pi * mode) ** 2 + 25) ** 2
            assert power == pytest.approx(expected, rel=0.04)
        else:
            assert power < 1e-30


def test_no_value_lies_where_processors_could_round_it_apart(
    pairs: tuple[Fields, Fields],
) -> None:
    for values in pairs:
        steps = values / RESOLUTION
        to_boundary = 0.5 - np.abs(steps - np.rint(steps))
        assert to_boundary.min() * RESOLUTION > MARGIN
    # How far the last bits carry: solve a shifted field, whose every sum is rounded otherwise.
    initial = fields(64, SOLVER_POINTS)
    shift = 2 * 11
    solved = solve_burgers(
        np.roll(initial, shift, axis=1), viscosity=VISCOSITY, time=FINAL_TIME, steps=SOLVER_STEPS
    )
    back = np.roll(solved[:, ::2], -shift // 2, axis=1)
    apart = np.abs(back - pairs[1][:64]).max()
    assert 0 < apart < MARGIN / 100


def test_splits_have_the_stated_shapes_and_exact_values(splits: Splits) -> None:
    for name, tensors in splits.items():
        for tensor in tensors.values():
            assert tensor.shape == (SPLIT_SIZES[name], POINTS) and tensor.dtype == torch.float32
            multiples = tensor.double() / RESOLUTION
            assert torch.equal(multiples, multiples.round())
            assert not torch.signbit(tensor[tensor == 0]).any()
        # No target is so small that its rounding counts in its relative error.
        sizes = tensors["final"].double().square().mean(dim=1).sqrt()
        assert sizes.min() > 100 * RESOLUTION


def test_no_field_stands_twice(splits: Splits) -> None:
    initial = torch.cat([tensors["initial"] for tensors in splits.values()])
    assert len(torch.unique(initial, dim=0)) == len(initial)


def test_splits_hold_solutions_of_their_fields(splits: Splits) -> None:
    # From the rounded fields, interpolated by their Fourier series: examples and ids agree.
    for tensors in splits.values():
        coarse = tensors["initial"][-16:].double().numpy()
        modes = np.fft.rfft(coarse, axis=1)[:, : INITIAL_MODES + 1]
        fine: Fields = np.fft.irfft(modes, n=1024, axis=1) * 1024 / POINTS
        exact = cole_hopf(fine - fine.mean(axis=1, keepdims=True), VISCOSITY, FINAL_TIME)
        final = tensors["final"][-16:].double().numpy()
        assert np.abs(exact[:, :: 1024 // POINTS] - final).max() < 10 * RESOLUTION


def test_training_batch_is_the_examples_and_draws_nothing(
    workload: FNOBurgers, splits: Splits
) -> None:
    data, indices = splits["training"], torch.tensor([3, 1023, 3, 100])
    stream = generator(1)
    inputs, targets = workload.training_batch(data, indices, stream)
    assert torch.equal(inputs, data["initial"][indices])
    assert torch.equal(targets, data["final"][indices])
    assert torch.equal(stream.get_state(), generator(1).get_state())


def test_loss_against_relative_l2_by_hand(workload: FNOBurgers) -> None:
    outputs, targets = torch.randn(2, 5, 7, dtype=torch.float64, generator=generator(0))
    losses = workload.per_example_loss(outputs, targets, 0.0)
    assert losses.shape == (5,) and losses.dtype == torch.float64
    for row, truth, loss in zip(outputs.tolist(), targets.tolist(), losses.tolist(), strict=True):
        error = math.sqrt(sum((a - b) ** 2 for a, b in zip(row, truth, strict=True)))
        assert loss == pytest.approx(error / math.sqrt(sum(b * b for b in truth)), rel=1e-12)
    with pytest.raises(ValueError, match="no labels to smooth"):
        workload.per_example_loss(outputs, targets, 0.1)


class TenPercentMore(nn.Module):
    """Answers with the input, of which every fourth example is a tenth too large."""

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = inputs.clone()
        outputs[::4] *= 1.1
        return outputs


def test_evaluate_is_the_mean_over_examples(workload: FNOBurgers) -> None:
    # 200 examples: a whole batch and a part of one, sizes over many orders of magnitude.
    target = torch.randn(200, POINTS, generator=generator(0)) * torch.logspace(-6, 6, 200)[:, None]
    metrics = workload.evaluate(TenPercentMore(), {"initial": target, "final": target})
    assert metrics == {"relative_l2": pytest.approx(0.025, rel=1e-6)}


def test_evaluate_in_inference_mode_changes_no_state(workload: FNOBurgers, splits: Splits) -> None:
    torch.manual_seed(0)
    model = workload.build_model().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        value = workload.evaluate(model, splits["test"])["relative_l2"]
    assert value > 0.3  # an untrained model knows nothing
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    # What inference mode made must not stay behind for training.
    inputs, targets = workload.synthetic_batch(2, generator(0))
    workload.per_example_loss(model(inputs), targets, 0.0).mean().backward()


def test_truncated_dft_against_torch() -> None:
    x = torch.randn(20, 3, dtype=torch.float64, generator=generator(0))
    dft, inverse = truncated_dft(20, 8, x)
    expected = torch.fft.rfft(x, dim=0)[:8]
    torch.testing.assert_close(20 * (dft @ x)[:8], expected.real)
    torch.testing.assert_close(20 * (dft @ x)[8:], expected.imag)
    expected = torch.cat((expected, torch.zeros(3, 3)))
    torch.testing.assert_close(inverse @ (dft @ x), torch.fft.irfft(expected, n=20, dim=0))


def test_fourier_layer_against_torch_fft() -> None:
    torch.manual_seed(0)
    layer = FourierLayer(width=5, modes=4).double()
    x = torch.randn(16, 3, 5, dtype=torch.float64)
    dft, inverse = truncated_dft(16, 4, x)
    modes = torch.fft.rfft(x, dim=0)[:4]
    weight = torch.view_as_complex(layer.weight.detach())
    mixed = torch.einsum("kbi,oik->kbo", modes, weight)
    expected = torch.fft.irfft(mixed, n=16, dim=0) + layer.pointwise(x)
    torch.testing.assert_close(layer(x, dft, inverse), expected)


def test_model_against_its_formula_by_fft(workload: FNOBurgers) -> None:
    torch.manual_seed(0)
    model = workload.build_model().double()
    assert isinstance(model, FNO)
    inputs = torch.randn(3, POINTS, dtype=torch.float64)
    x = model.lift(inputs[:, :, None])  # examples first, as in the paper
    for number, layer in enumerate(model.layers):
        assert isinstance(layer, FourierLayer)
        x = nn.functional.gelu(x) if number else x
        modes = torch.fft.rfft(x, dim=1)[:, : model.modes]
        mixed = torch.einsum("bki,oik->bko", modes, torch.view_as_complex(layer.weight.detach()))
        x = torch.fft.irfft(mixed, n=POINTS, dim=1) + layer.pointwise(x)
    expected = model.head(nn.functional.gelu(model.projection(x)))[:, :, 0]
    torch.testing.assert_close(model(inputs), expected)


def test_model_shifts_with_its_input_and_takes_other_grids(workload: FNOBurgers) -> None:
    torch.manual_seed(0)
    model = workload.build_model().double()
    inputs = torch.from_numpy(fields(3, 2 * POINTS))
    torch.testing.assert_close(model(inputs.roll(5, dims=1)), model(inputs).roll(5, dims=1))
    # The function is much the same on half the points; aliasing is all that differs.
    torch.testing.assert_close(model(inputs[:, ::2]), model(inputs)[:, ::2], atol=0.01, rtol=0)
    with pytest.raises(ValueError, match="12 modes need 24 points, got 23"):
        model(inputs[:, :23])


def test_every_parameter_gets_a_gradient_and_the_model_a_second_one(workload: FNOBurgers) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    inputs, targets = workload.synthetic_batch(2, generator(0))
    parameters = dict(model.named_parameters())
    loss = workload.per_example_loss(model(inputs), targets, 0.0).mean()
    gradients = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
    for name, gradient in zip(parameters, gradients, strict=True):
        if name.endswith("layers.0.weight"):
            assert not gradient[:, :, 0, 1].any()  # a real signal's constant part has no phase
            assert gradient[:, :, 1:].all() and gradient[:, :, 0, 0].all()
        assert gradient.any()
    size = torch.stack([g.square().sum() for g in gradients]).sum()
    curvature = torch.autograd.grad(size, list(parameters.values()))
    assert all(torch.isfinite(tensor).all() and tensor.any() for tensor in curvature)


def test_model_comes_in_training_mode_from_the_global_seed(workload: FNOBurgers) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    torch.manual_seed(0)
    twin = workload.build_model()
    assert model.training
    names = dict(model.named_parameters())
    assert workload.head_parameters <= names.keys()
    assert all(torch.equal(names[name], tensor) for name, tensor in twin.named_parameters())
    assert sum(tensor.numel() for tensor in names.values()) == workload.card.parameters
    assert all(tensor.dtype == torch.float32 for tensor in names.values())
    assert not dict(model.named_buffers())


@pytest.mark.parametrize(
    "choices",
    [
        {"width": "16"},
        {"modes": "8"},
        {"depth": "3"},
        {"projection_width": "32"},
        {"activation": "tanh"},
        {"activation": "silu"},
    ],
)
def test_each_choice_of_the_card_changes_the_model(
    workload: FNOBurgers, choices: dict[str, str]
) -> None:
    torch.manual_seed(0)
    default = workload.build_model()
    torch.manual_seed(0)
    other = with_model(**choices).build_model()
    inputs, _ = workload.synthetic_batch(2, generator(0))
    assert not torch.allclose(default(inputs), other(inputs))
    sizes = [sum(p.numel() for p in model.parameters()) for model in (default, other)]
    assert (sizes[0] == sizes[1]) == ("activation" in choices)


def test_a_choice_that_the_family_does_not_offer_is_refused() -> None:
    with pytest.raises(UsageError, match="relu"):
        with_model(activation="relu").build_model()


def test_synthetic_batch_looks_like_a_real_one(workload: FNOBurgers, splits: Splits) -> None:
    real = workload.training_batch(splits["training"], torch.arange(16), generator(0))
    synthetic = workload.synthetic_batch(16, generator(0))
    for ours, theirs in zip(synthetic, real, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    again = workload.synthetic_batch(16, generator(0))
    assert all(torch.equal(a, b) for a, b in zip(synthetic, again, strict=True))
    assert not torch.equal(*synthetic)
