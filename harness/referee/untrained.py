"""What the metric is worth before any training."""

import statistics
from collections.abc import Iterable

import torch

from harness.prepared_data import load_split, prepare, starting_model
from harness.prepared_paths import is_prepared
from harness.seeds import SeedStreams
from harness.workload import Workload


def untrained_value(workload: Workload, seeds: Iterable[int], device: torch.device) -> float:
    """Return the mean value of the metric that decides, of the models that runs start from.

    Prepares the workload's data where the cache lacks it.
    """
    card = workload.card
    if not is_prepared(card):
        prepare(workload)
    data = load_split(card, "evaluation", device)
    values = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SeedStreams.from_seed(seed).initialisation)
            model = starting_model(workload).to(device).eval()
        with torch.inference_mode():
            values.append(workload.evaluate(model, data)[card.metric.name])
    return statistics.fmean(values)
