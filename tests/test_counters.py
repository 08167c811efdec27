import os
import subprocess
import sys

from harness import counters
from harness.counters import SIZE_BYTES, Counters, create_shared_file


def test_two_processes_share_the_words() -> None:
    descriptor = create_shared_file("test", SIZE_BYTES)
    try:
        ours = Counters(descriptor)
        ours.ask_for_evaluation()
        program = (
            "import sys; from harness import counters as c;"
            f"w = c.Counters({descriptor}).words;"
            "w[c.STEPS] = 7; w[c.EXAMPLES] = 2**40; w[c.MODEL_PASSES] = 2**62; w[c.NOT_FINITE] = 1;"
            "sys.exit(0 if w[c.EVALUATE_NOW] == 1 else 1)"
        )
        subprocess.run([sys.executable, "-c", program], pass_fds=(descriptor,), check=True)
        assert (ours.steps, ours.examples, ours.model_passes) == (7, 2**40, 2**62)
        assert ours.not_finite
    finally:
        os.close(descriptor)


def test_a_fresh_block_is_zero() -> None:
    descriptor = create_shared_file("test", SIZE_BYTES)
    fresh = Counters(descriptor)
    os.close(descriptor)  # the mapping stays
    assert set(fresh.words) == {0}
    words = {counters.STEPS, counters.EXAMPLES, counters.MODEL_PASSES, counters.NOT_FINITE}
    assert len(words | {counters.EVALUATE_NOW}) == 5
