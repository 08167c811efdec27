"""Imports a submission's class, from a package or from a file outside any."""

import functools
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from harness.spec import Part


class DisqualifiedError(Exception):
    """The submission broke a rule of the contract; the message says which."""


def load_class(part: Part) -> type:
    """Return the class of `part`.

    Raises:
        DisqualifiedError: the module has no such class.
        Exception: whatever the submission's own code raises when it is imported.
    """
    if part.module is not None:
        module = importlib.import_module(part.module)
    else:
        assert part.file is not None
        module = _module_of_file(Path(part.file))
    found = vars(module).get(part.class_name)
    if not isinstance(found, type):
        raise DisqualifiedError(f"{part.name}: the module defines no class {part.class_name}")
    return found


@functools.cache
def _module_of_file(path: Path) -> ModuleType:
    """Run a file once, however many places use it: its classes share the module's state."""
    name = f"timetrial_submission_{path.stem}"  # ./random.py must not hide Python's own
    while name in sys.modules:
        name += "_"  # a file of the same name in another folder
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    try:
        specification.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
