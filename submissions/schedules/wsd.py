"""WSD: warm up, hold, and decay over the last part of the horizon only.

Hägele et al. 2024, "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations",
arXiv 2405.18392; the name, warmup-stable-decay, is that of Hu et al. 2024 (2404.06395). With u in
[0, 1] the part of the decay that is over and f the final fraction:

    η = η_max (f + (1 - f) (1 - u))      linear
    η = η_max (f + (1 - f) (1 - √u))     1-sqrt, the authors' choice: falls fast, then slowly

Defaults: 1-sqrt over the last fifth, down to 0, so that nothing is learned after the horizon. The
floor is part of the decay and reached at progress 1 exactly; a floor applied as a bound would
make the rate jump. The first step's rate is above 0.
"""

import math

from harness.session import Factors, Schedule


class WSD(Schedule):
    """Linear warm-up, a constant rate, and a decay at the end.

    Args:
        decay_fraction: the part of the horizon that decays.
        one_minus_sqrt: the shape of the decay; else linear.
        warmup_fraction: the part of the horizon that warms up.
        final_lr_fraction: the factor at progress 1.

    Raises:
        ValueError: an argument is out of its range, or warm-up and decay overlap.
    """

    def __init__(
        self,
        decay_fraction: float = 0.2,
        one_minus_sqrt: bool = True,
        warmup_fraction: float = 0.1,
        final_lr_fraction: float = 0.0,
    ) -> None:
        for name, value in {
            "decay_fraction": decay_fraction,
            "warmup_fraction": warmup_fraction,
            "final_lr_fraction": final_lr_fraction,
        }.items():
            if not 0 <= value <= 1:
                raise ValueError(f"WSD: {name} must be a number in [0, 1], not {value!r}")
        if warmup_fraction + decay_fraction > 1:
            raise ValueError(
                f"WSD: warmup_fraction ({warmup_fraction}) and decay_fraction ({decay_fraction}) "
                "must not add up to more than 1"
            )
        self._decay = decay_fraction
        self._one_minus_sqrt = one_minus_sqrt
        self._warmup = warmup_fraction
        self._final = final_lr_fraction

    def __call__(self, progress: float) -> Factors:
        return Factors(learning_rate=self._learning_rate(progress))

    def _learning_rate(self, progress: float) -> float:
        if progress < self._warmup:
            return progress / self._warmup
        if 1 - progress >= self._decay:
            return 1.0
        remaining = (1 - progress) / self._decay  # 1 - u
        shape = 1 - math.sqrt(1 - remaining) if self._one_minus_sqrt else remaining
        return self._final + (1 - self._final) * shape
