"""The device a run trains on, and the machine class it belongs to. Never imports torch."""

import functools
import importlib.metadata
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError, did_you_mean


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """A GPU as CUDA numbers it and as NVML knows it."""

    index: int
    uuid: str
    name: str
    driver: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """`cpu`, or `cuda:N` with its GPU; further ranks have the GPUs that follow it."""

    name: str
    gpu: Gpu | None
    further_gpus: tuple[Gpu, ...] = ()

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs of all ranks, in their order."""
        return () if self.gpu is None else (self.gpu, *self.further_gpus)

    @property
    def lease_name(self) -> str:
        """What a run must hold alone, beside its further GPUs."""
        return "cpu" if self.gpu is None else self.gpu.uuid


def resolve_device(text: str, nproc: int = 1) -> Device:
    """Return the device for `auto`, `cpu`, `cuda` or `cuda:N`; the first of `nproc` GPUs.

    Raises:
        UsageError: no such device here, or GPUs that are too few or of different kinds.
    """
    device = _first_device(text)
    if device.gpu is None or nproc == 1:
        return device
    first = device.gpu.index
    gpus = visible_gpus()[first : first + nproc]
    if len(gpus) < nproc:
        raise UsageError(
            f"--nproc {nproc} needs {nproc} GPUs, a process each; from {device.name} on there "
            f"{'is 1' if len(gpus) == 1 else f'are {len(gpus)}'} here. Use fewer, or --device cpu."
        )
    refuse_different(gpus)
    return Device(name=device.name, gpu=gpus[0], further_gpus=tuple(gpus[1:]))


def refuse_different(gpus: Sequence[Gpu]) -> None:
    """Raise UsageError unless all are of one kind."""
    kinds = sorted({gpu.name for gpu in gpus})
    if len(kinds) > 1:
        raise UsageError(
            f"The GPUs differ ({', '.join(kinds)}), and times on them do not compare. Choose some "
            "by CUDA_VISIBLE_DEVICES."
        )


def _first_device(text: str) -> Device:
    if text == "cpu":
        return Device(name="cpu", gpu=None)
    match = re.fullmatch(r"cuda(?::([0-9]{1,4}))?", text)
    if text != "auto" and not match:
        hint = did_you_mean(text.lower(), ("auto", "cpu", "cuda"))
        raise UsageError(
            f"The device {text!r} does not exist. {hint}Legal: auto, cpu, cuda, cuda:N."
        )
    # CUDA's own default order is "fastest first"; NVML counts by bus. Make both the latter.
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    gpus = visible_gpus()
    cpu_build = importlib.metadata.version("torch").endswith("+cpu")
    if text == "auto":
        return (
            Device(name="cuda:0", gpu=gpus[0]) if gpus and not cpu_build else _first_device("cpu")
        )
    assert match is not None
    index = int(match[1] or 0)
    if cpu_build:
        raise UsageError(
            f"The device {text!r} needs a CUDA build of torch; this is "
            f"{importlib.metadata.version('torch')}. Use --device cpu, or install one."
        )
    if index >= len(gpus):
        legal = ", ".join(["auto", "cpu", *(f"cuda:{gpu.index}" for gpu in gpus)])
        raise UsageError(f"The device {text!r} does not exist here. Legal: {legal}.")
    return Device(name=f"cuda:{index}", gpu=gpus[index])


def visible_gpus() -> list[Gpu]:
    """Return the GPUs that CUDA programs see here, in their order; none without a driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        found = [
            (str(pynvml.nvmlDeviceGetUUID(h)), str(pynvml.nvmlDeviceGetName(h))) for h in handles
        ]
        chosen = _visible(found, os.environ.get("CUDA_VISIBLE_DEVICES"))
        return [
            Gpu(index=index, uuid=uuid, name=name, driver=driver)
            for index, (uuid, name) in enumerate(chosen)
        ]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def _visible(found: list[tuple[str, str]], variable: str | None) -> list[tuple[str, str]]:
    """Apply CUDA_VISIBLE_DEVICES as CUDA does: up to the first entry that does not exist."""
    if variable is None:
        return found
    chosen: list[tuple[str, str]] = []
    for item in variable.split(","):
        word = item.strip()
        if word.isdigit() and int(word) < len(found):
            chosen.append(found[int(word)])
        elif word.startswith("MIG-"):
            chosen.append((word, "MIG instance"))
        elif word.startswith("GPU-"):
            matches = [gpu for gpu in found if gpu[0].startswith(word)]
            if len(matches) != 1:
                break
            chosen.append(matches[0])
        else:
            break
    return chosen


def machine_class(device: Device, training_cores: int, beside: int = 0, nproc: int = 1) -> str:
    """Return the class inside which results compare: CPU, cores used, GPUs, driver, torch.

    `beside` is how many other runs the machine carries at the same time, on cores of their own;
    `nproc` how many processes train together, on a GPU each or on the cores.
    """
    cpu = f"{cpu_model()}, {training_cores} training core{'s' if training_cores > 1 else ''}"
    if nproc > 1:
        cpu += f" in {nproc} processes"
    if beside:
        cpu += f" beside {beside} other run{'s' if beside > 1 else ''}"
    parts = [cpu, f"torch {importlib.metadata.version('torch')}"]
    if device.gpu is not None:
        parts.insert(0, f"{len(device.gpus)} × {device.gpu.name}, driver {device.gpu.driver}")
    return " · ".join(parts)


@functools.cache
def cpu_model() -> str:
    """Return the processor's marketing name, with runs of blanks folded."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    return " ".join(names[0].split()) if names else platform.machine()
