"""Ray clusters of several nodes on this machine, each with a raylet of its own."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Before Ray is first imported, by whichever test. No word to its makers; no processes in stock.
os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_metrics_collection": "0",
}

OBJECT_STORE_BYTES = 80 * 2**20  # the least that Ray takes


@contextmanager
def ray_cluster(head_cpus: int, *more_cpus: int) -> Iterator[Any]:
    """Yield a cluster with so many nodes and CPUs, whatever this machine has."""
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="r")  # its sockets' paths must be short
    # It notes its address in its default folder, which nobody makes where another is chosen.
    os.environ["RAY_TMPDIR"] = folder
    Path(folder, "ray").mkdir()
    each = {
        "object_store_memory": OBJECT_STORE_BYTES,
        "env_vars": {"XDG_CACHE_HOME": f"{folder}/cache", "TMPDIR": folder},
    }
    head = {"num_cpus": head_cpus, "temp_dir": folder, **each}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for cpus in more_cpus:
            cluster.add_node(num_cpus=cpus, **each)
        yield cluster
    finally:
        cluster.shutdown()
        del os.environ["RAY_TMPDIR"]
        shutil.rmtree(folder, ignore_errors=True)
