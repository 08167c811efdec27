"""A valid card of each kind, as YAML reads it, and a way to make another of it."""

from typing import Any

import yaml

from harness.cards import FIGURES_WITH_EVIDENCE

Document = dict[str, Any]

WORKLOAD: Document = {
    "name": "blobs/two",
    "version": "1",
    "title": "Two blobs",
    "implementation": "blobs:Blobs",
    "tier": "embedded",
    "modality": "image",
    "metric": {"name": "accuracy", "direction": "maximise", "target": "0.9"},
    "data": {
        "source": "a generator",
        "sha256": {"training": "0" * 64, "evaluation": "1" * 64, "test": "2" * 64},
        "training_examples": "1000",
        "evaluation_examples": "500",
        "test_examples": "500",
    },
    "batch_size": "10",
    "precision": "float32",
    "grid_model_passes": "3000",
    "horizon_examples": "10000",
    "budget_paces": "1000",
    "drift_bound": "0.1",
    "recipe": {
        "optimizer": "adamw",
        "hyperparameters": {"lr": "0.001"},
        "warmup_fraction": "0.1",
        "final_lr_fraction": "0.0",
        "decay_exempt_roles": ["norm", "bias"],
    },
    "noise": {
        "runs": "10",
        "reached": "9",
        "metric_sigma": "0.01",
        "time_cv": "0.05",
        "passes_cv": "0.05",
        "false_reach_chance": "0.01",
        "evaluation_share": "0.05",
    },
    "parameters": "1234",
    "reference_seconds": "3.0",
    "evidence": dict.fromkeys(sorted(FIGURES_WITH_EVIDENCE), "a measurement"),
}

SUBMISSION: Document = {
    "name": "steady",
    "title": "Steady",
    "kind": "optimizer",
    "implementation": "steady:Steady",
    "paper": {"title": "On", "authors": "A", "year": "2020", "url": "https://example.org"},
    "hyperparameters": {
        "lr": {
            "default": "0.1",
            "minimum": "0.0",
            "search": {"low": "1.0e-4", "high": "1.0", "scale": "log"},
        },
        "beta1": {"default": "0.9", "minimum": "0.0", "maximum": "0.999"},
        "power": {"default": "2", "type": "integer"},
        "nesterov": {"default": "true", "type": "boolean"},
    },
    "tuned": {
        "blobs/two": {"version": "1", "point": {"lr": "0.2"}, "trials": "5", "source": "a study"}
    },
    "claim": {
        "metric": "steps",
        "baseline": "adamw",
        "workload": "blobs/two",
        "ratio": "0.5",
        "statement": "Half the steps.",
        "source": "https://example.org",
    },
}


def changed(document: Document, path: str, value: Any) -> Document:
    """Return a copy with the node at `path` (keys joined by |) set, or removed if it is None."""
    copy = yaml.safe_load(yaml.safe_dump(document))
    *parents, last = path.split("|")
    node = copy
    for key in parents:
        node = node[key]
    if value is None:
        del node[last]
    else:
        node[last] = value
    assert isinstance(copy, dict)
    return copy
