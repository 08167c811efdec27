"""Where prepared data lies; apart from the data itself, so that asking never loads torch."""

import hashlib
import importlib.metadata
import re
from pathlib import Path
from typing import Literal

from harness.cards import WorkloadCard
from harness.device import cpu_model
from harness.home import cache_folder

Split = Literal["training", "evaluation", "test"]
SPLITS: tuple[Split, ...] = ("training", "evaluation", "test")


def split_path(card: WorkloadCard, split: Split) -> Path:
    """Return where a split lies once prepared; another hash is another file."""
    name = re.sub(r"[^a-z0-9]+", "-", card.name)
    data = card.data
    made_of = data.sha256[split] if data.sha256 else _files_sha256(card)
    file = f"{split}-{made_of[:16]}.safetensors"
    return cache_folder() / "prepared" / f"{name}-v{card.version}" / file


def base_path(card: WorkloadCard) -> Path:
    """Return where the weights lie that every run of a pretrained workload starts from.

    Trained on this machine; another processor or torch rounds otherwise, so each has its own.
    """
    trained_by = f"{cpu_model()} {importlib.metadata.version('torch')}"
    digest = hashlib.sha256(trained_by.encode()).hexdigest()[:16]
    return split_path(card, "training").with_name(f"base-{digest}.safetensors")


def _files_sha256(card: WorkloadCard) -> str:
    hashes = "\n".join(file.sha256 for file in card.data.files)
    return hashlib.sha256(hashes.encode()).hexdigest()


def is_prepared(card: WorkloadCard) -> bool:
    """Return whether every split, and the base weights if there are any, lie in the cache."""
    paths = [split_path(card, split) for split in SPLITS]
    if card.pretrained:
        paths.append(base_path(card))
    return all(path.is_file() for path in paths)
