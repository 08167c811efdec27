"""What is wrong with a mapping that should be a struct, in words and where.

msgspec's own message leaves out the keys of mappings, the known fields and the legal words.
"""

import functools
import math
import re
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec

from harness.cards.vocabulary import Card
from harness.cards.wording import listed
from harness.errors import did_you_mean

_Path = tuple[str, ...]


def find_fault(value: object, kind: Any, path: _Path) -> tuple[_Path, str] | None:
    """Return the innermost path at which `value` is no `kind`, and what is wrong there.

    msgspec's own message leaves out the keys of mappings, the known fields and the legal words.
    """
    try:
        msgspec.convert(value, type=kind, strict=False)
    except msgspec.ValidationError as error:
        problem = str(error)
    else:
        return None
    bare, description = _bare(kind)
    fields = _fields(bare)
    for key in value if fields and isinstance(value, dict) else ():
        if key not in fields:
            hint = did_you_mean(key, fields)
            return (*path, key), f"unknown. {hint}Remove it or use one of {listed(fields)}"
    for key, child, child_kind in _children(value, bare):
        if fault := find_fault(child, child_kind, (*path, key)):
            return fault
    return path, _in_words(problem, value, bare, description)


def _bare(kind: Any) -> tuple[Any, str | None]:
    """Return `kind` without `| None` and annotations, and the description among these."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        kind = next(member for member in typing.get_args(kind) if member is not types.NoneType)
    if typing.get_origin(kind) is not Annotated:
        return kind, None
    bare, *annotations = typing.get_args(kind)
    return bare, next((a.description for a in annotations if isinstance(a, msgspec.Meta)), None)


@functools.cache
def _fields(kind: Any) -> dict[str, Any]:
    """Return the fields of a struct with their types; of anything else none."""
    if not (isinstance(kind, type) and issubclass(kind, Card)):
        return {}
    return typing.get_type_hints(kind, include_extras=True)


def _children(value: object, kind: Any) -> Iterator[tuple[str, object, Any]]:
    arguments = typing.get_args(kind)
    if isinstance(value, list) and typing.get_origin(kind) is tuple:
        for index, item in enumerate(value):
            yield str(index), item, arguments[0]
    elif isinstance(value, dict) and typing.get_origin(kind) is dict:
        for key, item in value.items():
            yield key, key, arguments[0]
            yield key, item, arguments[1]
    elif isinstance(value, dict):
        for name, child_kind in _fields(kind).items():
            if name in value:
                yield name, value[name], child_kind


_MSGSPEC_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "object": "a mapping",
    "array": "a list",
}


def _in_words(problem: str, value: object, kind: Any, description: str | None) -> str:
    shown = "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else ""
    if isinstance(value, str):
        shown = repr(value if len(value) <= 60 else f"{value[:60]}…")
    if typing.get_origin(kind) is Literal:
        words = typing.get_args(kind)
        hint = did_you_mean(value, words) if isinstance(value, str) else ""
        return f"{shown} is not legal. {hint}Legal: {listed(words)}"
    if missing := re.search(r"missing required field `(.+?)`", problem):
        return f"the field `{missing[1]}` is missing"
    if description is not None:
        return f"must be {description}, not {shown}"
    if expected := re.fullmatch(
        r"Expected `(\w+)(?: \| null)?`(?:, got .+|( [<>]=? .+))?", problem
    ):
        word = _MSGSPEC_WORDS.get(expected[1], expected[1])
        return f"must be {word}{expected[2] or ''}, not {shown}"
    return f"{problem}: {shown}" if isinstance(value, str) else problem


def not_finite(value: object, path: _Path) -> tuple[_Path, str] | None:
    if isinstance(value, float) and not math.isfinite(value):
        return path, f"must be finite, not {value}"
    items = value.items() if isinstance(value, dict) else ()
    return next(filter(None, (not_finite(item, (*path, key)) for key, item in items)), None)
