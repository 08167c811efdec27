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


def test_the_rank_behind_all_others_is_named() -> None:
    descriptor = create_shared_file("test", SIZE_BYTES)
    block = Counters(descriptor)
    os.close(descriptor)
    assert block.rank_pids() == [] and block.rank_behind() is None
    for rank in range(3):
        block.register_rank(rank, 1000 + rank)
    assert block.rank_pids() == [1000, 1001, 1002] and block.rank_behind() is None
    for rank in (0, 2):
        block.advance(rank)
    assert block.rank_behind() == 1
    block.advance(1)
    block.advance(0)
    assert block.rank_behind() is None  # two are as far
    last = counters.MAX_RANKS - 1
    block.register_rank(last, 7)
    block.advance(last)
    assert block.words[counters.RANK_PROGRESS] == 2  # no two words in one place
