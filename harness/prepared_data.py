"""Prepared data: each split of a workload, made once, cached as safetensors, checked by hash.

The training split and the held-back splits are separate files; the trainee is told only of
the first.
"""

import hashlib
import os

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.cards import WorkloadCard
from harness.errors import UsageError
from harness.prepared_paths import SPLITS, Split, split_path
from harness.workload import Workload


def prepare(workload: Workload) -> None:
    """Make every split and store it.

    Raises:
        UsageError: what was made is not what the card froze.
    """
    card = workload.card
    splits = workload.prepare()
    for split in SPLITS:
        tensors = {name: tensor.contiguous() for name, tensor in splits[split].items()}
        _check(card, split, tensors)
        path = split_path(card, split)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(f".{os.getpid()}.tmp")
        save_file(tensors, aside)
        aside.replace(path)


def load_split(card: WorkloadCard, split: Split, device: torch.device) -> dict[str, Tensor]:
    """Return a prepared split's tensors on `device`.

    Raises:
        UsageError: the cached file is not what the card froze.
    """
    tensors = load_file(split_path(card, split))
    _check(card, split, tensors)
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _check(card: WorkloadCard, split: Split, tensors: dict[str, Tensor]) -> None:
    found = tensors_sha256(tensors)
    if found != card.data.sha256[split]:
        raise UsageError(
            f"The {split} data of {card.name} version {card.version} hashes to {found}, the card "
            f"says {card.data.sha256[split]}. Delete {split_path(card, split).parent} and try "
            f"again; if it stays so, the source of the data ({card.data.source}) has changed."
        )


def tensors_sha256(tensors: dict[str, Tensor]) -> str:
    """Return the hash of names, dtypes, shapes and bytes, whatever the file format."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
