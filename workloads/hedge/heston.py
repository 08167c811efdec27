"""hedge/heston: a network hedges a call where volatility moves and trading costs money.

Buehler, Gonon, Teichmann & Wood 2019, "Deep Hedging" (1802.03042): the network holds a position
in the asset between dates; at the last one the call is paid out, and what counts is a convex
risk of profit and loss. Here it is the entropic risk, by its form as an optimised certainty
equivalent, which is a mean over paths (their section 3.3). The market is Heston's (1993), which
a position in the asset alone cannot hedge perfectly. Nothing is downloaded.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from harness.workload import Workload
from workloads.hedge.model import HedgeSettings, HedgingNetwork

if TYPE_CHECKING:
    from numpy.random import RandomState
    from numpy.typing import NDArray

# The market, in years and per cent of the first price; no drift, no interest.
START = STRIKE = 100.0
MATURITY = 0.125
DATES = 16  # at which the position can change, the first of them at time 0
STEPS_PER_DATE = 4  # of the simulation
REVERSION = 2.0
LONG_VARIANCE = START_VARIANCE = 0.04
VOLATILITY_OF_VARIANCE = 0.75
CORRELATION = -0.6  # and its complement 0.8 is exact in decimals
COMPLEMENT = 0.8
COST = 1 / 512  # of the value traded, also where the position is opened and closed
RISK_AVERSION = 0.5  # a per cent

PATHS = {"training": 32_768, "evaluation": 4_096, "test": 4_096}
DATA_SEED = 1802_03042
UNIFORMS = 12  # in a sum that stands for a normal
EVALUATION_BATCH = 1024

# What the network reads has a spread of about 1.
PRICE_SCALE = 0.125
VARIANCE_SCALE = 25.0
FEATURES = 3


def almost_normal(random: "RandomState", shape: tuple[int, ...]) -> "NDArray[Any]":
    """Return float64 draws of mean 0 and variance 1 that are exact in binary.

    Sums of twelve uniform numbers (Irwin-Hall). A simulation by Euler's steps that is to be
    right in law asks only for the moments of its increments (Kloeden & Platen 1992, chapter
    14); a normal would take a logarithm, whose last bit depends on the machine.
    """
    import numpy as np

    total = np.zeros(shape, dtype=np.int64)
    for _ in range(UNIFORMS):
        total += random.randint(1 << 16, size=shape)
    return (total + UNIFORMS // 2 - (UNIFORMS << 15)) / (
        1 << 16
    )  # of cells' middles, so 0 on average


def simulate(random: "RandomState", paths: int) -> tuple["NDArray[Any]", "NDArray[Any]"]:
    """Return prices and variances at the dates and maturity, float64 [paths, DATES + 1] each.

    Euler's steps with full truncation (Lord, Koekkoek & van Dijk 2010), of the price itself
    and not of its logarithm: sums, products and square roots, which IEEE rounds alike on every
    processor.
    """
    import numpy as np

    dt = MATURITY / (DATES * STEPS_PER_DATE)
    price = np.full(paths, START)
    variance = np.full(paths, START_VARIANCE)
    prices, variances = [price], [variance]
    for _ in range(DATES):
        for _ in range(STEPS_PER_DATE):
            first, second = almost_normal(random, (2, paths))
            positive = np.maximum(variance, 0.0)
            spread = np.sqrt(positive * dt)
            noise = CORRELATION * first + COMPLEMENT * second
            price = price + price * spread * first
            variance = (
                variance
                + REVERSION * (LONG_VARIANCE - positive) * dt
                + VOLATILITY_OF_VARIANCE * spread * noise
            )
        prices.append(price)
        variances.append(np.maximum(variance, 0.0))
    return np.stack(prices, axis=1), np.stack(variances, axis=1)


def profit(positions: Tensor, prices: Tensor) -> Tensor:
    """Return profit and loss [B] of a short call hedged by `positions` [B, DATES].

    What `prices` [B, DATES + 1] gain on the positions, less the payoff and the costs of
    opening, changing and closing them. Without the premium, so a loss on average.
    """
    gains = (positions * prices.diff(dim=1)).sum(dim=1)
    payoff = (prices[:, -1] - STRIKE).clamp_min(0)
    nothing = torch.zeros_like(positions[:, :1])
    trades = torch.cat((nothing, positions, nothing), dim=1).diff(dim=1).abs()
    return gains - payoff - COST * (trades * prices).sum(dim=1)


def entropic_risk(profits: Tensor) -> Tensor:
    """Return log E exp(-λ profit) ÷ λ over the paths [N]: the premium that makes up for them."""
    n = torch.tensor(float(len(profits)), dtype=profits.dtype, device=profits.device)
    return (torch.logsumexp(-RISK_AVERSION * profits, dim=0) - n.log()) / RISK_AVERSION


class HestonHedge(Workload):
    """Trains positions and the level on simulated paths; the metric is the risk in per cent."""

    head_parameters: ClassVar[frozenset[str]] = frozenset({"head.weight", "head.bias"})

    def prepare(self) -> dict[str, dict[str, Tensor]]:
        """Return the splits: `prices` and `variances` float32 [N, DATES + 1].

        The `RandomState` streams are frozen by NumPy (NEP 19), `Generator`'s are not.
        """
        import numpy as np

        random = np.random.RandomState(DATA_SEED)
        splits = {}
        for name, paths in PATHS.items():
            prices, variances = simulate(random, paths)
            splits[name] = {
                "prices": torch.from_numpy(prices.astype(np.float32)),
                "variances": torch.from_numpy(variances.astype(np.float32)),
            }
        return splits

    def build_model(self) -> nn.Module:
        return HedgingNetwork(FEATURES, self.settings(HedgeSettings))

    def training_batch(
        self,
        data: Mapping[str, Tensor],
        indices: Tensor,
        generator: torch.Generator,  # noqa: ARG002 - the paths are drawn already
    ) -> tuple[Tensor, Tensor]:
        """Return what is known at each date [B, DATES, 3], and prices [B, DATES + 1], float32."""
        return observe(
            data["prices"].index_select(0, indices), data["variances"].index_select(0, indices)
        )

    def synthetic_batch(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return random walks of the price with random variances, on the generator's device."""
        device, shape = generator.device, (batch_size, DATES + 1)
        steps = torch.randn(shape, generator=generator, device=device)
        variances = torch.rand(shape, generator=generator, device=device) / VARIANCE_SCALE
        return observe(START + steps.cumsum(dim=1), variances)

    def per_example_loss(
        self,
        outputs: Tensor,
        targets: Tensor,
        label_smoothing: float,  # noqa: ARG002 - there are no classes to smooth
    ) -> Tensor:
        """Return level + (exp(-λ (profit + level)) - 1) ÷ λ of each path, shape [B].

        Its mean is least, over the level, at the entropic risk, and is this risk there.
        """
        positions, level = outputs[:, :-1], outputs[:, -1]
        short = -RISK_AVERSION * (profit(positions, targets) + level)
        return level + torch.expm1(short) / RISK_AVERSION

    def evaluate(self, model: nn.Module, data: Mapping[str, Tensor]) -> dict[str, float]:
        """Return `risk`, the entropic risk of the hedge in per cent of the first price."""
        profits = []
        for prices, variances in zip(
            data["prices"].split(EVALUATION_BATCH),
            data["variances"].split(EVALUATION_BATCH),
            strict=True,
        ):
            known, targets = observe(prices, variances)
            profits.append(profit(model(known)[:, :-1].double(), targets.double()))
        return {"risk": entropic_risk(torch.cat(profits)).item()}


def observe(prices: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a hedger knows at each date: scaled price, variance and the time left."""
    left = torch.arange(DATES, 0, -1, device=prices.device, dtype=prices.dtype) / DATES
    known = (
        (prices[:, :-1] - STRIKE) * PRICE_SCALE,
        variances[:, :-1] * VARIANCE_SCALE - 1,
        left.expand(len(prices), DATES),
    )
    return torch.stack(known, dim=2), prices
