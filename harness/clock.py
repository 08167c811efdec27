"""The stopwatch. The referee alone holds one."""

import time
from collections.abc import Callable


class Stopwatch:
    """Adds up the spans between `resume` and `pause`, in nanoseconds.

    Reads a monotonic clock that nobody can set (`perf_counter_ns`).
    """

    def __init__(self, now_ns: Callable[[], int] = time.perf_counter_ns) -> None:
        self._now_ns = now_ns
        self._accumulated_ns = 0
        self._resumed_at_ns: int | None = None

    @property
    def running(self) -> bool:
        """Whether a span is open."""
        return self._resumed_at_ns is not None

    @property
    def elapsed_ns(self) -> int:
        """All closed spans and the open one so far."""
        if self._resumed_at_ns is None:
            return self._accumulated_ns
        return self._accumulated_ns + self._now_ns() - self._resumed_at_ns

    def resume(self) -> None:
        """Open a span."""
        assert not self.running, "the clock runs already"
        self._resumed_at_ns = self._now_ns()

    def pause(self) -> int:
        """Close the span; return all that has accumulated."""
        assert self._resumed_at_ns is not None, "the clock does not run"
        self._accumulated_ns += self._now_ns() - self._resumed_at_ns
        self._resumed_at_ns = None
        return self._accumulated_ns
