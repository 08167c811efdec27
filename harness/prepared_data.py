"""Prepared data: each split of a workload, made once, cached as safetensors, checked by hash.

The training split and the held-back splits are separate files; the trainee is told only of
the first.
"""

import hashlib
import secrets
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from harness.cards import WorkloadCard
from harness.errors import UsageError
from harness.prepared_paths import SPLITS, Split, base_path, split_path
from harness.workload import PretrainedWorkload, Workload, canonical_weights


def prepare(workload: Workload) -> None:
    """Make every split and store it.

    Raises:
        UsageError: what was made is not what the card froze, or cannot be stored.
    """
    card = workload.card
    splits = workload.prepare()
    contiguous = {
        split: {name: tensor.contiguous() for name, tensor in splits[split].items()}
        for split in SPLITS
    }
    for split in SPLITS:
        _check(card, split, contiguous[split])
    for split in SPLITS:
        _store(split_path(card, split), contiguous[split])
    if isinstance(workload, PretrainedWorkload):
        _store(base_path(card), dict(workload.pretrain()))


def starting_model(workload: Workload) -> nn.Module:
    """Return the model that a run starts with: freshly initialised, or the cached base.

    Raises:
        UsageError: the cached base is missing or does not fit the model.
    """
    model = workload.build_model()
    if isinstance(workload, PretrainedWorkload):
        path = base_path(workload.card)
        try:
            base = load_file(path)
            for name, tensor in canonical_weights(model).items():
                tensor.data.copy_(base[name])
        except (OSError, SafetensorError, RuntimeError, KeyError) as error:
            raise UsageError(
                f"The base weights of {workload.card.name} cannot be read: {error}. "
                f"Delete {path.parent}; the next run makes them anew."
            ) from None
    return model


def _store(path: Path, tensors: dict[str, Tensor]) -> None:
    # Another process may be preparing the same data: each writes aside, the last one stays.
    aside = path.with_name(f"{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, aside)
        aside.replace(path)
    except (OSError, SafetensorError) as error:
        if path.parent.is_dir():
            aside.unlink(missing_ok=True)
        raise UsageError(
            f"The prepared data {path} cannot be stored: {error}. "
            "Make room, or point XDG_CACHE_HOME to another folder."
        ) from None


def load_split(card: WorkloadCard, split: Split, device: torch.device) -> dict[str, Tensor]:
    """Return a prepared split's tensors on `device`.

    Raises:
        UsageError: the cached file is missing, damaged or not what the card froze.
    """
    path = split_path(card, split)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UsageError(
            f"The prepared {split} data of {card.name} cannot be read: {error}. "
            f"Delete {path.parent}; the next run makes it anew."
        ) from None
    _check(card, split, tensors)
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _check(card: WorkloadCard, split: Split, tensors: Mapping[str, Tensor]) -> None:
    if not card.data.sha256:  # the files were checked as they were opened
        return
    found = tensors_sha256(tensors)
    if found != card.data.sha256[split]:
        raise UsageError(
            f"The {split} data of {card.name} version {card.version} hashes to {found}, the card "
            f"says {card.data.sha256[split]}. Delete {split_path(card, split).parent} and try "
            f"again; if it stays so, the source of the data ({card.data.source}) has changed."
        )


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return the hash of names, dtypes, shapes and bytes, whatever the file format."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
