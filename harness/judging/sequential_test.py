"""A test of paired log ratios that may be looked at after every pair, and stopped at any.

If two submissions do not differ, the two runs of a pair are exchangeable: given how far apart
they lie, either is the quicker with chance one half, whatever the noise looks like (skewed,
heavy-tailed, drifting from pair to pair). So a player who stakes part of his wealth on the sign
of each log ratio, the more the larger it is, plays a fair game. By Ville's inequality his wealth
ever reaches 1/α with chance α at most: it is an e-process for symmetry (Ramdas, Ruf, Larsson &
Koolen 2020, 2009.03167; Vovk & Wang 2022, "Nonparametric e-tests of symmetry", 2208.08925).

A log ratio x multiplies the wealth by 2 ÷ (1 + exp(−λ x/s)), the best odds against a normal
alternative, with s the mean magnitude so far. Which λ is best depends on the effect, so the
wealth is spread evenly over `_STAKES`, on both signs. At α = 0.01 nine pairs decide at best, and
no test that trusts in exchangeability alone can with fewer than eight.

An e-process for the t statistic (Lai 1976; Wang & Ramdas 2023, 2310.03722) decides a little
sooner, but holds for normal noise only: a machine with two clock speeds is enough to break it.
"""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MOST_PAIRS = 1000
POWER = 0.9

_STAKES = np.array([0.5, 1.0, 2.0, 4.0, 8.0, 16.0])
_CENTRES = 128  # tried for a limit, twice
_FUTURES = 200


def log_evidence(log_ratios: Array) -> Array:
    """Return the logarithm of the wealth after each pair; pairs run along the last axis.

    A difference is shown at level α once the wealth has reached 1/α. A zero stakes nothing.
    """
    scaled = _scaled(log_ratios)
    both = np.logaddexp(_log_wealth(scaled), _log_wealth(-scaled))
    return np.asarray(both - math.log(2))


def anytime_p(log_ratios: Array) -> float:
    """Return 1 ÷ the largest wealth so far: a p-value whenever it is looked at."""
    if log_ratios.size == 0:
        return 1.0
    return min(1.0, math.exp(-float(log_evidence(log_ratios).max())))


def fewest_pairs(alpha: float) -> int:
    """Return after how many pairs a difference can be shown at the earliest."""
    evidence = log_evidence(np.ones(MOST_PAIRS))
    return int(np.argmax(evidence >= -math.log(alpha))) + 1


def confidence_limits(lows: Array, highs: Array, alpha: float) -> tuple[float, float]:
    """Return limits that hold the centre of the log ratios, at all times at once, with 1 − α.

    A centre is left out once the log ratios about it, taken as symmetric, have made a player
    rich. Where only bounds of some log ratios are known, the lower limit follows from the lower
    bounds alone and the upper one from the upper. Infinite where nothing is known yet.
    """
    finite = np.concatenate([lows[np.isfinite(lows)], highs[np.isfinite(highs)]])
    if finite.size == 0:
        return -math.inf, math.inf
    middle = float(np.median(finite))
    reach = 2 * (float(np.ptp(finite)) or abs(middle) or 1.0)
    centres = np.linspace(middle - reach, middle + reach, _CENTRES)
    # The set may be narrow where one log ratio lies far off; it is not far from the data.
    centres = np.unique(np.concatenate([centres, finite, [middle]]))
    kept = centres[~_left_out(centres, lows, highs, alpha)]
    if kept.size == 0:  # the early pairs and the late ones have no centre in common
        return -math.inf, math.inf
    low, high = float(kept[0]), float(kept[-1])
    if low > centres[0]:
        low = _edge(float(centres[centres < low][-1]), low, lows, highs, alpha)
    if high < centres[-1]:
        high = _edge(float(centres[centres > high][0]), high, lows, highs, alpha)
    return (
        low if low > centres[0] else -math.inf,
        high if high < centres[-1] else math.inf,
    )


def pairs_to_show(log_ratios: Array, effect: float, alpha: float) -> int | None:
    """Return how many pairs more show an effect with chance `POWER`, were there one from now on.

    `effect` is a log ratio > 0; the noise is taken to be normal with the spread seen so far.
    None where there is none to see, or more than MOST_PAIRS would be needed.
    """
    if log_ratios.size < 2:
        return None
    spread = float(log_ratios.std(ddof=1))
    sign = -1.0 if np.median(log_ratios) < 0 else 1.0
    random = np.random.default_rng(0)
    seen = np.broadcast_to(log_ratios, (_FUTURES, log_ratios.size))
    more = 32
    while True:
        futures = random.normal(sign * effect, spread, (_FUTURES, more))
        evidence = log_evidence(np.concatenate([seen, futures], axis=1))[:, log_ratios.size :]
        shown = np.maximum.accumulate(evidence, axis=1) >= -math.log(alpha)
        enough = shown.mean(axis=0) >= POWER
        if enough.any():
            return int(np.argmax(enough)) + 1
        if more >= MOST_PAIRS:
            return None
        more = min(4 * more, MOST_PAIRS)


def _scaled(log_ratios: Array) -> Array:
    """Divide by the mean magnitude so far, which says nothing of the signs."""
    magnitudes = np.abs(log_ratios).cumsum(axis=-1) / np.arange(1, log_ratios.shape[-1] + 1)
    return np.asarray(log_ratios / np.where(magnitudes > 0, magnitudes, 1.0))


def _log_wealth(scaled: Array) -> Array:
    """Return the wealth of those who stake on positive signs, in logarithms."""
    exponents = -_STAKES[:, None] * scaled[..., None, :]
    wealth = (math.log(2) - np.logaddexp(0.0, exponents)).cumsum(axis=-1)
    return np.asarray(np.logaddexp.reduce(wealth, axis=-2) - math.log(len(_STAKES)))


def _left_out(centres: Array, lows: Array, highs: Array, alpha: float) -> NDArray[np.bool_]:
    rich = -math.log(alpha)
    if np.array_equal(lows, highs):
        evidence = log_evidence(lows[None, :] - centres[:, None])
        return np.asarray(evidence.max(axis=-1) >= rich)
    out = np.zeros(len(centres), dtype=bool)
    for bounds, sign in ((lows, 1.0), (highs, -1.0)):
        if np.isfinite(bounds).all():
            about = _scaled(bounds[None, :] - centres[:, None])
            out |= _log_wealth(sign * about).max(axis=-1) - math.log(2) >= rich
    return out


def _edge(out: float, kept: float, lows: Array, highs: Array, alpha: float) -> float:
    """Return where the set begins between a centre that is left out and one that is kept."""
    centres = np.linspace(out, kept, _CENTRES)
    found = ~_left_out(centres, lows, highs, alpha)
    return float(centres[max(0, int(np.argmax(found)) - 1)])  # to the wider side
