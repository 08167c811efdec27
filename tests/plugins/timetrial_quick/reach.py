"""Everything that can be reached from an object, short of modules and what they define."""

import functools
import gc
import types
from collections.abc import Iterator
from typing import Any

MAX_OBJECTS = 200_000


def reachable(root: object) -> Iterator[object]:
    """Yield each object that `root` refers to, at whatever distance, once.

    Attributes, `__slots__`, containers, closures, default values, bound methods, generators'
    frames and whatever else the garbage collector sees are followed. A function's globals and
    the classes of installed packages are not: those belong to modules, which anybody can import.

    Raises:
        RuntimeError: there is more than `MAX_OBJECTS`; the answer would be incomplete.
    """
    seen: set[int] = set()
    alive: list[object] = []  # an id is an object's own only while it lives
    waiting: list[object] = [root]
    while waiting:
        found = waiting.pop()
        if id(found) in seen or isinstance(found, types.ModuleType | types.BuiltinFunctionType):
            continue
        seen.add(id(found))
        alive.append(found)
        if len(alive) > MAX_OBJECTS:
            raise RuntimeError(f"more than {MAX_OBJECTS:,} objects")
        yield found
        waiting.extend(_referents(found))


def _referents(found: object) -> list[Any]:
    match found:
        case type():
            ours = found.__module__.partition(".")[0] not in _INSTALLED
            return list(vars(found).values()) if ours else []
        case types.FunctionType():
            cells = [cell for cell in found.__closure__ or () if cell != types.CellType()]
            return [cell.cell_contents for cell in cells] + [
                found.__defaults__,
                found.__kwdefaults__,
                vars(found),
            ]
        case types.FrameType():
            return list(found.f_locals.values())
        case types.GeneratorType():
            return [found.gi_frame]
        case functools.partial():
            return [found.func, found.args, found.keywords]
        case str() | bytes() | int() | float() | complex() | None | types.CodeType():
            return []
    return gc.get_referents(found)


# Their classes hold code of their own and nothing of a run.
_INSTALLED = frozenset({"torch", "builtins", "abc", "typing", "collections", "msgspec", "numpy"})
