import subprocess
import sys

import pytest


def measured_ns(code: str) -> list[int]:
    """What `compile_ns` gives after each line of `code`, in a process of its own."""
    program = "from harness.trainee.compilation import compile_ns\nimport torch\n"
    program += "print(compile_ns())\n"
    for line in code.splitlines():
        program += f"{line}\nprint(compile_ns())\n"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return [int(line) for line in result.stdout.split()]


@pytest.mark.slow
def test_compiling_counts_once_and_running_does_not() -> None:
    before, defined, first, second, other = measured_ns(
        "f = torch.compile(lambda x: (x * 2).sin(), backend='eager')\n"
        "_ = f(torch.ones(3))\n"
        "_ = f(torch.ones(3))\n"
        "_ = f(torch.ones(3, 3, dtype=torch.float64))"
    )
    assert before == defined == 0
    assert 0 < first == second < other
