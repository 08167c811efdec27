"""Where prepared data lies; apart from the data itself, so that asking never loads torch."""

import re
from pathlib import Path
from typing import Literal

from harness.cards import WorkloadCard
from harness.home import cache_folder

Split = Literal["training", "evaluation", "test"]
SPLITS: tuple[Split, ...] = ("training", "evaluation", "test")


def split_path(card: WorkloadCard, split: Split) -> Path:
    """Return where a split lies once prepared; another hash is another file."""
    name = re.sub(r"[^a-z0-9]+", "-", card.name)
    file = f"{split}-{card.data.sha256[split][:16]}.safetensors"
    return cache_folder() / "prepared" / f"{name}-v{card.version}" / file


def is_prepared(card: WorkloadCard) -> bool:
    """Return whether every split lies in the cache."""
    return all(split_path(card, split).is_file() for split in SPLITS)
