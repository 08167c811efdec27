"""gpt/shakespeare and gpt/gutenberg: windows, splits of texts made here, loss, metric, models.

What the official files say is checked where they are: set BENCH_DATA_DIR.
"""

import math
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from real_data import needs_files
from torch import Tensor, nn

from harness import catalogue
from harness.prepared_data import tensors_sha256
from harness.workload import load_workload
from workloads.gpt import characters, gutenberg, shakespeare
from workloads.gpt.characters import CharacterWorkload, encode, read_text, windows
from workloads.gpt.model import GPT

MODULES: dict[str, ModuleType] = {"gpt/shakespeare": shakespeare, "gpt/gutenberg": gutenberg}
NAMES = tuple(MODULES)
TRAINING, HELD_OUT = 1_000, 1_300  # characters of a small text

Splits = dict[str, dict[str, Tensor]]


def workload_of(name: str, **changes: Any) -> CharacterWorkload:
    entry = catalogue.workload(name)
    found = load_workload(entry.module, msgspec.structs.replace(entry.card, **changes))
    assert isinstance(found, CharacterWorkload)
    return found


@pytest.fixture(params=NAMES)
def workload(request: pytest.FixtureRequest) -> CharacterWorkload:
    return workload_of(request.param)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def text_of(symbols: str, length: int) -> str:
    return "".join(symbols[i] for i in np.random.RandomState(0).randint(0, len(symbols), length))


# Texts.


def test_encoding_gives_each_character_its_place_among_the_symbols() -> None:
    tokens = encode("käse!\r\n😀a", "!\n\räaeks😀")
    assert tokens.dtype == torch.uint8
    assert tokens.tolist() == [6, 3, 7, 5, 0, 2, 1, 8, 4]
    assert encode("", "ab").tolist() == []


def test_a_character_that_is_no_symbol_is_refused_and_named() -> None:
    with pytest.raises(ValueError, match=r"missing: \['c', 'é'\]"):
        encode("abcébc", "ab")
    with pytest.raises(ValueError, match="257 symbols are too many"):
        encode("a", "a" + "".join(map(chr, range(1000, 1256))))


def test_line_ends_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes("a\r\nb\rc\u2028ä\n".encode())
    assert read_text(tmp_path / "text") == "a\r\nb\rc\u2028ä\n"
    (tmp_path / "text").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="utf-8"):
        read_text(tmp_path / "text")


def test_windows_begin_every_stride_and_none_is_short() -> None:
    tokens = torch.arange(14, dtype=torch.uint8)
    assert windows(tokens, 4, 3).tolist() == [[s, s + 1, s + 2, s + 3, s + 4] for s in (0, 3, 6, 9)]
    assert len(windows(tokens[:13], 4, 3)) == 3
    side_by_side = windows(tokens, 4, 4)
    assert side_by_side[:, 1:].flatten().tolist() == list(range(1, 13))  # each target once
    assert side_by_side.is_contiguous()


# Splits of a small text.


def small_splits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Splits, Splits]:
    text = text_of(shakespeare.SYMBOLS, TRAINING + HELD_OUT)
    (folder / "text").write_text(text, newline="")
    monkeypatch.setattr(shakespeare, "TRAINING_CHARACTERS", TRAINING)
    monkeypatch.setattr(CharacterWorkload, "path", lambda self, name: folder / "text")
    workload = workload_of("gpt/shakespeare")
    before = torch.get_rng_state()
    splits, again = workload.prepare(), workload.prepare()
    assert torch.equal(before, torch.get_rng_state())
    return text, splits, again


def test_splits_are_windows_of_their_parts_of_the_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, splits, again = small_splits(tmp_path, monkeypatch)
    context, stride = shakespeare.GPTShakespeare.context, shakespeare.STRIDE
    half = TRAINING + HELD_OUT // 2
    parts = {
        "training": (text[:TRAINING], stride),
        "evaluation": (text[TRAINING:half], context),
        "test": (text[half:], context),
    }
    assert list(splits) == list(parts)
    for name, (part, step) in parts.items():
        tokens = splits[name]["tokens"]
        assert list(splits[name]) == ["tokens"] and tokens.dtype == torch.uint8
        starts = range(0, len(part) - context, step)
        assert [
            "".join(shakespeare.SYMBOLS[token] for token in row) for row in tokens.tolist()
        ] == [part[start : start + context + 1] for start in starts]
        assert tokens.numpy().tobytes() == again[name]["tokens"].numpy().tobytes()


def test_gutenbergs_held_back_windows_are_spread_over_the_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, every = gutenberg.GPTGutenberg.context, gutenberg.EVERY
    texts = [text_of(gutenberg.SYMBOLS, n) for n in (1_000, 2 * every * context + 1)]
    for file, text in zip((gutenberg.TRAINING_FILE, gutenberg.HELD_BACK_FILE), texts, strict=True):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text, newline="")
    monkeypatch.setattr(CharacterWorkload, "path", lambda self, name: tmp_path / name)
    splits = gutenberg.GPTGutenberg(catalogue.workload("gpt/shakespeare").card).prepare()
    starts = {
        "training": (texts[0], range(0, 1_000 - context, context)),
        "evaluation": (texts[1], (0, every * context)),
        "test": (texts[1], (every // 2 * context, every * 3 // 2 * context)),
    }
    for name, (text, places) in starts.items():
        rows = splits[name]["tokens"].tolist()
        assert ["".join(gutenberg.SYMBOLS[token] for token in row) for row in rows] == [
            text[place : place + context + 1] for place in places
        ]
    assert list(gutenberg.SYMBOLS) == sorted(set(gutenberg.SYMBOLS))
    assert len(gutenberg.SYMBOLS) == 129


# Batches, loss and metric.


def test_a_batch_predicts_the_characters_that_follow(workload: CharacterWorkload) -> None:
    tokens = torch.randint(
        workload.symbol_count,
        (9, workload.context + 1),
        dtype=torch.uint8,
        generator=generator(0),
    )
    kept = tokens.clone()
    indices = torch.tensor([7, 0, 7, 8])
    inputs, targets = workload.training_batch({"tokens": tokens}, indices, generator(0))
    assert inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(inputs, tokens[indices, :-1].long())
    assert torch.equal(targets, tokens[indices, 1:].long())
    targets.zero_()  # the batch is a copy
    assert torch.equal(tokens, kept)


def test_synthetic_batch_looks_like_a_real_one(workload: CharacterWorkload) -> None:
    inputs, targets = workload.synthetic_batch(64, generator(0))
    assert inputs.shape == targets.shape == (64, workload.context)
    assert inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert inputs.unique().tolist() == list(range(workload.symbol_count))
    again = workload.synthetic_batch(64, generator(0))
    assert torch.equal(inputs, again[0]) and torch.equal(targets, again[1])


def test_loss_against_cross_entropy_by_hand(workload: CharacterWorkload) -> None:
    outputs = torch.randn(2, 3, 5, dtype=torch.float64, generator=generator(0))
    targets = torch.tensor([[4, 0, 2], [1, 1, 3]])
    for smoothing in (0.0, 0.1):
        losses = workload.per_example_loss(outputs, targets, smoothing)
        assert losses.shape == (2,) and losses.dtype == torch.float64
        for rows, truths, loss in zip(
            outputs.tolist(), targets.tolist(), losses.tolist(), strict=True
        ):
            total = 0.0
            for row, truth in zip(rows, truths, strict=True):
                log_sum = math.log(sum(math.exp(z) for z in row))
                uniform = sum(log_sum - z for z in row) / 5
                total += (1 - smoothing) * (log_sum - row[truth]) + smoothing * uniform
            assert loss == pytest.approx(total / 3, rel=1e-12)


class ExpectsTheSame(nn.Module):
    """The character just read comes again with probability one half."""

    def __init__(self, symbols: int) -> None:
        super().__init__()
        self.symbols = symbols

    def forward(self, tokens: Tensor) -> Tensor:
        same = nn.functional.one_hot(tokens, self.symbols).bool()
        return torch.where(same, 0.5, 0.5 / (self.symbols - 1)).log()


def test_metric_by_hand(workload: CharacterWorkload, monkeypatch: pytest.MonkeyPatch) -> None:
    symbols = workload.symbol_count
    tokens = torch.randint(3, (7, workload.context + 1), dtype=torch.uint8, generator=generator(1))
    again = [int(row[t] == row[t + 1]) for row in tokens.tolist() for t in range(workload.context)]
    share = sum(again) / len(again)
    expected = -share * math.log(0.5) - (1 - share) * math.log(0.5 / (symbols - 1))
    for batch in (1, 3, 7, 100):
        monkeypatch.setattr(characters, "EVALUATION_BATCH", batch)
        with torch.inference_mode():
            metrics = workload.evaluate(ExpectsTheSame(symbols), {"tokens": tokens})
        assert metrics == pytest.approx({"loss": expected, "accuracy": share}, rel=1e-6)


# Models.


def test_the_model_is_the_cards_and_comes_from_the_global_seed(
    workload: CharacterWorkload,
) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    torch.manual_seed(0)
    twin = workload.build_model()
    assert isinstance(model, GPT) and model.training
    assert sum(p.numel() for p in model.parameters()) == workload.card.parameters
    assert model.head.out_features == model.tokens.num_embeddings == workload.symbol_count
    assert model.positions.num_embeddings == workload.context
    names = dict(model.named_parameters())
    assert workload.head_parameters <= names.keys()
    assert all(torch.equal(names[name], tensor) for name, tensor in twin.named_parameters())


def test_every_parameter_learns_and_the_loss_can_be_differentiated_twice(
    workload: CharacterWorkload,
) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    inputs, targets = workload.synthetic_batch(2, generator(0))
    parameters = list(model.parameters())
    loss = workload.per_example_loss(model(inputs), targets, 0.0).mean()
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    assert all(gradient.any() for gradient in gradients)
    curvature = torch.autograd.grad(sum(g.square().sum() for g in gradients), parameters)
    assert all(torch.isfinite(tensor).all() and tensor.any() for tensor in curvature)


@pytest.mark.parametrize(
    "choice", [{"width": "80"}, {"activation": "relu"}, {"normalisation": "rms"}], ids=str
)
@pytest.mark.parametrize("name", NAMES)
def test_each_choice_of_a_card_changes_the_model(name: str, choice: dict[str, str]) -> None:
    inputs, _ = workload_of(name).synthetic_batch(2, generator(0))
    logits = []
    for model in ({}, choice):
        torch.manual_seed(0)
        logits.append(workload_of(name, model=model).build_model()(inputs))
    assert (logits[0] - logits[1]).abs().max() > 1e-3


# The official files.


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=needs_files(name)) for name in NAMES],
)
def official(request: pytest.FixtureRequest) -> tuple[CharacterWorkload, Splits]:
    workload = workload_of(request.param)
    return workload, workload.prepare()


def test_official_splits_are_those_of_the_card(official: tuple[CharacterWorkload, Splits]) -> None:
    workload, splits = official
    data = workload.card.data
    sizes = {name: len(tensors["tokens"]) for name, tensors in splits.items()}
    assert sizes == {
        "training": data.training_examples,
        "evaluation": data.evaluation_examples,
        "test": data.test_examples,
    }
    assert {name: tensors_sha256(tensors) for name, tensors in splits.items()} == data.sha256


def test_official_symbols_are_all_there_and_in_order(
    official: tuple[CharacterWorkload, Splits],
) -> None:
    workload, splits = official
    symbols = MODULES[workload.card.name].SYMBOLS
    assert list(symbols) == sorted(set(symbols)) and len(symbols) == workload.symbol_count
    found = torch.cat([tensors["tokens"].unique() for tensors in splits.values()]).unique()
    assert found.tolist() == list(range(len(symbols)))


def test_no_held_back_window_stands_in_training(
    official: tuple[CharacterWorkload, Splits],
) -> None:
    _, splits = official
    rows = {
        name: {bytes(row) for row in tensors["tokens"].numpy()} for name, tensors in splits.items()
    }
    assert not rows["evaluation"] & rows["training"]
    assert not rows["test"] & rows["training"]
    assert not rows["evaluation"] & rows["test"]


@needs_files("gpt/shakespeare")
def test_official_text_begins_and_is_cut_where_nanogpt_cuts_it() -> None:
    workload = workload_of("gpt/shakespeare")
    text = read_text(workload.path(shakespeare.FILE))
    assert len(text) == 1_115_394 and int(len(text) * 0.9) == shakespeare.TRAINING_CHARACTERS
    assert text.startswith("First Citizen:\nBefore we proceed any further, hear me speak.\n")
