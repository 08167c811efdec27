"""speech/fsdd: features, examples, the conformer, connectionist temporal classification."""

import itertools
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from harness import catalogue
from harness.cards import WorkloadCard
from harness.data_files import state
from harness.prepared_data import tensors_sha256
from workloads.speech import fsdd
from workloads.speech.ctc import NO_LABEL, collapse, ctc_losses, edit_distance
from workloads.speech.fsdd import (
    BANDS,
    BLANK,
    DIGITS,
    EXAMPLES,
    FILE,
    FRAMES,
    LONGEST,
    SAMPLE_RATE,
    SHORTEST,
    SPEAKERS,
    TRANSFORM,
    WINDOW,
    SpeechFSDD,
    log_mel,
    mel_filters,
    standardised,
)
from workloads.speech.model import Conformer, ConformerSettings, SelfAttention

Splits = dict[str, dict[str, Tensor]]


@pytest.fixture(scope="module")
def card() -> WorkloadCard:
    return catalogue.workload("speech/fsdd").card


@pytest.fixture(scope="module")
def workload(card: WorkloadCard) -> SpeechFSDD:
    return SpeechFSDD(card)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numpy_state() -> list[int]:
    found: object = np.random.get_state()
    assert isinstance(found, tuple)
    return [*found[1].tolist(), found[2]]


def squared(gradients: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([gradient.square().sum() for gradient in gradients]).sum()


def small(**choices: object) -> Conformer:
    settings = ConformerSettings(**{"width": 8} | choices)  # type: ignore[arg-type]
    return Conformer(bands=BANDS, labels=3, depth=1, settings=settings)


def recordings() -> dict[str, np.ndarray]:
    """Return the arrays of a file like the official one: fifteen tones a digit and speaker.

    A tone's pitch tells the digit and its length, in frames, the index; the test part has 0 to 4.
    """
    random = np.random.RandomState(0)
    rows = list(itertools.product(range(DIGITS), range(SPEAKERS), range(15)))
    sounds = []
    for digit, _, index in rows:
        samples = np.arange(WINDOW + 80 * (10 + index))
        tone = 8000 * np.sin(2 * np.pi * (300 + 250 * digit) * samples / SAMPLE_RATE)
        sounds.append((tone + random.randint(-50, 50, len(samples))).astype(np.int16))
    columns = np.array(rows, dtype=np.uint8).T
    return {
        "audio": np.concatenate(sounds),
        "offsets": np.cumsum([0, *map(len, sounds)]),
        "digit": columns[0],
        "speaker": columns[1],
        "index": columns[2],
        "sample_rate": np.array([SAMPLE_RATE]),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / FILE).parent.mkdir()
    np.savez(folder / FILE, **recordings())  # type: ignore[arg-type]
    return folder


@pytest.fixture
def splits(workload: SpeechFSDD, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Splits:
    monkeypatch.setattr(workload, "path", lambda name: folder / name)
    monkeypatch.setattr(fsdd, "EXAMPLES", {name: n // 20 for name, n in EXAMPLES.items()})
    return workload.prepare()


def test_prepare_is_identical_to_the_byte_and_leaves_the_generators_alone(
    workload: SpeechFSDD, splits: Splits
) -> None:
    torch_before, numpy_before = torch.get_rng_state(), numpy_state()
    again = workload.prepare()
    assert torch.equal(torch_before, torch.get_rng_state())
    assert numpy_state() == numpy_before
    assert list(splits) == ["training", "evaluation", "test"]
    for name, tensors in splits.items():
        assert list(tensors) == ["frames", "digits", "groups"]
        assert len(tensors["digits"]) == EXAMPLES[name] // 20
        for key, tensor in tensors.items():
            assert tensor.numpy().tobytes() == again[name][key].numpy().tobytes()


def test_examples_are_recordings_of_one_speaker_and_split_in_a_row(splits: Splits) -> None:
    rows = recordings()
    pieces = np.split(rows["audio"], rows["offsets"][1:-1])
    known = {}
    for piece, digit, speaker, index in zip(
        pieces, rows["digit"], rows["speaker"], rows["index"], strict=True
    ):
        known[log_mel(piece).tobytes()] = (int(digit), int(speaker), int(index), len(piece))
    indices = {"training": range(10, 15), "evaluation": range(5, 10), "test": range(5)}
    for name, tensors in splits.items():
        assert tensors["frames"].dtype == torch.uint8
        assert tensors["frames"].shape[1:] == (FRAMES, BANDS)
        said = (tensors["digits"] != NO_LABEL).sum(dim=1)
        assert set(said.tolist()) == set(range(SHORTEST, LONGEST + 1))
        for example in range(10):
            frames = tensors["frames"][example].numpy()
            digits = tensors["digits"][example].tolist()
            speaker = tensors["groups"][example].item()
            start = 0
            for digit in digits:
                if digit == NO_LABEL:
                    continue
                found = [
                    (length, known[frames[start : start + length].tobytes()])
                    for length in range(10, 27)
                    if frames[start : start + length].tobytes() in known
                ]
                assert len(found) == 1
                length, (spoken, voice, index, _) = found[0]
                assert (spoken, voice) == (digit, speaker) and index in indices[name]
                start += length
            assert not frames[start:].any() and frames[:start].all()


def test_a_file_of_another_kind_is_refused(
    workload: SpeechFSDD, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workload, "path", lambda _: tmp_path / "bad.npz")
    arrays = recordings()
    faster = {"sample_rate": np.array([16_000])}
    np.savez(tmp_path / "bad.npz", **arrays | faster)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="16-bit samples at 8000 Hz"):
        workload.prepare()
    del arrays["speaker"]
    np.savez(tmp_path / "bad.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"no array .*speaker"):
        workload.prepare()


def test_official_file_gives_what_the_card_promises(
    workload: SpeechFSDD, card: WorkloadCard
) -> None:
    if "BENCH_DATA_DIR" not in os.environ:
        pytest.skip("BENCH_DATA_DIR is unset: no folder with fsdd.npz")
    if state(card.data.files[0], again=True) != "verified":
        pytest.skip(f"BENCH_DATA_DIR has no {FILE} as on the card")
    splits = workload.prepare()
    assert {name: tensors_sha256(t) for name, t in splits.items()} == card.data.sha256
    for name, tensors in splits.items():
        frames, said = tensors["frames"], (tensors["digits"] != NO_LABEL).sum(dim=1)
        assert len(frames) == EXAMPLES[name]
        heard = frames.all(dim=2)
        assert torch.equal(heard, frames.any(dim=2))  # a frame is sound or padding
        # Enough positions for every digit, and a blank between equal ones.
        assert (heard.sum(dim=1) / 4 >= 2 * said - 1).all()
    values = splits["training"]["frames"]
    sound = values[values > 0].double()
    assert abs(sound.mean().item() - fsdd.MEAN) < 2
    assert abs(sound.std().item() - fsdd.DEVIATION) < 2


def test_mel_filters_are_triangles_between_even_corners() -> None:
    filters = mel_filters()
    assert filters.shape == (BANDS, TRANSFORM // 2 + 1) and filters.min() == 0

    def mel(frequency: float) -> float:
        return 2595 * math.log10(1 + frequency / 700)

    width = mel(SAMPLE_RATE / 2) / (BANDS + 1)
    for band, bin_ in itertools.product(range(BANDS), range(TRANSFORM // 2 + 1)):
        frequency = bin_ * SAMPLE_RATE / TRANSFORM
        low, middle, high = (
            700 * (10 ** ((band + corner) * width / 2595) - 1) for corner in range(3)
        )
        if frequency < middle:
            expected = max(0.0, (frequency - low) / (middle - low))
        else:
            expected = max(0.0, (high - frequency) / (high - middle))
        assert filters[band, bin_] == pytest.approx(expected, abs=1e-9)
    assert (filters.sum(axis=1) > 0).all()  # even the narrowest band has a frequency


def test_features_by_a_transform_in_plain_loops() -> None:
    random = np.random.RandomState(1)
    sound = random.randint(-20_000, 20_000, WINDOW + 80 + 79).astype(np.int16)
    found = log_mel(sound)
    assert found.dtype == np.uint8 and found.shape == (2, BANDS)
    filters = mel_filters()
    for frame in range(2):
        energies = []
        for bin_ in range(TRANSFORM // 2 + 1):
            real = imaginary = 0.0
            for n in range(WINDOW):
                x = float(sound[80 * frame + n]) * math.sin(math.pi * n / WINDOW) ** 2
                real += x * math.cos(2 * math.pi * bin_ * n / TRANSFORM)
                imaginary += x * math.sin(2 * math.pi * bin_ * n / TRANSFORM)
            energies.append(real**2 + imaginary**2)
        for band in range(BANDS):
            energy = sum(f * e for f, e in zip(filters[band], energies, strict=True))
            assert found[frame, band] == round(1 + 4 * math.log2(1 + energy))
    # The loudest sound that 16 bits hold does not run over the byte.
    loudest = np.where(np.arange(WINDOW) % 16 < 8, 32_767, -32_768).astype(np.int16)
    assert 150 < log_mel(loudest).max() < 200
    assert (log_mel(np.zeros(WINDOW, dtype=np.int16)) == 1).all()


def paths_of(target: list[int], length: int, symbols: int, blank: int) -> list[tuple[int, ...]]:
    """Return every path that writes `target`, found by trying all."""
    return [
        path
        for path in itertools.product(range(symbols), repeat=length)
        if [label for label, _ in itertools.groupby(path) if label != blank] == target
    ]


@pytest.mark.parametrize("target", [[0], [0, 1], [1, 1], [0, 0, 1]], ids=str)
def test_loss_adds_up_all_paths(target: list[int]) -> None:
    logits = torch.randn(1, 5, 3, dtype=torch.float64, generator=generator(0))
    table = logits.log_softmax(dim=2)
    total = sum(
        math.exp(sum(table[0, t, label].item() for t, label in enumerate(path)))
        for path in paths_of(target, 5, 3, blank=2)
    )
    padded = torch.tensor([target + [NO_LABEL] * (3 - len(target))])
    assert ctc_losses(table, padded, blank=2).item() == pytest.approx(-math.log(total), rel=1e-12)


def test_loss_and_gradient_agree_with_torch() -> None:
    said = torch.tensor([3, 5, 4, 1])
    positions = torch.tensor([16, 12, 16, 3])
    digits = torch.randint(DIGITS, (4, LONGEST), generator=generator(1))
    digits[2, 1] = digits[2, 0]
    targets = digits.masked_fill(torch.arange(LONGEST) >= said[:, None], NO_LABEL)
    logits = torch.randn(4, 16, DIGITS + 1, dtype=torch.float64, generator=generator(2))
    sure = torch.full((DIGITS + 1,), -1e4, dtype=torch.float64)
    sure[BLANK] = 0
    present = torch.arange(16) < positions[:, None]
    logits.requires_grad_()
    ours = ctc_losses(
        torch.where(present[:, :, None], logits, sure).log_softmax(dim=2), targets, BLANK
    )
    theirs = nn.functional.ctc_loss(
        logits.log_softmax(dim=2).transpose(0, 1),
        digits,
        positions,
        said,
        blank=BLANK,
        reduction="none",
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    (expected,) = torch.autograd.grad((theirs * weights).sum(), logits)
    (found,) = torch.autograd.grad((ours * weights).sum(), logits)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def test_loss_has_a_second_derivative() -> None:
    logits = torch.randn(2, 6, 4, dtype=torch.float64, generator=generator(3), requires_grad=True)
    targets = torch.tensor([[0, 0], [2, NO_LABEL]])

    def losses(x: Tensor) -> Tensor:
        return ctc_losses(x.log_softmax(dim=2), targets, blank=3)

    assert torch.autograd.gradcheck(losses, logits)
    assert torch.autograd.gradgradcheck(losses, logits)


def test_decoding_and_edit_distance_by_hand() -> None:
    assert collapse([9, 3, 3, 9, 3, 1, 1, 9], blank=9) == [3, 3, 1]
    assert collapse([9, 9], blank=9) == [] and collapse([4], blank=9) == [4]

    def slow(a: list[int], b: list[int]) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(slow(a[1:], b) + 1, slow(a, b[1:]) + 1, slow(a[1:], b[1:]) + (a[0] != b[0]))

    random = np.random.RandomState(4)
    for _ in range(40):
        a, b = (random.randint(3, size=random.randint(6)).tolist() for _ in range(2))
        assert edit_distance(a, b) == slow(a, b)


class Writes(nn.Module):
    """Writes what `answers` say for each example, each digit at two positions."""

    def __init__(self, answers: list[list[int]]) -> None:
        super().__init__()
        self.answers = iter(answers)

    def forward(self, frames: Tensor) -> Tensor:
        logits = torch.full((len(frames), FRAMES // 4, DIGITS + 1), -3.0)
        for row in logits:
            row[:, BLANK] = 0.0
            for place, digit in enumerate(next(self.answers)):
                row[3 * place : 3 * place + 2, digit] = 2.0
        return logits


def test_word_error_rate_by_hand(workload: SpeechFSDD, splits: Splits) -> None:
    data = splits["evaluation"]
    said = [[d for d in row if d != NO_LABEL] for row in data["digits"].tolist()]
    with torch.inference_mode():
        assert workload.evaluate(Writes(said), data)["word_error_rate"] == 0
        # One digit left out, one too many, one wrong, nothing at all.
        answers = [
            said[0][1:],
            [*said[1], (said[1][-1] + 1) % 10],
            [(said[2][0] + 1) % 10, *said[2][1:]],
            [],
            *said[4:],
        ]
        metrics = workload.evaluate(Writes(answers), data)
    wrong = edit_distance(said[2], answers[2]) + 2 + len(said[3])
    assert metrics["word_error_rate"] == pytest.approx(wrong / sum(map(len, said)), rel=1e-12)
    assert set(metrics) == {"word_error_rate", "loss"} and metrics["loss"] > 0


def test_losses_count_by_the_digit(workload: SpeechFSDD) -> None:
    frames, digits = workload.synthetic_batch(6, generator(0))
    torch.manual_seed(0)
    outputs = workload.build_model()(frames)
    losses = workload.per_example_loss(outputs, digits, 0.0)
    whole = ctc_losses(outputs.log_softmax(dim=2), digits, BLANK)
    said = (digits != NO_LABEL).sum(dim=1)
    torch.testing.assert_close(losses * said, whole)
    assert torch.equal(losses, workload.per_example_loss(outputs, digits, 0.5))


def test_attention_against_torch() -> None:
    torch.manual_seed(0)
    attention = SelfAttention(ConformerSettings(width=8)).double()
    x = torch.randn(3, 7, 8, dtype=torch.float64)
    present = torch.arange(7) < torch.tensor([[7], [4], [1]])
    q, k, v = (
        part.unflatten(2, (4, -1)).transpose(1, 2)
        for part in attention.qkv(attention.norm(x)).chunk(3, dim=2)
    )
    mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=present[:, None, None])
    expected = attention.projection(mixed.transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(x, present), expected)


@pytest.mark.parametrize("mixing", ["both", "attention", "convolution"])
def test_padding_is_not_heard(mixing: str) -> None:
    torch.manual_seed(0)
    model = small(mixing=mixing).double()
    frames = torch.randn(1, 80, BANDS, dtype=torch.float64)
    longer = torch.cat((frames, torch.zeros(1, 48, BANDS, dtype=torch.float64)), dim=1)
    alone, padded = model(frames), model(longer)
    torch.testing.assert_close(padded[:, :20], alone)
    probabilities = padded[:, 20:].softmax(dim=2)
    assert (probabilities[..., -1] == 1).all() and (probabilities[..., :-1] == 0).all()


@pytest.mark.parametrize(
    "choices",
    [
        {"activation": "gelu"},
        {"activation": "relu"},
        {"mixing": "attention"},
        {"mixing": "convolution"},
        {"width": 12},
    ],
    ids=str,
)
def test_each_choice_changes_the_model(choices: dict[str, object]) -> None:
    frames = torch.randn(2, 40, BANDS, generator=generator(5))
    torch.manual_seed(0)
    usual = small()(frames)
    torch.manual_seed(0)
    assert not torch.allclose(small(**choices)(frames), usual)


def test_model_can_be_differentiated_twice(workload: SpeechFSDD) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    inputs, targets = workload.synthetic_batch(2, generator(0))
    parameters = list(model.parameters())
    loss = workload.per_example_loss(model(inputs), targets, 0.0).mean()
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    assert all(gradient.any() for gradient in gradients)
    curvature = torch.autograd.grad(squared(gradients), parameters)
    assert all(torch.isfinite(tensor).all() and tensor.any() for tensor in curvature)


def test_model_comes_in_training_mode_from_the_global_seed(
    workload: SpeechFSDD, card: WorkloadCard
) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    torch.manual_seed(0)
    twin = workload.build_model()
    assert model.training
    names = dict(model.named_parameters())
    assert workload.head_parameters <= names.keys()
    assert sum(p.numel() for p in model.parameters()) == card.parameters
    assert all(torch.equal(names[name], tensor) for name, tensor in twin.named_parameters())


def test_synthetic_batch_looks_like_a_real_one(workload: SpeechFSDD, splits: Splits) -> None:
    indices = torch.tensor([3, 0, 3, 190])
    real = workload.training_batch(splits["training"], indices, generator(0))
    assert torch.equal(real[1], splits["training"]["digits"][indices])
    synthetic = workload.synthetic_batch(4, generator(0))
    for ours, theirs in zip(synthetic, real, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    for frames, digits in (real, synthetic):
        heard = frames[:, :, 0] != 0
        assert torch.equal(heard[:, :, None].expand_as(frames), frames != 0)
        assert (heard.int().diff(dim=1) <= 0).all()  # padding follows sound
        counted = digits != NO_LABEL
        assert (counted.int().diff(dim=1) <= 0).all() and counted[:, :SHORTEST].all()
    again = workload.synthetic_batch(4, generator(0))
    assert all(torch.equal(a, b) for a, b in zip(synthetic, again, strict=True))
    steps = torch.tensor([0, 1, 92], dtype=torch.uint8)
    expected = [0.0, (1 - fsdd.MEAN) / fsdd.DEVIATION, (92 - fsdd.MEAN) / fsdd.DEVIATION]
    assert standardised(steps).tolist() == pytest.approx(expected)
