"""A Ray cluster as a sweep finds it: the connection, and the nodes that can take runs."""

import logging
import os
import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

from harness.errors import UsageError
from harness.sweeps.ray_node import Share

INSTALL = 'pip install "timetrial[ray]"'
ANSWER_S = 5.0
CORES_A_RUN = 2  # one trains, one referees
# Ray would try for a minute and more where something else listens.
_PATIENCE = {"RAY_gcs_server_port_wait_time_s": "1", "RAY_py_gcs_connect_timeout_s": "10"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A machine of the cluster and what it gives to Ray."""

    id: str
    name: str  # unique
    known_as: tuple[str, ...]
    cpus: int
    gpus: int

    def shares(self, device: str, jobs: int | None) -> list[Share]:
        """Return what each of its slots gets; none where it is too small."""
        gpu = device == "cuda"
        count = min(jobs or self.gpus, self.gpus) if gpu else jobs or 1
        if not gpu and self.cpus < CORES_A_RUN * count:
            return []
        return [
            Share(gpu=gpu, number=number, count=count, cpus=self.cpus) for number in range(count)
        ]

    def needs(self, share: Share) -> dict[str, int]:
        """Return what Ray must hold for a slot, so that it gives the same to nobody else."""
        if share.gpu:
            return {"num_gpus": 1, "num_cpus": self.cpus // self.gpus}
        return {"num_gpus": 0, "num_cpus": self.cpus // share.count}


def load_ray() -> ModuleType:
    """Import Ray, told to report its use to nobody.

    Raises:
        UsageError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Else it hides GPUs from what asks for none, and warns that it will cease to.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            f"--executor ray needs Ray ({error}). Install it: {INSTALL}; or use --executor local."
        ) from None
    return ray


def connect(address: str | None) -> None:
    """Connect this process to a cluster: `address`, else $RAY_ADDRESS, else this machine's.

    Raises:
        UsageError: Ray is not installed, the address is none, or no cluster answers there.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "auto"
    if "://" in address:
        raise UsageError(
            f"--ray-address {address!r} leads to a proxy, and a sweep must see the results itself. "
            "Start it on a machine of the cluster, with auto or HOST:PORT (usually port 6379)."
        )
    with _patience():
        ray = load_ray()
    if address != "auto":
        _require_listener(address)
    try:
        with _patience():
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UsageError(
            f"No Ray cluster could be joined ({address}: {reason}). Start one with `ray start "
            "--head`, and `ray start --address HOST:PORT` on its other machines; name it by "
            "--ray-address."
        ) from None


def find_nodes(names: Sequence[str]) -> list[Node]:
    """Return the living nodes, all or those named.

    Raises:
        UsageError: a name that no node has.
    """
    nodes = _named([node for node in load_ray().nodes() if node["Alive"]])
    for name in names:
        if not any(name in node.known_as for node in nodes):
            raise UsageError(
                f"--ray-nodes: no node {name!r} is alive. Nodes: "
                f"{'; '.join(', '.join(node.known_as) for node in nodes)}."
            )
    return [node for node in nodes if not names or set(names).intersection(node.known_as)]


def device_kind(device: str, nodes: Sequence[Node]) -> str:
    """Return `cpu` or `cuda` for what the user asked for.

    Raises:
        UsageError: no such device, or a certain GPU.
    """
    if device == "auto":
        return "cuda" if any(node.gpus for node in nodes) else "cpu"
    if device not in ("cpu", "cuda"):
        raise UsageError(
            f"--device {device!r} does not go with --executor ray, which gives each run a GPU of "
            "its own. Legal: auto, cpu, cuda."
        )
    return device


def _require_listener(address: str) -> None:
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit():
        raise UsageError(
            f"--ray-address {address!r} is no address. Legal: auto, HOST:PORT (usually port 6379)."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"No Ray cluster answers at {address} ({error}). See `ray status` on its head machine, "
            "or start one there: `ray start --head`."
        ) from None


@contextmanager
def _patience() -> Iterator[None]:
    added = {name: value for name, value in _PATIENCE.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _named(found: Sequence[Mapping[str, object]]) -> list[Node]:
    """Name a node by its host; by its id, too, where a host has several."""
    hosts = Counter(str(node["NodeManagerHostname"]) for node in found)
    nodes = []
    for node in found:
        host, number = str(node["NodeManagerHostname"]), str(node["NodeID"])
        name = host if hosts[host] == 1 else f"{host}-{number[:6]}"
        aliases = (name, host, str(node["NodeManagerAddress"]), str(node["NodeName"]))
        resources = node["Resources"]
        assert isinstance(resources, dict)
        nodes.append(
            Node(
                id=number,
                name=name,
                known_as=tuple(dict.fromkeys(aliases)),
                cpus=int(resources.get("CPU", 0)),
                gpus=int(resources.get("GPU", 0)),
            )
        )
    return nodes
