"""Limits the memory of this process, so that too much fails here and not in the kernel."""

import contextlib
import resource
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def data_limit(limit_bytes: int | None) -> Iterator[None]:
    """Hold the process's data segment (all private writable memory) below the limit, None: free.

    An allocation over it fails in this process alone and can be reported; the machine never
    comes under pressure. The former limit is back at the end, since reporting the failure needs
    memory too.
    """
    if sys.platform != "linux":
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = hard if limit_bytes is None else limit_bytes
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
