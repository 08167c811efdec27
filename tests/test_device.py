import importlib.metadata
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pynvml
import pytest
from telemetry.nvml_double import Device as GpuDouble
from telemetry.nvml_double import NvmlDouble, error

from harness import device
from harness.device import Device, Gpu, cpu_model, machine_class, resolve_device, visible_gpus
from harness.errors import UsageError

H100 = "GPU-aaaa-1111"
A100 = "GPU-aaab-2222"


class NvmlInventory(NvmlDouble):
    """The double with what tells GPUs apart: count, names, driver."""

    names: ClassVar = {H100: "NVIDIA H100", A100: "NVIDIA A100"}
    driver: str | Exception = "570.1"

    def nvmlSystemGetDriverVersion(self) -> str:
        if isinstance(self.driver, Exception):
            raise self.driver
        return self.driver

    def nvmlDeviceGetCount(self) -> int:
        return len(self.devices)

    def nvmlDeviceGetUUID(self, handle: GpuDouble) -> str:
        return handle.uuid

    def nvmlDeviceGetName(self, handle: GpuDouble) -> str:
        return self.names[handle.uuid]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")  # so that it is put back


@pytest.fixture
def torch_build(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def pretend(version: str) -> None:
        monkeypatch.setattr(importlib.metadata, "version", {"torch": version}.__getitem__)

    pretend("2.13.0+cu130")
    return pretend


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch, torch_build: Callable[[str], None]) -> NvmlInventory:
    double = NvmlInventory(GpuDouble(uuid=H100), GpuDouble(uuid=A100))
    monkeypatch.setitem(sys.modules, "pynvml", double)
    return double


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch, torch_build: Callable[[str], None]) -> None:
    broken = NvmlInventory(init_error=error(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    monkeypatch.setitem(sys.modules, "pynvml", broken)


def gpu(index: int, uuid: str) -> Gpu:
    return Gpu(index=index, uuid=uuid, name=NvmlInventory.names[uuid], driver="570.1")


@pytest.mark.parametrize(
    ("text", "name", "uuid"),
    [("auto", "cuda:0", H100), ("cuda", "cuda:0", H100), ("cuda:1", "cuda:1", A100)],
)
def test_a_gpu_is_found_by_cudas_number(
    nvml: NvmlInventory, text: str, name: str, uuid: str
) -> None:
    found = resolve_device(text)
    assert found == Device(name=name, gpu=gpu(int(name[-1]), uuid))
    assert found.lease_name == uuid
    assert nvml.initialised == 0  # shut down as often as initialised


def test_cuda_is_told_to_count_as_nvml_does(nvml: NvmlInventory) -> None:
    resolve_device("cuda")
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_the_cpu_asks_nobody(nvml: NvmlInventory) -> None:
    nvml.init_error = AssertionError("asked")
    assert resolve_device("cpu") == Device(name="cpu", gpu=None)
    assert resolve_device("cpu").lease_name == "cpu"
    assert os.environ["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_auto_is_the_cpu_and_cuda_an_error() -> None:
    assert resolve_device("auto").name == "cpu"
    for text in ("cuda", "cuda:0", "cuda:7"):
        with pytest.raises(UsageError, match=rf"'{text}' does not exist here\. Legal: auto, cpu\."):
            resolve_device(text)


@pytest.mark.usefixtures("nvml")
def test_a_cpu_build_of_torch_uses_no_gpu(torch_build: Callable[[str], None]) -> None:
    torch_build("2.13.0+cpu")
    assert resolve_device("auto").name == "cpu"
    with pytest.raises(UsageError, match=r"needs a CUDA build of torch; this is 2\.13\.0\+cpu"):
        resolve_device("cuda:1")


@pytest.mark.usefixtures("nvml")
def test_a_number_too_many_lists_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"Legal: auto, cpu, cuda:0, cuda:1\."):
        resolve_device("cuda:2")


@pytest.mark.parametrize(
    "text",
    ["", "gpu", "CUDA", "cuda:", "cuda:x", "cuda:-1", "cuda:1 ", "cuda:1\n", "cuda:٣", "cpu:0"],
)
def test_another_word_is_no_device(text: str) -> None:
    with pytest.raises(UsageError, match=r"does not exist.* Legal: auto, cpu, cuda, cuda:N\."):
        resolve_device(text)


def test_a_number_of_many_digits_is_no_device() -> None:
    with pytest.raises(UsageError, match="does not exist"):
        resolve_device("cuda:" + "9" * 5000)  # more than int() takes


def test_the_nearest_device_is_named() -> None:
    with pytest.raises(UsageError, match=r"'CUDA' does not exist\. Did you mean 'cuda'"):
        resolve_device("CUDA")


@pytest.mark.parametrize(
    ("variable", "uuids"),
    [
        ("0", [H100]),
        ("1", [A100]),
        ("1,0", [A100, H100]),
        (" 1 , 0 ", [A100, H100]),
        (A100, [A100]),
        (f"{A100},{H100}", [A100, H100]),
        ("GPU-aaab", [A100]),  # a unique beginning is enough
        ("GPU-aaa", []),
        ("GPU-zz", []),
        ("", []),
        ("-1", []),
        ("0,-1,1", [H100]),  # CUDA ends at the first that does not exist
        ("0,7,1", [H100]),
        ("7", []),
        ("NoDevFiles", []),
        ("none", []),
    ],
)
@pytest.mark.usefixtures("nvml")
def test_cuda_visible_devices_is_read_as_cuda_reads_it(
    monkeypatch: pytest.MonkeyPatch, variable: str, uuids: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert visible_gpus() == [gpu(index, uuid) for index, uuid in enumerate(uuids)]
    assert resolve_device("auto").name == ("cuda:0" if uuids else "cpu")


@pytest.mark.parametrize("uuid", ["MIG-77aa", "MIG-GPU-aaaa-1111/1/0"])
@pytest.mark.usefixtures("nvml")
def test_a_mig_instance_is_a_device(monkeypatch: pytest.MonkeyPatch, uuid: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", uuid)
    found = resolve_device("cuda")
    assert found.gpu == Gpu(index=0, uuid=uuid, name="MIG instance", driver="570.1")
    assert found.lease_name == uuid
    with pytest.raises(UsageError, match="does not exist here"):
        resolve_device("cuda:1")


def test_a_driver_that_fails_later_counts_as_none(nvml: NvmlInventory) -> None:
    nvml.driver = error(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
    assert visible_gpus() == []
    assert nvml.initialised == 0


def test_the_machine_class_names_what_results_depend_on(
    monkeypatch: pytest.MonkeyPatch, nvml: NvmlInventory
) -> None:
    monkeypatch.setattr(device, "cpu_model", lambda: "A CPU @ 2 GHz")
    assert machine_class(resolve_device("cpu"), 1) == (
        "A CPU @ 2 GHz, 1 training core · torch 2.13.0+cu130"
    )
    assert machine_class(resolve_device("cuda:1"), 7) == (
        "1 × NVIDIA A100, driver 570.1 · A CPU @ 2 GHz, 7 training cores · torch 2.13.0+cu130"
    )


def test_the_cpu_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu_model.cache_clear()
    texts = {"model name\t: Some   CPU  v4\nmodel name\t: other\n": "Some CPU v4"}
    for text, name in texts.items():
        monkeypatch.setattr(Path, "read_text", lambda self, text=text: text)
        assert cpu_model() == name
        cpu_model.cache_clear()
    monkeypatch.setattr(Path, "read_text", lambda self: "Processor: v8\n")
    assert cpu_model() != ""
    cpu_model.cache_clear()


@pytest.mark.usefixtures("nvml")
def test_processes_have_the_gpus_that_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    alike = dict.fromkeys(NvmlInventory.names, "One kind")
    monkeypatch.setattr(NvmlInventory, "names", alike)
    found = resolve_device("auto", 2)
    assert found.name == "cuda:0" and [one.index for one in found.gpus] == [0, 1]
    assert found.further_gpus == (found.gpus[1],)
    assert machine_class(found, 4, nproc=2).startswith("2 × One kind, driver 570.1 · ")
    assert "4 training cores in 2 processes" in machine_class(found, 4, nproc=2)
    assert resolve_device("cpu", 5) == Device(name="cpu", gpu=None)
    with pytest.raises(UsageError, match=r"--nproc 2 needs 2 GPUs.* from cuda:1 on there is 1"):
        resolve_device("cuda:1", 2)
    with pytest.raises(UsageError, match=r"--nproc 3 needs 3 GPUs.* there are 2 here"):
        resolve_device("cuda", 3)


@pytest.mark.usefixtures("nvml")
def test_gpus_of_two_kinds_do_not_train_together() -> None:
    with pytest.raises(UsageError, match="The GPUs differ"):
        resolve_device("cuda", 2)
