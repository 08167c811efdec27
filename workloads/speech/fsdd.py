"""speech/fsdd: write down three to five digits that one person says.

The Free Spoken Digit Dataset (Jackson 2018): six speakers, ten digits, fifty recordings of each
pair at 8 kHz. By its official split the recordings 0 to 4 are test; 5 to 9 are evaluation here. An
example strings recordings of one speaker together, without gaps, always the same ones for one
id; a network trained by connectionist temporal classification has to find out where each
begins and ends.

Sounds become energies in 32 bands that lie evenly on the mel scale, 25 ms every 10 ms, on a
logarithmic scale in steps of three quarters of a decibel.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from harness.workload import FileWorkload
from workloads.speech.ctc import NO_LABEL, collapse, ctc_losses, edit_distance
from workloads.speech.model import Conformer, ConformerSettings

if TYPE_CHECKING:
    from numpy.random import RandomState
    from numpy.typing import NDArray

FILE = "fsdd/fsdd.npz"
SAMPLE_RATE = 8_000
WINDOW = 200  # samples of a frame
HOP = 80  # samples from one frame to the next
TRANSFORM = 256  # points of the Fourier transform
BANDS = 32
STEPS = 4  # of the scale, for each doubling of an energy
MEAN, DEVIATION = 92.5, 22.5  # of training frames, about; no step is exactly at the mean

DIGITS = 10
BLANK = DIGITS
SHORTEST, LONGEST = 3, 5  # digits of an example
FRAMES = 256  # of the longest example; longer draws are left out
EXAMPLES = {"training": 4_000, "evaluation": 500, "test": 500}
RECORDINGS = {"test": range(5), "evaluation": range(5, 10), "training": range(10, 50)}
SPEAKERS = 6
DATA_SEED = 3_000
DEPTH = 2
EVALUATION_BATCH = 100


def mel_filters() -> "NDArray[Any]":
    """Return float64 [BANDS, TRANSFORM / 2 + 1]: triangles over the transform's frequencies.

    Corners lie evenly on the mel scale, 2595 log10(1 + f / 700), from 0 to half the sample rate.
    """
    import numpy as np

    highest = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, highest, BANDS + 2) / 2595) - 1)
    frequencies = np.arange(TRANSFORM // 2 + 1) * SAMPLE_RATE / TRANSFORM
    rising = (frequencies - corners[:-2, None]) / np.diff(corners)[:-1, None]
    falling = (corners[2:, None] - frequencies) / np.diff(corners)[1:, None]
    return np.maximum(0, np.minimum(rising, falling))


def log_mel(sound: "NDArray[Any]") -> "NDArray[Any]":
    """Return uint8 [frames, BANDS] of 16-bit samples: 1 + STEPS × log2(1 + energy), rounded.

    float64's last bits differ between processors; the chance that one of the data's values
    lies so close to the middle of two steps is below a thousandth.
    """
    import numpy as np

    starts = np.arange(0, len(sound) - WINDOW + 1, HOP)
    pieces = sound.astype(np.float64)[starts[:, None] + np.arange(WINDOW)]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    spectrum = np.fft.rfft(pieces * window, TRANSFORM, axis=1)
    energies = (spectrum.real**2 + spectrum.imag**2) @ mel_filters().T
    steps: NDArray[Any] = 1 + np.rint(STEPS * np.log2(1 + energies))
    return steps.astype(np.uint8)


def read_recordings(path: Path) -> tuple[list["NDArray[Any]"], "NDArray[Any]"]:
    """Return the features of every recording, and its (digit, speaker, index) as int64 [N, 3].

    Raises:
        ValueError: the file lacks an array or was recorded otherwise.
    """
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            if file["sample_rate"].tolist() != [SAMPLE_RATE] or file["audio"].dtype != np.int16:
                raise ValueError(f"{path} does not hold 16-bit samples at {SAMPLE_RATE} Hz")
            sounds = np.split(file["audio"], file["offsets"][1:-1])
            labels = np.stack([file[name] for name in ("digit", "speaker", "index")], axis=1)
    except KeyError as error:
        raise ValueError(f"{path} has no array {error}") from None
    return [log_mel(sound) for sound in sounds], labels.astype(np.int64)


def string_together(
    features: list["NDArray[Any]"], labels: "NDArray[Any]", examples: int, random: "RandomState"
) -> dict[str, Tensor]:
    """Return examples drawn from the given recordings: speaker, number of digits, recordings."""
    import numpy as np

    frames = np.zeros((examples, FRAMES, BANDS), dtype=np.uint8)
    digits = np.full((examples, LONGEST), NO_LABEL, dtype=np.int64)
    groups = np.zeros(examples, dtype=np.int64)
    by_speaker = [np.flatnonzero(labels[:, 1] == speaker) for speaker in range(SPEAKERS)]
    done = 0
    while done < examples:
        speaker = random.randint(SPEAKERS)
        said = random.randint(SHORTEST, LONGEST + 1)
        chosen = by_speaker[speaker][random.randint(len(by_speaker[speaker]), size=said)]
        sound = np.concatenate([features[recording] for recording in chosen])
        if len(sound) > FRAMES:
            continue
        frames[done, : len(sound)] = sound
        digits[done, :said] = labels[chosen, 0]
        groups[done] = speaker
        done += 1
    return {
        "frames": torch.from_numpy(frames),
        "digits": torch.from_numpy(digits),
        "groups": torch.from_numpy(groups),
    }


class SpeechFSDD(FileWorkload):
    """Trains on the negative log-likelihood of the digits; decodes greedily."""

    head_parameters: ClassVar[frozenset[str]] = frozenset({"head.weight", "head.bias"})

    def prepare(self) -> dict[str, dict[str, Tensor]]:
        """Return the splits: sounds, what is said and who says it.

        `frames` uint8 [N, 256, 32] with zeros where a sound has ended, `digits` int64 [N, 5] with
        `NO_LABEL` at the end of shorter ones, `groups` int64 [N], the speaker. No recording
        is in two splits. The `RandomState` streams are frozen by NumPy (NEP 19), `Generator`'s
        are not.
        """
        import numpy as np

        features, labels = read_recordings(self.path(FILE))
        random = np.random.RandomState(DATA_SEED)
        splits = {}
        for name, examples in EXAMPLES.items():
            ids = np.flatnonzero(np.isin(labels[:, 2], RECORDINGS[name]))
            splits[name] = string_together(
                [features[i] for i in ids], labels[ids], examples, random
            )
        return splits

    def build_model(self) -> nn.Module:
        return Conformer(
            bands=BANDS, labels=DIGITS, depth=DEPTH, settings=self.settings(ConformerSettings)
        )

    def training_batch(
        self,
        data: Mapping[str, Tensor],
        indices: Tensor,
        generator: torch.Generator,  # noqa: ARG002 - nothing is augmented
    ) -> tuple[Tensor, Tensor]:
        """Return frames float32 [B, 256, 32], 0 after a sound, and digits int64 [B, 5]."""
        return standardised(data["frames"].index_select(0, indices)), data["digits"].index_select(
            0, indices
        )

    def synthetic_batch(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return uniform noise of three to five digits, 40 frames each."""
        device = generator.device
        shape = (batch_size, FRAMES, BANDS)
        frames = torch.randint(1, 180, shape, generator=generator, device=device)
        digits = torch.randint(DIGITS, (batch_size, LONGEST), generator=generator, device=device)
        said = torch.randint(
            SHORTEST, LONGEST + 1, (batch_size, 1), generator=generator, device=device
        )
        frames *= (torch.arange(FRAMES, device=device) < 40 * said)[:, :, None]
        digits[torch.arange(LONGEST, device=device) >= said] = NO_LABEL
        return standardised(frames), digits

    def per_example_loss(
        self,
        outputs: Tensor,
        targets: Tensor,
        label_smoothing: float,  # noqa: ARG002 - no position has a class of its own
    ) -> Tensor:
        """Return the negative log-likelihoods in nats a digit, shape [B]."""
        losses = ctc_losses(outputs.log_softmax(dim=2), targets, BLANK)
        return losses / (targets != NO_LABEL).sum(dim=1)

    def evaluate(self, model: nn.Module, data: Mapping[str, Tensor]) -> dict[str, float]:
        """Return `word_error_rate` and `loss` (nats a digit, mean over examples).

        The error rate is the edit distance from what greedy decoding writes to what was said,
        summed over the split and divided by the number of digits said.
        """
        paths, losses = [], []
        for start in range(0, len(data["digits"]), EVALUATION_BATCH):
            batch = slice(start, start + EVALUATION_BATCH)
            logits = model(standardised(data["frames"][batch])).float()
            paths.append(logits.argmax(dim=2))
            losses.append(self.per_example_loss(logits, data["digits"][batch], 0.0))
        loss = torch.cat(losses).double().mean().item()
        errors = words = 0
        written = torch.cat(paths).tolist()
        for path, digits in zip(written, data["digits"].tolist(), strict=True):
            said = [digit for digit in digits if digit != NO_LABEL]
            errors += edit_distance(collapse(path, BLANK), said)
            words += len(said)
        return {"word_error_rate": errors / words, "loss": loss}


def standardised(frames: Tensor) -> Tensor:
    """Return steps of the scale as float32 around 0; what is 0 there is exactly 0."""
    return torch.where(frames > 0, (frames.float() - MEAN) / DEVIATION, 0.0)
