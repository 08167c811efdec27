"""Reads cards: YAML without implicit types, checked against the structs, errors in words.

The field's declared type decides (`no` stays a word, `10:30` stays text). Unknown and repeated
keys, tags, anchors and aliases are refused.
"""

import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from harness.cards.faults import find_fault, not_finite
from harness.cards.vocabulary import Card, CatalogueCard
from harness.cards.workload_card import ModelSettings, WorkloadCard
from harness.errors import UsageError

C = TypeVar("C", bound=CatalogueCard)
M = TypeVar("M", bound=ModelSettings)
T = TypeVar("T", bound=Card)

MAX_CHARACTERS = 100_000  # the largest card has a few thousand; the reader takes seconds a megabyte
MAX_DEPTH = 20
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class _WordsOnlyLoader(yaml.BaseLoader):
    """Every scalar is text; a repeated key, a tag, an anchor or an alias is an error."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _yaml_error("a key must be a plain word", key)
            if key.value in seen:
                raise _yaml_error(f"the key {key.value!r} stands twice", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        # BaseLoader expands aliases; a card of a few hundred bytes could then fill the memory.
        if getattr(event, "anchor", None) is not None:
            raise _yaml_error("anchors (&name) and aliases (*name) are not allowed", event)
        # BaseLoader would ignore a tag, and with it what its writer meant.
        if getattr(event, "tag", None) is not None:
            raise _yaml_error("tags (!name) are not allowed; the field's type decides", event)
        if self._depth == MAX_DEPTH:
            raise _yaml_error(f"nested more than {MAX_DEPTH} deep", event)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(node, yaml.ScalarNode) and _UNPRINTABLE.search(node.value):
            raise _yaml_error("control characters and lone surrogates are not allowed", node)
        return node


def _yaml_error(problem: str, at: Any) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, at.start_mark)


def read_card(path: Path, kind: type[C]) -> C:
    """Return the card in `path`; a variant takes what it leaves out from the card it varies.

    Raises:
        UsageError: the file is unreadable, no YAML, or no valid card; names file and field.
    """
    fields = read_mapping(path, "card")
    if kind is WorkloadCard and "variant_of" in fields:
        fields = _inherited(path, fields) | fields
    return parse_struct(fields, kind, f"card {path}")


def parse_card(text: str, kind: type[C], origin: str) -> C:
    """Return the card in `text`; `origin` is what an error calls it. Raises as `read_card`."""
    return parse_struct(_fields_of(text, f"card {origin}"), kind, f"card {origin}")


def read_model_settings(card: WorkloadCard, kind: type[M]) -> M:
    """Return the card's `model:` as a struct of choices.

    Raises:
        UsageError: a choice or a value that `kind` does not have.
    """
    return parse_struct(card.model, kind, f"model of {card.name}")


def _inherited(path: Path, fields: dict[str, Any]) -> dict[str, Any]:
    """Return what a variant takes from its base, which stands beside it.

    Not the evidence: the base's measurements say nothing of the variant.
    """
    family, _, data = str(fields["variant_of"]).partition("/")
    base_path = path.with_name(f"{data}.yaml")
    if not data or path.parent.name != family or base_path == path or not base_path.is_file():
        raise UsageError(
            f"The card {path} is invalid, field `variant_of`: must name a workload of its own "
            f"family whose card stands beside it, not {fields['variant_of']!r}."
        )
    base = read_mapping(base_path, "card")
    if "variant_of" in base:
        raise UsageError(
            f"The card {path} is invalid, field `variant_of`: {fields['variant_of']} is itself a "
            f"variant. Name {base['variant_of']!r}."
        )
    return {name: value for name, value in base.items() if name not in ("suites", "evidence")}


def read_mapping(path: Path, noun: str) -> dict[str, Any]:
    """Return the YAML mapping in a file, every value a text; an error calls it by `noun`.

    Raises:
        UsageError: the file is unreadable or no YAML mapping.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_CHARACTERS + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The {noun} {path} cannot be read: {error}.") from None
    return _fields_of(text, f"{noun} {path}")


def _fields_of(text: str, origin: str) -> dict[str, Any]:
    if len(text) > MAX_CHARACTERS:
        raise UsageError(f"The {origin} has more than {MAX_CHARACTERS} characters. Shorten it.")
    try:
        fields = yaml.load(text, Loader=_WordsOnlyLoader)  # noqa: S506 - builds only text, lists and dicts
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last two: "\UFFFFFFFF"
        where = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        line = f" at line {where.line + 1}, column {where.column + 1}" if where else ""
        raise UsageError(f"The {origin} is not valid YAML{line}: {problem}.") from None
    if not isinstance(fields, dict):
        raise UsageError(f"The {origin} must be a mapping of keys to values.")
    return fields


def parse_struct(fields: dict[str, Any], kind: type[T], origin: str) -> T:
    """Return a mapping of texts as a struct; `origin` is what an error calls it.

    Raises:
        UsageError: a key or value that the struct does not have; names the field.
    """
    try:
        card = msgspec.convert(fields, type=kind, strict=False)
    except msgspec.ValidationError:
        fault = find_fault(fields, kind, ())
        assert fault is not None
    else:
        fault = not_finite(msgspec.to_builtins(card), ())
        if fault is None:
            return card
    path, problem = fault
    place = f", field `{'.'.join(path)}`" if path else ""
    raise UsageError(f"The {origin} is invalid{place}: {problem}.")
