"""hedge/heston: the market, profit and risk by hand, the cells, and what other hedges achieve."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from harness import catalogue
from harness.cards import WorkloadCard
from workloads.hedge.heston import (
    COMPLEMENT,
    CORRELATION,
    COST,
    DATES,
    LONG_VARIANCE,
    MATURITY,
    PATHS,
    RISK_AVERSION,
    START,
    STRIKE,
    HestonHedge,
    almost_normal,
    entropic_risk,
    observe,
    profit,
)
from workloads.hedge.model import HedgeSettings, HedgingNetwork

Splits = dict[str, dict[str, Tensor]]
# Risks on the evaluation paths: of no hedge, of half a share held throughout, of Black and
# Scholes' delta at the long-run volatility and at that of the day.
LANDMARKS = {"nothing": 11.243, "half": 5.750, "delta": 3.493, "delta of the day": 3.443}


@pytest.fixture(scope="module")
def card() -> WorkloadCard:
    return catalogue.workload("hedge/heston").card


@pytest.fixture(scope="module")
def workload(card: WorkloadCard) -> HestonHedge:
    return HestonHedge(card)


@pytest.fixture(scope="module")
def splits(workload: HestonHedge) -> Splits:
    return workload.prepare()


def sum_of_squares(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([tensor.square().sum() for tensor in tensors]).sum()


def numpy_key() -> list[int]:
    keys: list[int] = np.random.get_state(legacy=False)["state"]["key"].tolist()
    return keys


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def black_scholes_delta(prices: Tensor, volatility: Tensor) -> Tensor:
    """Return the delta of the call at each date, float64 [N, DATES]."""
    left = MATURITY * torch.arange(DATES, 0, -1, dtype=torch.float64) / DATES
    deviation = volatility * left.sqrt()
    d1 = (prices[:, :-1].double() / STRIKE).log() / deviation + deviation / 2
    delta: Tensor = torch.special.ndtr(d1)
    return delta


def test_almost_normal_draws_are_exact_and_have_a_normals_moments() -> None:
    draws = almost_normal(np.random.RandomState(0), (400_000,))
    assert ((draws * (1 << 16)) % 1 == 0).all()
    assert abs(draws.mean()) < 5e-3
    assert draws.var() == pytest.approx(1, abs=8e-3)
    assert abs((draws**3).mean()) < 0.02
    assert (draws**4).mean() == pytest.approx(3 - 0.1, abs=0.06)  # Irwin-Hall: 3 - 6/(5·12)


def test_market_is_a_martingale_with_the_stated_variance(splits: Splits) -> None:
    assert pytest.approx(1) == CORRELATION**2 + COMPLEMENT**2
    prices = splits["training"]["prices"].double()
    variances = splits["training"]["variances"].double()
    assert (prices[:, 0] == START).all() and prices.min() > 0
    assert (variances[:, 0] == torch.tensor(0.04)).all() and variances.min() == 0
    n = len(prices)
    error = prices[:, -1].std().item() / n**0.5
    assert abs(prices[:, -1].mean().item() - START) < 4 * error
    log_returns = (prices[:, -1] / START).log()
    assert log_returns.var().item() == pytest.approx(LONG_VARIANCE * MATURITY, rel=0.06)
    # Volatility rises when the price falls.
    moves = torch.stack((prices.diff(dim=1).flatten(), variances.diff(dim=1).flatten()))
    assert -0.65 < torch.corrcoef(moves)[0, 1].item() < -0.45


def test_no_path_stands_in_two_splits(splits: Splits) -> None:
    paths = torch.cat([tensors["prices"] for tensors in splits.values()])
    assert len(torch.unique(paths, dim=0)) == sum(PATHS.values())


def test_profit_by_hand() -> None:
    positions = torch.rand(5, DATES, dtype=torch.float64, generator=generator(0))
    steps = torch.randn(5, DATES + 1, dtype=torch.float64, generator=generator(1))
    prices = START + 3 * steps.cumsum(dim=1)
    for held, path, found in zip(
        positions.tolist(), prices.tolist(), profit(positions, prices).tolist(), strict=True
    ):
        cash, before = 0.0, 0.0
        for position, price in zip([*held, 0.0], path, strict=True):
            cash -= (position - before) * price + COST * abs(position - before) * price
            before = position
        assert found == pytest.approx(cash - max(path[-1] - STRIKE, 0), rel=1e-11)


def test_mean_loss_is_least_at_the_entropic_risk_and_equals_it(workload: HestonHedge) -> None:
    outputs = torch.rand(64, DATES + 1, dtype=torch.float64, generator=generator(0))
    prices = 100 + torch.randn(64, DATES + 1, dtype=torch.float64, generator=generator(1))
    profits = profit(outputs[:, :-1], prices)
    mean = sum(math.exp(-RISK_AVERSION * p) for p in profits.tolist()) / 64
    risk = math.log(mean) / RISK_AVERSION
    assert entropic_risk(profits).item() == pytest.approx(risk, rel=1e-12)
    losses = {}
    for shift in (-0.1, 0.0, 0.1):
        outputs[:, -1] = risk + shift
        losses[shift] = workload.per_example_loss(outputs, prices, 0.0)
    assert losses[0.0].shape == (64,) and losses[0.0].dtype == torch.float64
    assert losses[0.0].mean().item() == pytest.approx(risk, rel=1e-12)
    assert min(losses[-0.1].mean(), losses[0.1].mean()) > losses[0.0].mean()
    p, level = profits[3].item(), risk + 0.1
    by_hand = level + (math.exp(-RISK_AVERSION * (p + level)) - 1) / RISK_AVERSION
    assert losses[0.1][3].item() == pytest.approx(by_hand, rel=1e-12)


def test_positions_know_the_past_only(workload: HestonHedge) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    known, _ = workload.synthetic_batch(4, generator(0))
    outputs = model(known)
    assert outputs.shape == (4, DATES + 1)
    assert outputs[:, :-1].min() > 0 and outputs[:, :-1].max() < 1
    for date in range(DATES):
        changed = known.clone()
        changed[:, date] += 1
        others = model(changed)
        assert torch.equal(others[:, :date], outputs[:, :date])
        assert (others[:, date:-1] != outputs[:, date:-1]).any(dim=0).all()
        assert torch.equal(others[:, -1], outputs[:, -1])


def test_what_is_known_at_a_date_by_hand(workload: HestonHedge, splits: Splits) -> None:
    data, indices = splits["training"], torch.tensor([7, 0, 7])
    known, prices = workload.training_batch(data, indices, generator(0))
    assert known.shape == (3, DATES, 3) and torch.equal(prices, data["prices"][indices])
    for date in range(DATES):
        price, variance = data["prices"][7, date].item(), data["variances"][7, date].item()
        expected = [(price - 100) / 8, variance / 0.04 - 1, 1 - date / DATES]
        assert known[0, date].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    prices.zero_()
    assert (data["prices"][indices] != 0).all()


def test_landmarks(splits: Splits, card: WorkloadCard) -> None:
    # The card's text states these: what no hedge, half a share and Black and Scholes achieve.
    prices = splits["evaluation"]["prices"].double()
    volatility = splits["evaluation"]["variances"][:, :-1].double().clamp_min(1e-3).sqrt()
    nothing = torch.zeros(len(prices), DATES, dtype=torch.float64)
    flat = torch.full_like(nothing, LONG_VARIANCE**0.5)
    found = {
        "nothing": entropic_risk(profit(nothing, prices)).item(),
        "half": entropic_risk(profit(nothing + 0.5, prices)).item(),
        "delta": entropic_risk(profit(black_scholes_delta(prices, flat), prices)).item(),
        "delta of the day": entropic_risk(
            profit(black_scholes_delta(prices, volatility), prices)
        ).item(),
    }
    assert found == pytest.approx(LANDMARKS, abs=2e-3)
    assert card.metric.target < min(LANDMARKS.values())
    for value in LANDMARKS.values():
        assert f"{value:.2f}" in card.evidence["target"]


def test_evaluate_by_hand(workload: HestonHedge, splits: Splits) -> None:
    class HoldsWhatIsLeft(nn.Module):
        def forward(self, known: Tensor) -> Tensor:
            return torch.cat((known[:, :, 2] / 2, torch.full((len(known), 1), 5.0)), dim=1)

    data = {name: tensor[:1500] for name, tensor in splits["test"].items()}
    held = [(1 - date / DATES) / 2 for date in range(DATES)]
    total = 0.0
    for path in data["prices"].tolist():
        result, before = -max(path[-1] - 100, 0.0), 0.0
        for position, now, then in zip(held, path[:-1], path[1:], strict=True):
            result += position * (then - now) - COST * abs(position - before) * now
            before = position
        result -= COST * before * path[-1]
        total += math.exp(-RISK_AVERSION * result)
    with torch.inference_mode():
        metrics = workload.evaluate(HoldsWhatIsLeft(), data)
    assert metrics == {"risk": pytest.approx(math.log(total / 1500) / RISK_AVERSION, rel=1e-6)}


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_cells_against_torch(cell: str) -> None:
    torch.manual_seed(0)
    settings = HedgeSettings(width=7, cell=cell)  # type: ignore[arg-type]
    model = HedgingNetwork(3, settings).double()
    theirs = (nn.LSTM if cell == "lstm" else nn.GRU)(3, 7, batch_first=True).double()
    # torch's order of an LSTM's gates is input, forget, proposal, output.
    order = torch.arange(28).view(4, 7)[[0, 1, 3, 2]].flatten() if cell == "lstm" else slice(None)
    weights = dict(theirs.named_parameters())
    with torch.no_grad():
        weights["weight_ih_l0"].copy_(model.read.weight[order])
        weights["bias_ih_l0"].copy_(model.read.bias[order])
        weights["weight_hh_l0"].copy_(model.recur.weight[order])
        weights["bias_hh_l0"].zero_()
    known = torch.randn(5, DATES, 3, dtype=torch.float64, generator=generator(0))
    states, _ = theirs(known)
    expected = torch.sigmoid(states @ model.head.weight[0] + model.head.bias)
    torch.testing.assert_close(model(known)[:, :-1], expected)


def test_each_choice_changes_the_model() -> None:
    known = torch.randn(5, DATES, 3, generator=generator(0))

    def positions(**choices: object) -> Tensor:
        torch.manual_seed(0)
        settings = HedgeSettings(**choices)  # type: ignore[arg-type]
        found: Tensor = HedgingNetwork(3, settings)(known)
        return found

    usual = positions()
    for choices in ({"cell": "gru"}, {"cell": "elman"}, {"width": 32}, {"forget_bias": 0.0}):
        assert not torch.allclose(positions(**choices), usual)


def test_model_can_be_differentiated_twice(workload: HestonHedge) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    inputs, targets = workload.synthetic_batch(8, generator(0))
    parameters = list(model.parameters())
    loss = workload.per_example_loss(model(inputs), targets, 0.0).mean()
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    curvature = torch.autograd.grad(sum_of_squares(gradients), parameters)
    for tensors in (gradients, curvature):
        assert all(torch.isfinite(tensor).all() and tensor.any() for tensor in tensors)


def test_evaluate_in_inference_mode_changes_no_state(workload: HestonHedge, splits: Splits) -> None:
    torch.manual_seed(0)
    model = workload.build_model().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        risk = workload.evaluate(model, splits["test"])["risk"]
    assert LANDMARKS["delta"] < risk < LANDMARKS["nothing"] * 1.2
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_model_comes_in_training_mode_from_the_global_seed(
    workload: HestonHedge, card: WorkloadCard
) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    torch.manual_seed(0)
    twin = workload.build_model()
    assert model.training
    names = dict(model.named_parameters())
    assert workload.head_parameters <= names.keys()
    assert sum(p.numel() for p in model.parameters()) == card.parameters
    assert all(torch.equal(names[name], tensor) for name, tensor in twin.named_parameters())


def test_synthetic_batch_looks_like_a_real_one(workload: HestonHedge, splits: Splits) -> None:
    real = workload.training_batch(splits["training"], torch.arange(32), generator(0))
    synthetic = workload.synthetic_batch(32, generator(0))
    for ours, theirs in zip(synthetic, real, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    assert torch.equal(synthetic[0][:, :, 2], real[0][:, :, 2])
    again = workload.synthetic_batch(32, generator(0))
    assert all(torch.equal(a, b) for a, b in zip(synthetic, again, strict=True))
    known, prices = observe(real[1], torch.zeros_like(real[1]))
    assert torch.equal(prices, real[1]) and (known[:, :, 1] == -1).all()
