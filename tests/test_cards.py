import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from example_cards import SUBMISSION, WORKLOAD, Document, changed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import submissions
import workloads
from harness import catalogue
from harness.cards import (
    MAX_CHARACTERS,
    Hyperparameter,
    Metric,
    SubmissionCard,
    WorkloadCard,
    parse_card,
    read_card,
    within,
)
from harness.errors import UsageError


def problem(document: Document | str, kind: type[Any] = WorkloadCard) -> str:
    text = document if isinstance(document, str) else yaml.safe_dump(document, sort_keys=False)
    with pytest.raises(UsageError) as caught:
        parse_card(text, kind, "x.yaml")
    message = str(caught.value)
    assert message.startswith("The card x.yaml ")
    assert message.endswith(".")
    return message


def parsed(document: Document) -> WorkloadCard:
    return parse_card(yaml.safe_dump(document), WorkloadCard, "x.yaml")


def test_the_models_of_these_tests_are_valid() -> None:
    card = parsed(WORKLOAD)
    assert (card.family, card.passes_per_reference_step) == ("blobs", 30)
    assert card.recipe.decay_exempt_roles == ("norm", "bias")
    assert parse_card(yaml.safe_dump(SUBMISSION), SubmissionCard, "x.yaml").name == "steady"


def bundled(package: Any) -> list[Path]:
    return sorted(path for root in package.__path__ for path in Path(root).rglob("*.yaml"))


@pytest.mark.parametrize("path", bundled(workloads), ids=lambda path: path.stem)
def test_bundled_workload_cards_are_valid(path: Path) -> None:
    card = read_card(path, WorkloadCard)
    module, _, name = card.implementation.partition(":")
    assert f"class {name}(" in (path.parent / f"{module}.py").read_text()
    reference = catalogue.submission(card.recipe.optimizer).card
    for key, value in card.recipe.hyperparameters.items():
        reference.hyperparameters[key].read(key, repr(value))


@pytest.mark.parametrize("path", bundled(submissions), ids=lambda path: path.stem)
def test_bundled_submission_cards_are_valid(path: Path) -> None:
    card = read_card(path, SubmissionCard)
    module, _, name = card.implementation.partition(":")
    assert f"class {name}(" in (path.parent / f"{module}.py").read_text()
    assert card.tuned.keys() <= catalogue.workloads().keys()
    if card.claim is not None:
        assert card.claim.workload in catalogue.workloads()
        assert card.claim.baseline in catalogue.submissions()


# Words that YAML 1.1 reads as something else.


@pytest.mark.parametrize("text", ["no", "off", "10:30", "1e-3", "0x10", "null", "~", "1_000", "1"])
def test_a_text_field_keeps_what_was_written(text: str) -> None:
    written = yaml.safe_dump(WORKLOAD).replace("title: Two blobs", f"title: {text}")
    assert parse_card(written, WorkloadCard, "x.yaml").title == text


@pytest.mark.parametrize("text", ["no", "10:30", "0x10", "null", "~", "1_000", "+1", ".inf", "''"])
def test_a_number_is_written_in_decimal(text: str) -> None:
    written = yaml.safe_dump(WORKLOAD).replace("version: '1'", f"version: {text}")
    shown = text.strip("'")
    assert f"field `version`: must be a whole number, not {shown!r}" in problem(written)


def test_the_fields_type_decides_how_a_number_is_read() -> None:
    card = parse_card(
        yaml.safe_dump(changed(WORKLOAD, "horizon_examples", "1e4")), WorkloadCard, "x.yaml"
    )
    assert card.horizon_examples == 10_000
    assert isinstance(card.horizon_examples, int)


def test_null_empties_an_optional_field_alone() -> None:
    written = yaml.safe_dump(changed(WORKLOAD, "recipe|clip_norm", "null"))
    assert parse_card(written, WorkloadCard, "x.yaml").recipe.clip_norm is None
    written = yaml.safe_dump(changed(SUBMISSION, "claim", "null"))
    assert parse_card(written, SubmissionCard, "x.yaml").claim is None


# What a message says.


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (
            "hardware",
            "field `hardware`: unknown. Remove it or use one of `name`, `implementation`, `",
        ),
        ("metric|tagret", "field `metric.tagret`: unknown. Did you mean 'target'? Remove it or "),
        ("metric|Target", "use one of `name`, `direction`, `target`."),
        ("data|sha256|tst", "'tst' is not legal. Did you mean 'test'? Legal: `training`, `evalu"),
        ("recipe|warmup", "field `recipe.warmup`: unknown. Did you mean 'warmup_fraction'?"),
        ("noise|run", "field `noise.run`: unknown. Did you mean 'runs'?"),
        (
            "evidence|targets",
            "evidence names `targets`. Did you mean 'target' or",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_its_path_and_the_known_ones(
    path: str, expected: str
) -> None:
    assert expected in problem(changed(WORKLOAD, path, "1"))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("hyperparameters|lr|defualt", "field `hyperparameters.lr.defualt`: unknown. Did you mean"),
        ("hyperparameters|lr|search|lo", "field `hyperparameters.lr.search.lo`: unknown."),
        ("tuned|blobs/two|trial", "field `tuned.blobs/two.trial`: unknown. Did you mean 'trials'?"),
        ("paper|yeer", "field `paper.yeer`: unknown. Did you mean 'year'?"),
        ("claim|ration", "field `claim.ration`: unknown. Did you mean 'ratio'"),
    ],
)
def test_an_unknown_key_of_a_submission_is_refused(path: str, expected: str) -> None:
    assert expected in problem(changed(SUBMISSION, path, "1"), SubmissionCard)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("tier", None, "the field `tier` is missing"),
        ("metric|target", None, "field `metric`: the field `target` is missing"),
        ("name", "Blobs/Two", "field `name`: must be family/data, not 'Blobs/Two'"),
        ("name", "blobs/two\n", "field `name`: must be family/data, not 'blobs/two\\n'"),
        ("implementation", "blobs.Blobs", "must be module:Class, the module being a file beside"),
        ("implementation", "../blobs:Blobs", "must be module:Class"),
        ("title", " ", "field `title`: must be some text, not ' '"),
        ("title", ["a"], "field `title`: must be some text, not a list"),
        ("tier", "huge", "'huge' is not legal. Legal: `embedded`, `embedded-slow`, `real`"),
        ("version", "0", "must be a whole number >= 1, not '0'"),
        ("version", "1.5", "must be a whole number, not '1.5'"),
        ("version", "9" * 5000, f"field `version`: Integer value out of range: '{'9' * 60}…'"),
        ("metric", "accuracy", "field `metric`: must be a mapping, not 'accuracy'"),
        ("metric|target", {"a": "b"}, "field `metric.target`: must be a number, not a mapping"),
        ("metric|direction", "maximize", "'maximize' is not legal. Did you mean 'maximise'"),
        ("drift_bound", "0", "field `drift_bound`: must be a number > 0.0, not '0'"),
        ("recipe|warmup_fraction", "1.5", "must be a number <= 1.0, not '1.5'"),
        ("recipe|decay_exempt_roles", ["norm", "nrom"], "field `recipe.decay_exempt_roles.1`: 'n"),
        ("recipe|decay_exempt_roles", "norm", "must be a list, not 'norm'"),
        ("recipe|hyperparameters", {"l.r": "1"}, "must be a Python argument's name, not 'l.r'"),
        ("recipe|hyperparameters", {"lr": "x"}, "field `recipe.hyperparameters.lr`: must be a num"),
        ("recipe|clip_norm", "none", "field `recipe.clip_norm`: must be a number, not 'none'"),
        ("data|sha256|test", None, "field `data`: sha256 must also name `test`"),
        ("data|sha256|test", "2" * 63, "must be 64 hexadecimal digits, not '222"),
        ("data|sha256|test", "2" * 64 + "\n", "must be 64 hexadecimal digits"),
        ("data|sha256", None, "sha256 must also name `training`, `evaluation`, `test`"),
        ("noise|reached", "11", "11 of 10 runs cannot have reached the target"),
        ("evidence|horizon", None, "evidence must name the measurement behind `horizon`"),
        ("evidence|horizon", "", "field `evidence.horizon`: must be some text, not ''"),
        ("batch_size", "1001", "batch_size (1001) is more than the 1000 training examples"),
    ],
)
def test_a_wrong_workload_card_names_the_field_and_what_is_legal(
    path: str, value: Any, expected: str
) -> None:
    assert expected in problem(changed(WORKLOAD, path, value))


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("name", "Steady", "a name of lower-case letters, digits, `_`, `.` and `-`, not 'Steady'"),
        ("name", "recipe", "the name 'recipe' is taken"),
        ("name", "optimizer", "the name 'optimizer' is taken"),
        ("name", "steady.py", "the name 'steady.py' is taken"),
        ("kind", "optimiser", "'optimiser' is not legal. Did you mean 'optimizer'?"),
        ("hyperparameters|lr|default", "no", "default takes a number, not 'no'"),
        ("hyperparameters|lr|default", "nan", "default must be at least 0, not nan"),
        ("hyperparameters|beta1|default", "1", "default must be in [0, 0.999], not 1"),
        ("hyperparameters|power|default", "2.5", "default takes a whole number, not '2.5'"),
        ("hyperparameters|nesterov|default", "no", "default takes true or false, not 'no'"),
        ("hyperparameters|nesterov|minimum", "0", "a boolean has no minimum, maximum or search"),
        ("hyperparameters|beta1|minimum", "1", "minimum (1) must not be more than maximum (0.999)"),
        ("hyperparameters|beta1|minimum", "nan", "minimum (nan) must not be more than maximum"),
        ("hyperparameters|lr|search|low", "1", "low (1.0) must be less than high (1.0)"),
        ("hyperparameters|lr|search|low", "2", "low (2.0) must be less than high (1.0)"),
        ("hyperparameters|lr|search|low", "nan", "low (nan) must be less than high (1.0)"),
        ("hyperparameters|lr|search|low", "0", "a log scale starts above 0, got low 0.0"),
        ("hyperparameters|lr|search|high", "inf", "`hyperparameters.lr.search.high`: must be fini"),
        ("hyperparameters|lr|minimum", "0.01", "the search range must be at least 0.01"),
        ("hyperparameters|lr|maximum", "0.5", "the search range must be in [0, 0.5]"),
        ("tuned|blobs/two|point", {"rl": "1"}, "tuned.blobs/two.point names `rl`. Did you mean"),
        ("tuned|blobs/two|point", {"beta1": "2"}, "tuned.blobs/two.point.beta1 must be in [0, 0."),
        ("tuned|blobs/two|trials", "0", "field `tuned.blobs/two.trials`: must be a whole number"),
        ("tuned|blobs", {}, "field `tuned.blobs`: must be family/data, not 'blobs'"),
        ("claim|metric", "time", "'time' is not legal. Legal: `submission_time`, `steps`, `exam"),
        ("claim|ratio", "-1", "field `claim.ratio`: must be a number > 0.0, not '-1'"),
        ("paper", "On", "field `paper`: must be a mapping, not 'On'"),
    ],
)
def test_a_wrong_submission_card_names_the_field_and_what_is_legal(
    path: str, value: Any, expected: str
) -> None:
    assert expected in problem(changed(SUBMISSION, path, value), SubmissionCard)


@pytest.mark.parametrize("word", ["nan", "inf", "-inf", "NaN", "Infinity"])
@pytest.mark.parametrize(
    "path", ["metric|target", "reference_seconds", "recipe|hyperparameters|lr"]
)
def test_every_figure_is_finite(path: str, word: str) -> None:
    field = path.replace("|", ".")
    assert re.search(
        rf"field `{field}`: must be (finite|a number)", problem(changed(WORKLOAD, path, word))
    )


# YAML itself.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "must be a mapping of keys to values"),
        ("just words", "must be a mapping"),
        ("- a\n- b", "must be a mapping"),
        ("a: 1\na: 2", "at line 2, column 1: the key 'a' stands twice"),
        ("a: {b: 1, b: 2}", "at line 1, column 11: the key 'b' stands twice"),
        ("a: &x 1", "anchors (&name) and aliases (*name) are not allowed"),
        ("a: *x", "anchors (&name) and aliases (*name) are not allowed"),
        ("a: !!python/object/apply:os.abort []", "at line 1, column 4: tags (!name) are not allow"),
        ("a: !!str 1", "tags (!name) are not allowed"),
        ("!card {a: 1}", "tags (!name) are not allowed"),
        ("? [a, b]\n: 1", "a key must be a plain word"),
        ("a: 1\n---\nb: 2", "found another document"),
        ("a: [1, 2", "at line 1, column 9: expected ',' or ']'"),
        ("a: b: c", "mapping values are not allowed here"),
        ("\ta: 1", "found character '\\t'"),
        ('a: "\\ud800"', "control characters and lone surrogates are not allowed"),
        ('a: "\\e[31m"', "control characters and lone surrogates are not allowed"),
        ('a: "\\UFFFFFFFF"', "is not valid YAML"),
        ('a: "\\U00110000"', "is not valid YAML"),
        ("a: \x00", "special characters are not allowed"),
        ("[" * 50_000, "nested more than 20 deep"),
        ("{a: " * 1000 + "}" * 1000, "nested more than 20 deep"),
        ("- " * 1000, "nested more than 20 deep"),
        ("a" * (MAX_CHARACTERS + 1), "has more than 100000 characters"),
    ],
)
def test_hostile_yaml_is_refused(text: str, expected: str) -> None:
    message = problem(text)
    assert expected in message
    assert "\n" not in message


def test_a_billion_laughs_stay_unlaughed() -> None:
    lines = ["a0: &a0 [ha, ha]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20)]
    assert "aliases (*name) are not allowed" in problem("\n".join(lines))


def test_a_merge_key_is_an_unknown_field() -> None:
    assert "field `<<`: unknown" in problem(changed(WORKLOAD, "<<", {"tier": "real"}))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"name: \xc3", None])
def test_an_unreadable_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.yaml"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=f"The card {re.escape(str(path))} cannot be read"):
        read_card(path, WorkloadCard)


def test_a_huge_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("é" * 10_000_000)
    with pytest.raises(UsageError, match="more than 100000 characters"):
        read_card(path, WorkloadCard)


# Laws.

_HOSTILE = "!!python/name:os.system", "&a b", "*a", "{", "[", "a: b", "\x85", "\ud83d", "<<", "é"
_NUMBERS = "0", "1", "-1", "1.5", "nan", "inf", "1e999", "9" * 400
_WORDS = st.sampled_from(["", " ", "no", "null", "x", *_NUMBERS, *_HOSTILE]) | st.text(max_size=8)
_VALUES = st.recursive(
    _WORDS | st.none() | st.booleans() | st.integers() | st.floats(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(_WORDS, children, max_size=3),
    max_leaves=5,
)


def _nodes(document: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items: list[tuple[Any, Any]] = []
    if isinstance(document, dict):
        items = list(document.items())
    elif isinstance(document, list):
        items = list(enumerate(document))
    found = [] if not path else [path]
    for key, value in items:
        found += _nodes(value, (*path, key))
    return found


@st.composite
def mutated_cards(draw: st.DrawFn) -> tuple[str, type[WorkloadCard] | type[SubmissionCard]]:
    """Draw a valid card with some nodes removed, renamed, replaced or moved, or its text torn."""
    model, kind = draw(st.sampled_from([(WORKLOAD, WorkloadCard), (SUBMISSION, SubmissionCard)]))
    document = yaml.safe_load(yaml.safe_dump(model))
    for _ in range(draw(st.integers(1, 3))):
        *parents, last = draw(st.sampled_from(_nodes(document)))
        node = document
        for key in parents:
            node = node[key]
        match draw(st.sampled_from(["delete", "rename", "replace", "duplicate"])):
            case "delete":
                del node[last]
            case "rename" if isinstance(node, dict):
                node[draw(_WORDS)] = node.pop(last)
            case "duplicate" if isinstance(node, dict):
                node[draw(_WORDS)] = node[last]
            case _:
                node[last] = draw(_VALUES)
        if not _nodes(document):
            break
    flow = draw(st.sampled_from([None, True, False]))
    text = yaml.dump(document, default_flow_style=flow, allow_unicode=draw(st.booleans()))
    lines = text.splitlines(keepends=True)
    if draw(st.booleans()):
        line = draw(st.integers(0, len(lines) - 1))
        torn = draw(st.sampled_from([[lines[line]] * 2, [], ["  " + lines[line]], [draw(_WORDS)]]))
        lines[line : line + 1] = torn
    return "".join(lines), kind


def valid_or_refused(text: str, kind: type[WorkloadCard] | type[SubmissionCard]) -> None:
    try:
        card: object = parse_card(text, kind, "x.yaml")
    except UsageError as error:
        card = None
        message = str(error)
    if card is None:
        assert message.startswith("The card x.yaml ")
        message.encode()  # can be printed
    else:
        assert isinstance(card, kind)


@settings(max_examples=400, deadline=2000, suppress_health_check=[HealthCheck.too_slow])
@given(mutated_cards())
def test_a_mutated_card_is_valid_or_refused(
    case: tuple[str, type[WorkloadCard] | type[SubmissionCard]],
) -> None:
    valid_or_refused(*case)


@settings(max_examples=200, deadline=2000)
@given(st.text(alphabet=" \n\t-:?,[]{}#&*!|>'\"%@`ab1\\uU\ufeff\x85é~<") | st.text())
def test_random_text_is_refused(text: str) -> None:
    valid_or_refused(text, WorkloadCard)


@settings(
    max_examples=100, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.binary(max_size=300))
def test_random_bytes_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "random.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="The card "):
        read_card(path, SubmissionCard)


# The metric.

MAXIMISE = Metric(name="accuracy", direction="maximise", target=0.9)
MINIMISE = Metric(name="loss", direction="minimise", target=0.1)


@pytest.mark.parametrize(
    ("metric", "value", "meets"),
    [
        (MAXIMISE, 0.9, True),
        (MAXIMISE, math.nextafter(0.9, 0), False),
        (MAXIMISE, 1.0, True),
        (MINIMISE, 0.1, True),
        (MINIMISE, math.nextafter(0.1, 1), False),
        (MINIMISE, -5.0, True),
        *[(m, v, False) for m in (MAXIMISE, MINIMISE) for v in (math.nan, math.inf, -math.inf)],
    ],
)
def test_the_target_is_met_at_it_or_beyond(metric: Metric, value: float, meets: bool) -> None:
    assert metric.meets(value) is meets


@pytest.mark.parametrize("metric", [MAXIMISE, MINIMISE])
def test_a_value_that_is_not_finite_is_never_better_and_always_worse(metric: Metric) -> None:
    for bad in (math.nan, math.inf, -math.inf):
        assert not metric.better(bad, None)
        assert not metric.better(bad, 0.5)
        assert metric.better(0.5, bad)
    assert metric.better(0.5, None)
    assert not metric.better(0.5, 0.5)


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_the_directions_mirror_each_other(value: float, other: float) -> None:
    mirrored = Metric(name="x", direction="minimise", target=-MAXIMISE.target)
    assert MAXIMISE.better(value, other) == mirrored.better(-value, -other)
    assert MAXIMISE.meets(value) == mirrored.meets(-value)


# Hyperparameters.


def test_a_hyperparameter_reads_its_type() -> None:
    assert Hyperparameter(default="0.1").read("lr", "1e-3") == 0.001
    assert Hyperparameter(default="1", type="integer").read("k", "1e3") == 1000
    switch = Hyperparameter(default="true", type="boolean")
    assert [switch.read("s", text) for text in ("true", "False", "0", "1")] == [1, 0, 0, 1]


@pytest.mark.parametrize(
    "text", ["", "x", "1_0", " 1", "0x1", "1,5", "nan", "inf", "1e999", "\ud800"]
)
def test_a_value_of_another_type_is_refused_with_the_default(text: str) -> None:
    for known in (Hyperparameter(default="7"), Hyperparameter(default="7", type="integer")):
        with pytest.raises(UsageError, match=r"^k (takes|must be).*Default: 7\.$"):
            known.read("k", text)


def test_the_legal_range_is_in_the_message() -> None:
    low = Hyperparameter(default="0.5", minimum=0.0, maximum=0.99999)
    with pytest.raises(UsageError, match=re.escape("beta must be in [0, 0.99999], not 1. Default")):
        low.read("beta", "1")
    assert low.read("beta", "0.99999") == 0.99999


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0, 1, "in [0, 1]"),
        (-math.inf, 1, "at most 1"),
        (1e-12, math.inf, "at least 1e-12"),
        (-math.inf, math.inf, "finite"),
    ],
)
def test_ranges_in_words(low: float, high: float, words: str) -> None:
    assert within(low, high) == words


def test_only_a_procedure_ignores_places() -> None:
    message = problem(changed(SUBMISSION, "ignores", ["schedule"]), SubmissionCard)
    assert "only a procedure owns the loop" in message


def test_hashes_may_be_missing_only_where_files_have_theirs() -> None:
    file = {"name": "a/b.gz", "bytes": "9", "sha256": "3" * 64, "url": "https://example.org/b.gz"}
    real = changed(changed(WORKLOAD, "tier", "real"), "data|licence", "MIT")
    document = changed(changed(real, "data|files", [file]), "data|sha256", None)
    assert parsed(document).data.sha256 == {}
    document["data"]["sha256"] = {"training": "0" * 64}
    assert "sha256 must also name `evaluation`, `test`" in problem(document)


def test_what_nobody_has_calibrated_says_so() -> None:
    document = changed(changed(WORKLOAD, "noise|runs", "0"), "noise|reached", "0")
    (warning,) = parsed(document).warnings
    assert "nobody has calibrated blobs/two" in warning
    assert parsed(WORKLOAD).warnings == []
