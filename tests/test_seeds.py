import msgspec
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.seeds import SeedStreams


def values(seed: int) -> list[int]:
    return list(msgspec.structs.asdict(SeedStreams.from_seed(seed)).values())


def test_the_streams_of_a_seed_never_change() -> None:
    # A change here makes every stored result incomparable with a new run of its seed.
    assert SeedStreams.from_seed(0) == SeedStreams(
        initialisation=4_807_481_986_050_354_981,
        order=3_279_015_892_270_181_064,
        augmentation=1_759_286_426_565_947_796,
        submission=602_819_909_702_410_881,
        beside=7_449_962_860_584_958_054,
        global_=7_572_437_727_575_564_080,
    )


@given(st.integers(min_value=0, max_value=2**70))
def test_the_streams_differ_and_fit_torch(seed: int) -> None:
    assert len(set(values(seed))) == 6
    assert all(0 <= value < 2**63 for value in values(seed))
    assert SeedStreams.from_seed(seed) == SeedStreams.from_seed(seed)


@given(st.lists(st.integers(min_value=0), unique=True, min_size=2, max_size=2))
def test_two_seeds_have_no_stream_in_common(seeds: list[int]) -> None:
    first, second = map(values, seeds)
    assert not set(first) & set(second)


def test_the_streams_draw_unlike_numbers() -> None:
    draws = [torch.rand(64, generator=torch.Generator().manual_seed(v)) for v in values(0)]
    for i, one in enumerate(draws):
        for other in draws[:i]:
            assert not (one == other).any()
