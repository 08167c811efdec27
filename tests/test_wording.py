import pytest
from records.synthetic_runs import workload_card

from harness.cards import Metric
from harness.events import Outcome
from harness.wording import OUTCOME_WORDS, metric_value, seconds, size, target_words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "–"),
        (0.0123, "12 ms"),
        (1.2345, "1.23 s"),
        (9.999, "10 s"),
        (42.04, "42.0 s"),
        (125.4, "2 min 05 s"),
        (3 * 3600 + 62, "3 h 01 min"),
    ],
)
def test_durations_read_as_people_say_them(value: float | None, words: str) -> None:
    assert seconds(value) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "–"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (300 * 2**20, "300 MiB"),
        (2**31, "2 GiB"),
    ],
)
def test_sizes_have_binary_units(value: int | None, words: str) -> None:
    assert size(value) == words


@pytest.mark.parametrize(
    ("value", "words"), [(None, "–"), (0.9712345, "0.9712"), (1.5e-5, "1.5e-05"), (-3.2, "-3.2000")]
)
def test_metrics_keep_four_figures(value: float | None, words: str) -> None:
    assert metric_value(value) == words


def test_a_target_says_its_direction() -> None:
    assert target_words(workload_card().metric) == "accuracy ≥ 0.9000"
    assert target_words(Metric(name="loss", direction="minimise", target=0.25)) == "loss ≤ 0.2500"


def test_every_outcome_has_words() -> None:
    assert OUTCOME_WORDS.keys() == set(Outcome.__args__)
