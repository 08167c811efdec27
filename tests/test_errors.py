from hypothesis import given
from hypothesis import strategies as st

from harness.errors import did_you_mean, one_of


def test_the_nearest_names_come_first_then_all_in_order() -> None:
    error = one_of("The submission", "lyon", ["sgd", "lion", "adamw"], "See the list.")
    assert str(error) == (
        "The submission 'lyon' does not exist. Did you mean 'lion'? Available: adamw, lion, sgd. "
        "See the list."
    )


def test_without_a_near_name_or_any_name() -> None:
    assert str(one_of("The key", "x", ["alpha"])) == (
        "The key 'x' does not exist. Available: alpha."
    )
    assert str(one_of("The key", "x", [])) == "The key 'x' does not exist. Available: none."


def test_several_near_names() -> None:
    assert did_you_mean("beta", ["beta1", "beta2", "lr"]) == "Did you mean 'beta2' or 'beta1'? "


@given(st.text(), st.lists(st.text()))
def test_any_name_can_be_asked_for(given_name: str, legal: list[str]) -> None:
    assert "does not exist" in str(one_of("It", given_name, legal))
