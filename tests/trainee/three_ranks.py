"""Three ranks that check on each other; exits 0 if each found what it expected."""

import os
import socket
import sys

from harness.counters import SIZE_BYTES, Counters, create_shared_file
from harness.messages import TraineeEnd
from harness.trainee.rank_processes import RankProcess, fork_ranks

COUNT = 3
EXAMPLES = 8  # in parts of 2, 3 and 3


def check(process: RankProcess, counters: Counters) -> None:
    import torch
    from torch import nn

    from harness.trainee.data_parallel import TorchRanks
    from harness.trainee.submission_loading import DisqualifiedError

    ranks = TorchRanks(process, torch.device("cpu"), counters)
    assert (ranks.rank, ranks.count) == (process.rank, COUNT)
    assert os.environ["RANK"] == str(ranks.rank) and os.environ["WORLD_SIZE"] == str(COUNT)

    whole = torch.arange(EXAMPLES, dtype=torch.float64)
    own = ranks.own_part(EXAMPLES)
    assert own is not None and len(whole[own]) == [2, 3, 3][ranks.rank]
    assert ranks.gathered(whole[own], EXAMPLES).equal(whole)
    assert ranks.own_part(2) is None

    assert ranks.mean(torch.tensor(float(ranks.rank))).item() == 1.0
    assert ranks.any(ranks.rank == 2) and not ranks.any(False)
    assert ranks.total(10 ** (12 + ranks.rank)) == 111 * 10**12  # exact far beyond float32
    # Passes add up; what is asked and what time it is are rank 0's to say.
    said = ranks.at_boundary(100 + ranks.rank, ranks.rank == 0, 5 if ranks.rank == 0 else 7)
    assert said == (303, True, 5)
    assert ranks.at_boundary(1, ranks.rank == 1, 6)[1] is False

    torch.manual_seed(0)
    before = torch.get_rng_state()
    with ranks.own_randomness():
        drawn = torch.rand(1, dtype=torch.float64)
    after = torch.rand(1, dtype=torch.float64)
    assert len(ranks.gathered(drawn, COUNT).unique()) == COUNT
    assert len(ranks.gathered(after, COUNT).unique()) == 1
    torch.set_rng_state(before)
    with ranks.own_randomness():
        assert torch.rand(1, dtype=torch.float64).equal(drawn)  # a closure's probe replays it

    model = nn.Linear(4, 3)  # of one seed, so the same everywhere
    reducing = ranks.reducing(model)
    losses = reducing(torch.outer(whole, torch.ones(4)).float()[own]).sum(dim=1)
    (losses.sum() * (COUNT / EXAMPLES)).backward()
    expected = torch.full((3, 4), whole.mean().item())
    assert model.weight.grad is not None and torch.allclose(model.weight.grad, expected)
    ranks.check_alike(model)
    with torch.no_grad():
        model.weight[0, 0] = torch.nan
        ranks.check_alike(model)  # diverged together
        model.bias[1] += 1e-3 * ranks.rank
    try:
        ranks.check_alike(model)
    except DisqualifiedError as error:
        told = str(error)
    else:
        told = ""
    assert ("(bias and 0 others differ)" in told) == (ranks.rank == 0)
    ranks.total(0)
    ranks.close()


def main() -> None:
    descriptor = create_shared_file("test", SIZE_BYTES)
    ours, _theirs = socket.socketpair()
    process = fork_ranks(COUNT, TraineeEnd(ours), descriptor)
    counters = Counters(descriptor)
    check(process, counters)
    if process.rank == 0:
        codes = [
            os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in counters.rank_pids()[1:]
        ]
        sys.exit(int(any(codes)))


if __name__ == "__main__":
    main()
