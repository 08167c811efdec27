import signal

import pytest

from harness import process_end
from harness.process_end import KernelMemoryKills, end_in_words


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exited with code 0 without a word"),
        (3, "exited with code 3 without a word"),
        (-signal.SIGKILL, "was killed by SIGKILL"),
        (-63, "was killed by signal 63"),
    ],
)
def test_a_return_code_in_words(code: int, words: str) -> None:
    assert end_in_words(code) == words


def test_a_kill_coincides_with_one_of_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    kills = 4
    monkeypatch.setattr(process_end, "_kills_so_far", lambda: kills)
    counted = KernelMemoryKills()
    assert not counted.explain(-signal.SIGKILL)
    kills = 5
    assert counted.explain(-signal.SIGKILL)
    assert not counted.explain(-signal.SIGSEGV) and not counted.explain(0)
