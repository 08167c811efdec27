"""translate/multi30k: byte pairs, splits of texts made here, batches, loss, BLEU, the model.

What the official files say is checked where they are: set BENCH_DATA_DIR.
"""

import gzip
import importlib.util
import math
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sacrebleu
import torch
from real_data import needs_files
from torch import Tensor, nn

from harness import catalogue
from harness.errors import UsageError
from harness.prepared_data import tensors_sha256
from workloads.translate import multi30k
from workloads.translate.byte_pairs import WORD, BytePairs, learn_merges, merged, normalised
from workloads.translate.model import BEGIN, END, PAD, UNKNOWN, Translator
from workloads.translate.multi30k import (
    LENGTH,
    SPECIALS,
    VOCABULARY,
    Multi30k,
    as_bytes,
    as_texts,
    padded,
    read_lines,
    shift,
)

Splits = dict[str, dict[str, Tensor]]

SMALL = {
    "train": [
        ("A dog runs.", "Ein Hund rennt."),
        ("Two dogs  run on a beach.\r", "Zwei Hunde rennen an einem Strand."),
        ("A\tman sleeps", "Ein Mann schläft"),
        ("A man and a man and " * 8, "Ein Mann und ein Mann"),  # too long
        ("Men run.", "Männer rennen, " * 20),  # too long
        ("A dog sleeps.", "Ein Hund schläft."),
    ],
    "val": [("A man runs.", "Ein Mann rennt."), ("Dogs run; ¿ " * 12, "Hunde rennen ☃.")],
    "test_2016_flickr": [("A beach", "Ein Strand")],
}


def workload_of(**changes: Any) -> Multi30k:
    card = catalogue.workload("translate/multi30k").card
    return Multi30k(msgspec.structs.replace(card, **changes))


@pytest.fixture(scope="module")
def workload() -> Multi30k:
    return workload_of()


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Byte pairs.


def merges_by_hand(words: dict[str, int], symbols: int) -> list[tuple[str, str]]:
    """The rule as it is defined: count all pairs anew before every merge."""
    splits = {word: list(word) for word in words}
    merges: list[tuple[str, str]] = []
    known = {letter for word in words for letter in word}
    while len(known) < symbols:
        counts: Counter[tuple[str, str]] = Counter()
        for word, split in splits.items():
            for i in range(len(split) - 1):
                counts[split[i], split[i + 1]] += words[word]
        if not counts:
            break
        pair = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(pair)
        known.add(pair[0] + pair[1])
        splits = {word: merged(split, pair) for word, split in splits.items()}
    return merges


def test_merging_takes_pairs_from_the_left() -> None:
    assert merged(list("aaab"), ("a", "a")) == ["aa", "a", "b"]
    assert merged(["ab", "a", "b", "a"], ("a", "b")) == ["ab", "ab", "a"]
    assert merged([], ("a", "b")) == []


def test_merges_are_those_of_counting_anew_each_time() -> None:
    text = " ".join(side for pairs in SMALL.values() for pair in pairs for side in pair)
    words = dict(Counter(WORD.findall(normalised(text + " aaaa aaaa banana bananas nana"))))
    letters = len({letter for word in words for letter in word})
    for more in (0, 1, 20, 60, 1000):  # the last: until no pair is left
        assert learn_merges(words, letters + more) == merges_by_hand(words, letters + more)
    backwards = dict(reversed(words.items()))
    assert learn_merges(backwards, letters + 60) == learn_merges(words, letters + 60)


def test_the_most_frequent_pair_is_merged_and_of_equal_ones_the_first() -> None:
    assert learn_merges({"xy": 2, "ab": 3, "cd": 3}, 9) == [("a", "b"), ("c", "d"), ("x", "y")]
    # "ab" and "c" come to be in two ways; one symbol of the two counts.
    assert len(learn_merges({"abc": 5, "xabc": 1, "bc": 9}, 7)) == 3


def test_words_split_as_they_did_in_learning() -> None:
    words = {" low": 5, " lower": 2, " newest": 6, " widest": 3}
    pairs = BytePairs(learn_merges(words, 20))
    splits = {word: list(word) for word in words}
    for merge in learn_merges(words, 20):
        splits = {word: merged(split, merge) for word, split in splits.items()}
    assert {word: pairs.split(word) for word in words} == splits
    assert pairs.split(" newest") == [" newest"]
    assert "".join(pairs.split(" lowest, ü!")) == " lowest, ü!"


def test_normalised_lines_are_covered_by_words() -> None:
    assert normalised("  Two\tdogs'  (big_ones) run. ") == " Two dogs' (big_ones) run."
    line = normalised("Ein „Hund“, 2-jährig (groß) …  läuft.")
    assert "".join(WORD.findall(line)) == line
    assert WORD.findall(" a b.") == [" a", " b", "."]
    assert normalised("") == ""


# Files and splits.


def test_only_line_feeds_end_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress("a\u2028b\n\nc\x0cd\r\n".encode()))
    assert read_lines(path) == [" a b", "", " c d"]
    path.write_bytes(b"no gzip")
    with pytest.raises(ValueError, match="no whole gzip file"):
        read_lines(path)
    path.write_bytes(gzip.compress(b"a" * 1000)[:-4])
    with pytest.raises(ValueError, match="no whole gzip file"):
        read_lines(path)


def test_texts_come_back_from_bytes() -> None:
    texts = ["", "Männer", " a", "☃"]
    rows = as_bytes(texts)
    assert rows.dtype == torch.uint8 and rows.shape == (4, 7)
    assert as_texts(rows) == texts
    assert padded([[1], [2, 3]], torch.int16, 4).tolist() == [[1, 0, 0, 0], [2, 3, 0, 0]]


def test_a_missing_metric_package_is_refused_before_a_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"sacrebleu.*pip install"):
        workload_of()


@pytest.fixture
def small(workload: Multi30k, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Splits:
    (tmp_path / multi30k.FOLDER).mkdir()
    for part, pairs in SMALL.items():
        for language, lines in zip(("en", "de"), zip(*pairs, strict=True), strict=True):
            path = tmp_path / multi30k.FOLDER / f"{part}.{language}.gz"
            path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
    monkeypatch.setattr(Multi30k, "path", lambda self, name: tmp_path / name)
    monkeypatch.setattr(multi30k, "VOCABULARY", 60)
    before = torch.get_rng_state()
    splits, again = workload.prepare(), workload.prepare()
    assert torch.equal(before, torch.get_rng_state())
    for name, tensors in splits.items():
        assert list(tensors) == list(again[name])
        for key, tensor in tensors.items():
            assert tensor.is_contiguous()
            assert tensor.numpy().tobytes() == again[name][key].numpy().tobytes()
    return splits


def written(tokens: Tensor, symbols: list[str]) -> list[str]:
    return ["".join(symbols[token] for token in row) for row in tokens.tolist()]


def test_tokens_spell_the_texts_of_the_small_files(small: Splits) -> None:
    assert list(small) == ["training", "evaluation", "test"]
    assert list(small["training"]) == ["source", "target"]
    vocabulary = small["evaluation"]["vocabulary"]
    assert torch.equal(vocabulary, small["test"]["vocabulary"])
    symbols = as_texts(vocabulary)
    assert symbols[:SPECIALS] == [""] * SPECIALS
    assert len(symbols) == len(set(symbols[SPECIALS:])) + SPECIALS == 60
    for tensors in small.values():
        for side in ("source", "target"):
            assert tensors[side].dtype == torch.int16 and tensors[side].shape[1] == LENGTH
            for row in tensors[side].tolist():
                end = row.index(END)
                assert row[end + 1 :] == [PAD] * (LENGTH - 1 - end)
                assert min(row[:end], default=SPECIALS) >= UNKNOWN
    kept = [SMALL["train"][i] for i in (0, 1, 2, 5)]
    for side, texts in zip(("source", "target"), zip(*kept, strict=True), strict=True):
        assert written(small["training"][side], symbols) == [normalised(text) for text in texts]
    assert written(small["test"]["target"], symbols) == [" Ein Strand"]


def test_held_back_sentences_are_cut_and_keep_their_references(small: Splits) -> None:
    evaluation = small["evaluation"]
    assert as_texts(evaluation["references"]) == ["Ein Mann rennt.", "Hunde rennen ☃."]
    assert evaluation["source"][1, -1] == END and UNKNOWN in evaluation["source"][1]
    assert evaluation["target"][1].tolist().count(UNKNOWN) == 1  # the snowman


# Batches and loss.


def test_a_batch_reads_the_source_and_what_stands_before_each_token(
    workload: Multi30k, small: Splits
) -> None:
    data = small["training"]
    indices = torch.tensor([2, 0, 2])
    inputs, targets = workload.training_batch(data, indices, generator(0))
    assert inputs.shape == (3, 2, LENGTH) and targets.shape == (3, LENGTH)
    assert inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(inputs[:, 0], data["source"][indices].long())
    assert torch.equal(targets, data["target"][indices].long())
    assert (inputs[:, 1, 0] == BEGIN).all()
    assert torch.equal(inputs[:, 1, 1:], targets[:, :-1])


def test_synthetic_batch_looks_like_a_real_one(workload: Multi30k) -> None:
    inputs, targets = workload.synthetic_batch(64, generator(0))
    assert inputs.shape == (64, 2, LENGTH) and targets.shape == (64, LENGTH)
    assert inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(inputs[:, 1], shift(targets))
    for row in [*inputs[:, 0].tolist(), *targets.tolist()]:
        end = row.index(END)
        assert end >= 8 and row[end + 1 :] == [PAD] * (LENGTH - 1 - end)
        assert all(SPECIALS <= token < VOCABULARY for token in row[:end])
    again = workload.synthetic_batch(64, generator(0))
    assert torch.equal(inputs, again[0]) and torch.equal(targets, again[1])


def test_loss_against_cross_entropy_by_hand(workload: Multi30k) -> None:
    outputs = torch.randn(2, 3, 6, dtype=torch.float64, generator=generator(0))
    targets = torch.tensor([[4, 5, END], [5, END, PAD]])
    for smoothing in (0.0, 0.1):
        losses = workload.per_example_loss(outputs, targets, smoothing)
        assert losses.shape == (2,) and losses.dtype == torch.float64
        for rows, truths, loss in zip(
            outputs.tolist(), targets.tolist(), losses.tolist(), strict=True
        ):
            counted = []
            for row, truth in zip(rows, truths, strict=True):
                if truth == PAD:
                    continue
                log_sum = math.log(sum(math.exp(z) for z in row))
                uniform = sum(log_sum - z for z in row) / 6
                counted.append((1 - smoothing) * (log_sum - row[truth]) + smoothing * uniform)
            assert loss == pytest.approx(sum(counted) / len(counted), rel=1e-12)


# The metric.


class Parrot(Translator):
    """Writes what it is told to, whatever the source; all tokens equally likely."""

    def __init__(self, said: dict[tuple[int, ...], list[int]]) -> None:
        super().__init__(vocabulary=8, length=LENGTH, width=2, depth=1, heads=1)
        self.said = said

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.zeros(len(inputs), inputs.shape[2], 60)

    def translate(self, source: Tensor, length: int) -> Tensor:
        assert (source[:, -1] != PAD).any()  # no column of padding
        keys = [tuple(token for token in row if token != PAD) for row in source.tolist()]
        return padded([self.said[key][:length] for key in keys], torch.int64)


def test_bleu_is_that_of_the_texts_in_their_order(
    workload: Multi30k, small: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["Ein Hund rennt.", "Zwei Hunde rennen an einem Strand.", "Ein Mann schläft"]
    data = small["training"] | {
        "vocabulary": small["test"]["vocabulary"],
        "references": as_bytes([*lines, "Ein Hund schläft."]),
    }
    keys = [tuple(token for token in row if token != PAD) for row in data["source"].tolist()]
    truths = [[token for token in row if token != PAD] for row in data["target"].tolist()]
    perfect = dict(zip(keys, truths, strict=True))
    for batch in (1, 3, 100):
        monkeypatch.setattr(multi30k, "EVALUATION_BATCH", batch)
        metrics = workload.evaluate(Parrot(perfect), data)
        assert metrics == pytest.approx({"bleu": 100.0, "loss": math.log(60)}, rel=1e-6)
    wrong = perfect | {keys[0]: truths[2], keys[3]: [END]}
    expected = sacrebleu.corpus_bleu(
        [lines[2], *lines[1:], ""], [[*lines, "Ein Hund schläft."]], force=True
    ).score
    assert 0 < expected < 90
    assert workload.evaluate(Parrot(wrong), data)["bleu"] == pytest.approx(expected)


def test_bleu_by_hand(workload: Multi30k) -> None:
    # 7 tokens against 8: 6, 4, 2 and 1 of 7, 6, 5 and 4 n-grams match.
    vocabulary = ["", "", "", "", " a", " b", " c", " d", " e", " f", " g", " h", " x"]
    data = {
        "source": padded([[4, END]], torch.int16, LENGTH),
        "target": padded([[4, END]], torch.int16, LENGTH),
        "vocabulary": as_bytes(vocabulary),
        "references": as_bytes(["a b c d e f g h"]),
    }
    said: dict[tuple[int, ...], list[int]] = {(4, END): [4, 5, 6, 7, 12, 9, 10, END]}
    precisions = (6 / 7, 4 / 6, 2 / 5, 1 / 4)
    expected = 100 * math.exp(1 - 8 / 7) * math.prod(precisions) ** 0.25
    assert workload.evaluate(Parrot(said), data)["bleu"] == pytest.approx(expected)


# The model.


def small_model(seed: int = 0, **changes: Any) -> Translator:
    torch.manual_seed(seed)
    sizes = {"vocabulary": 12, "length": 9, "width": 8, "depth": 2, "heads": 2}
    return Translator(**(sizes | changes))


def sentences(n: int, length: int, seed: int = 0) -> Tensor:
    tokens = torch.randint(SPECIALS, 12, (n, length), generator=generator(seed))
    ends = torch.randint(2, length, (n, 1), generator=generator(seed + 1))
    places = torch.arange(length)
    return tokens.masked_fill(places == ends, END).masked_fill(places > ends, PAD)


def test_attention_against_torch() -> None:
    model = small_model().double()
    attention = model.decoder[0].cross
    x = torch.randn(3, 5, 8, dtype=torch.float64, generator=generator(0))
    memory = torch.randn(3, 6, 8, dtype=torch.float64, generator=generator(1))
    padding = torch.arange(6) >= torch.tensor([[6], [1], [4]])
    keys, values = attention.key_value(memory).chunk(2, dim=2)
    q, k, v = (
        part.unflatten(2, (2, 4)).transpose(1, 2) for part in (attention.query(x), keys, values)
    )
    mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=~padding[:, None, None])
    expected = attention.projection(mixed.transpose(1, 2).flatten(2))
    found = attention(x, attention.keys_values(memory), padding[:, None, None])
    torch.testing.assert_close(found, expected)


def test_logits_depend_on_the_sentence_and_what_was_written_alone() -> None:
    model = small_model().double()
    source, target = sentences(4, 9), sentences(4, 9, seed=7)
    inputs = torch.stack((source, shift(target)), dim=1)
    logits = model(inputs)
    for position in range(9):  # later tokens of the target change nothing, earlier ones do
        changed = inputs.clone()
        changed[:, 1, position] = SPECIALS + (changed[:, 1, position] + 1) % 8
        difference = (model(changed) - logits).abs().amax(dim=2)
        assert (difference[:, :position] < 1e-12).all()
        assert (difference[:, position] > 1e-6).all()
    # Padding is not seen; every token of the source is.
    torch.testing.assert_close(
        model(torch.stack((nn.functional.pad(source[:, :6], (0, 3)), inputs[:, 1]), dim=1))[
            (source[:, 6:] == PAD).all(dim=1)
        ],
        logits[(source[:, 6:] == PAD).all(dim=1)],
    )
    for row in range(4):
        for position in range(int((source[row] != PAD).sum())):
            changed = inputs[row : row + 1].clone()
            changed[0, 0, position] = SPECIALS + (changed[0, 0, position] + 1) % 8
            assert (model(changed) - logits[row]).abs().max() > 1e-6


@torch.inference_mode()
def translations_by_hand(model: Translator, source: Tensor, length: int) -> list[list[int]]:
    """Greedy decoding of one sentence at a time, everything computed anew for each token."""
    results = []
    for row in source:
        text: list[int] = []
        while len(text) < length and (not text or text[-1] != END):
            target = torch.tensor([BEGIN, *text])
            sentence = row[row != PAD]
            padded_row = nn.functional.pad(sentence, (0, len(row) - len(sentence)))
            memories, padding = model.encode(padded_row[None])
            steps = torch.arange(len(target))
            x = (model.tokens(target) + model.target_positions(steps))[None]
            for block, memory in zip(model.decoder, memories, strict=True):
                x, _ = block(x, memory, padding, steps > steps[:, None])
            text.append(int(model.head(model.norm(x))[0, -1].argmax()))
        results.append(text)
    return results


def test_greedy_translation_keeps_nothing_wrong_from_token_to_token() -> None:
    lengths = set()
    for seed in range(6):
        model = small_model(seed).double()
        source = sentences(8, 9, seed)
        expected = translations_by_hand(model, source, 9)
        with torch.inference_mode():
            found = model.translate(source, 9)
        assert found.tolist() == padded(expected, torch.int64).tolist()
        lengths |= set(map(len, expected))
    assert len(lengths) > 2  # some ended


def test_model_can_be_differentiated_twice_and_every_parameter_learns(
    workload: Multi30k,
) -> None:
    model = small_model()
    target = sentences(3, 9, seed=3)
    inputs = torch.stack((sentences(3, 9), shift(target)), dim=1)
    parameters = list(model.parameters())
    loss = workload.per_example_loss(model(inputs), target, 0.1).mean()
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    assert all(gradient.any() for gradient in gradients)
    curvature = torch.autograd.grad(sum(g.square().sum() for g in gradients), parameters)
    assert all(torch.isfinite(tensor).all() and tensor.any() for tensor in curvature)


def test_the_model_is_the_cards_and_comes_from_the_global_seed(workload: Multi30k) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    torch.manual_seed(0)
    twin = workload.build_model()
    assert isinstance(model, Translator) and model.training
    assert sum(p.numel() for p in model.parameters()) == workload.card.parameters
    names = dict(model.named_parameters())
    assert workload.head_parameters <= names.keys()
    assert all(torch.equal(names[name], tensor) for name, tensor in twin.named_parameters())
    # What writes to a residual stream starts at 1 ÷ √fan-in ÷ √(writers).
    width = multi30k.TranslationSettings().width
    for name, std in {
        "encoder.1.attention.projection": (4 * width) ** -0.5,
        "encoder.0.feed_forward.contract": (4 * 4 * width) ** -0.5,
        "decoder.1.cross.projection": (6 * width) ** -0.5,
        "decoder.1.cross.query": width**-0.5,
    }.items():
        assert names[f"{name}.weight"].std().item() == pytest.approx(std, rel=0.05)


def test_model_refuses_sizes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"width a multiple of heads; got .*width=8.*heads=3"):
        small_model(heads=3)
    with pytest.raises(ValueError, match="depth=0"):
        small_model(depth=0)


@pytest.mark.parametrize(
    "choice", [{"width": "64"}, {"activation": "relu"}, {"normalisation": "rms"}], ids=str
)
def test_each_choice_of_a_card_changes_the_model(choice: dict[str, str]) -> None:
    inputs, _ = workload_of().synthetic_batch(2, generator(0))
    logits = []
    for model in ({}, choice):
        torch.manual_seed(0)
        logits.append(workload_of(model=model).build_model()(inputs))
    assert (logits[0] - logits[1]).abs().max() > 1e-3


def test_evaluate_in_inference_mode_changes_no_state(workload: Multi30k, small: Splits) -> None:
    torch.manual_seed(0)
    model = workload.build_model().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        metrics = workload.evaluate(model, small["evaluation"])
    assert 0 <= metrics["bleu"] < 5 and 3 < metrics["loss"] < 7  # uniform guessing: log 60 = 4.1
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


# The official files.


@pytest.fixture(scope="module")
def official(workload: Multi30k) -> Splits:
    return workload.prepare()


@needs_files("translate/multi30k")
def test_official_splits_are_those_of_the_card(workload: Multi30k, official: Splits) -> None:
    data = workload.card.data
    assert {name: len(tensors["source"]) for name, tensors in official.items()} == {
        "training": data.training_examples,
        "evaluation": data.evaluation_examples,
        "test": data.test_examples,
    }
    assert (data.evaluation_examples, data.test_examples) == (1014, 1000)
    assert {name: tensors_sha256(tensors) for name, tensors in official.items()} == data.sha256


@needs_files("translate/multi30k")
def test_official_vocabulary_is_full_and_spells_the_references(official: Splits) -> None:
    symbols = as_texts(official["evaluation"]["vocabulary"])
    assert len(symbols) == VOCABULARY
    for split in ("evaluation", "test"):
        target = official[split]["target"]
        whole = ~(target == UNKNOWN).any(dim=1) & (target[:, -1] == PAD)
        assert whole.double().mean() > 0.95
        texts = written(target[whole], symbols)
        references = as_texts(official[split]["references"][whole])
        assert [text.strip() for text in texts] == [" ".join(text.split()) for text in references]


@needs_files("translate/multi30k")
def test_hardly_any_held_back_pair_stands_in_training(official: Splits) -> None:
    rows = {
        name: [bytes(row) for row in torch.cat((t["source"], t["target"]), dim=1).numpy()]
        for name, t in official.items()
    }
    training = set(rows["training"])
    assert sum(row in training for row in rows["evaluation"]) <= 2  # the official files' own
    assert sum(row in training for row in rows["test"]) <= 1
