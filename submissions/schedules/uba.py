"""UBA: a learning rate decay for a known budget, bent by one number φ.

Tang et al. 2025, "Stepsize Anything: A Unified Learning Rate Schedule for Budgeted-Iteration
Training", arXiv 2505.24452. After the warm-up, with d in [0, 1] the part of the decay that is over:

    c = 1 + cos(π d)
    η = η_min + (η_max - η_min) 2c / (2φ + (2 - φ) c)

φ = 2 is the cosine decay, bit for bit that of the reference recipe; φ < 2 keeps the rate high for
longer (φ → 0 holds it to the very end), φ > 2 drops it early. The paper ties φ to the condition
number of the problem: the worse conditioned, the larger. It defines no warm-up; this one is the
reference recipe's. Codes that raise 1 - d to the power φ, or square 1 - φ d, are other schedules:
the latter ends at (1 - φ)² η.
"""

import math

from harness.session import Factors, Schedule


class UBA(Schedule):
    """Linear warm-up, then the UBA decay.

    Args:
        phi: the shape of the decay, above 0.
        warmup_fraction: the part of the horizon that warms up.
        final_lr_fraction: η_min ÷ η_max, the factor at progress 1.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self, phi: float = 0.5, warmup_fraction: float = 0.1, final_lr_fraction: float = 0.01
    ) -> None:
        if not 0 < phi < math.inf:
            raise ValueError(f"UBA: phi must be a number in (0, inf), not {phi!r}")
        for name, value in {
            "warmup_fraction": warmup_fraction,
            "final_lr_fraction": final_lr_fraction,
        }.items():
            if not 0 <= value <= 1:
                raise ValueError(f"UBA: {name} must be a number in [0, 1], not {value!r}")
        self._phi = phi
        self._warmup = warmup_fraction
        self._final = final_lr_fraction

    def __call__(self, progress: float) -> Factors:
        return Factors(learning_rate=self._learning_rate(progress))

    def _learning_rate(self, progress: float) -> float:
        if progress < self._warmup:
            return progress / self._warmup
        if self._warmup == 1:
            return 1.0
        decayed = (progress - self._warmup) / (1 - self._warmup)
        c = 1 + math.cos(math.pi * decayed)
        decay = 2 * c / (2 * self._phi + (2 - self._phi) * c)
        return self._final + (1 - self._final) * decay
