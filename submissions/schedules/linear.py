"""Linear decay to zero: the rate is proportional to what is left of the budget.

Defazio et al. 2023, "Optimal Linear Decay Learning Rate Schedules and Further Refinements", arXiv
2310.07831, behind a linear warm-up over the part w of the horizon:

    η = η_max t / (w T)              t < w T
    η = η_max (T - t) / (T - w T)    after it

Without warm-up this is 1 - t/T, the best last iterate that worst-case analysis grants SGD. The
paper's refined schedules, made from gradient norms of an earlier run, are another method. The rate
of the step that ends the horizon is 0, as in the paper's 1 - t/T: nothing is learned from there on.
"""

from harness.session import Factors, Schedule


class Linear(Schedule):
    """Linear warm-up, then linear decay to zero.

    Raises:
        ValueError: `warmup_fraction`, the part of the horizon that warms up, is out of its range.
    """

    def __init__(self, warmup_fraction: float = 0.1) -> None:
        if not 0 <= warmup_fraction <= 1:
            raise ValueError(
                f"Linear: warmup_fraction must be a number in [0, 1], not {warmup_fraction!r}"
            )
        self._warmup = warmup_fraction

    def __call__(self, progress: float) -> Factors:
        if progress < self._warmup:
            return Factors(learning_rate=progress / self._warmup)
        if self._warmup == 1:
            return Factors()
        return Factors(learning_rate=(1 - progress) / (1 - self._warmup))
