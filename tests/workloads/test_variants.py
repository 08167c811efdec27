"""Held-out variants: the base's task and data, a model that differs, figures of their own."""

import pytest
import torch

from harness import catalogue
from harness.cards import WorkloadCard
from harness.errors import UsageError
from harness.suites import suites
from harness.workload import Workload, load_workload

VARIANTS = [
    name for name, entry in catalogue.workloads().items() if entry.card.variant_of is not None
]


def loaded(name: str) -> Workload:
    entry = catalogue.workload(name)
    return load_workload(entry.module, entry.card)


def base_of(name: str) -> str:
    return str(catalogue.workload(name).card.variant_of)


def test_every_core_workload_has_variants() -> None:
    varied = {base_of(name) for name in VARIANTS}
    assert varied == {card.name for card in suites()["core"].workloads}
    for base in varied:
        assert sum(base_of(name) == base for name in VARIANTS) >= 2


@pytest.mark.parametrize("name", VARIANTS)
def test_the_task_is_the_bases(name: str) -> None:
    card, base = catalogue.workload(name).card, catalogue.workload(base_of(name)).card
    assert card.data == base.data and card.batch_size == base.batch_size
    assert card.recipe == base.recipe and card.horizon_examples == base.horizon_examples
    assert (card.metric.name, card.metric.direction) == (base.metric.name, base.metric.direction)
    assert card.model and not card.suites
    for figure in ("target", "grid", "budget", "noise", "reference_seconds"):
        assert card.evidence[figure] != base.evidence[figure]


@pytest.mark.parametrize("name", VARIANTS)
def test_the_model_differs_as_the_card_says(name: str) -> None:
    outputs, counts = [], []
    for workload in (loaded(name), loaded(base_of(name))):
        torch.manual_seed(0)
        model = workload.build_model()
        dtype = torch.float64 if workload.card.precision == "float64" else torch.float32
        inputs, _ = workload.synthetic_batch(8, torch.Generator().manual_seed(0))
        if inputs.is_floating_point():
            inputs = inputs.to(dtype)
        outputs.append(model.to(dtype)(inputs))
        counts.append(sum(p.numel() for p in model.parameters()))
        assert counts[-1] == workload.card.parameters
    assert outputs[0].shape == outputs[1].shape
    assert not torch.equal(*outputs)


@pytest.mark.parametrize("name", sorted({base_of(name) for name in VARIANTS}))
def test_a_choice_that_the_family_lacks_is_refused(name: str) -> None:
    entry = catalogue.workload(name)
    for model, said in (
        ({"dropuot": "0.1"}, rf"The model of {name} is invalid, field `dropuot`: unknown"),
        (dict.fromkeys(catalogue.workload(variant(name)).card.model, "tnah"), "is invalid, field"),
    ):
        card: WorkloadCard = type(entry.card)(
            **{f: getattr(entry.card, f) for f in entry.card.__struct_fields__} | {"model": model}
        )
        with pytest.raises(UsageError, match=said):
            load_workload(entry.module, card).build_model()


def variant(base: str) -> str:
    return next(name for name in VARIANTS if base_of(name) == base)
