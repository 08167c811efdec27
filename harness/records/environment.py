"""What a run ran on: versions, processor, GPU, operating system, and the code's revision."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

import psutil

import harness
from harness.device import Device, cpu_model

VARIABLES = ("OMP_", "MKL_", "KMP_", "CUDA_", "TORCH", "PYTORCH", "NCCL_", "CUBLAS_")


def describe_environment(device: Device) -> dict[str, object]:
    """Return the environment as plain values for environment.json."""
    return {
        "python": sys.version,
        "platform": platform.platform(),
        "packages": {
            distribution.name: distribution.version
            for distribution in sorted(
                importlib.metadata.distributions(), key=lambda d: str(d.name).lower()
            )
        },
        "cpu": {
            "model": cpu_model(),
            "logical": psutil.cpu_count(),
            "physical": psutil.cpu_count(logical=False),
            "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            "load_average": os.getloadavg(),
        },
        "memory_bytes": psutil.virtual_memory().total,
        "gpu": None
        if device.gpu is None
        else {
            "name": device.gpu.name,
            "uuid": device.gpu.uuid,
            "driver": device.gpu.driver,
            "further_uuids": [gpu.uuid for gpu in device.further_gpus],
        },
        "git": _revision(Path(harness.__file__).parents[1]),
        "variables": {
            name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)
        },
    }


def _revision(folder: Path) -> dict[str, object] | None:
    """Return commit and dirtiness of the checkout that the harness runs from, if it is one."""
    if not (folder / ".git").exists():
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None
