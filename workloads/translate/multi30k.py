"""translate/multi30k: a small transformer translates captions of pictures, English to German.

Elliott et al. 2016, "Multi30K: Multilingual English-German Image Descriptions" (1605.00459),
its task 1 without the pictures: 29,000 sentence pairs, official validation and 2016 test sets.
The tokens are byte pairs learned on both sides of the training part. Case and punctuation
count: the metric is sacreBLEU's default on raw text (Post 2018, 1804.08771).
"""

import gzip
import importlib.util
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.cards import ModelSettings, WorkloadCard
from harness.errors import UsageError
from harness.workload import FileWorkload
from workloads.translate.byte_pairs import WORD, BytePairs, learn_merges, normalised
from workloads.translate.model import BEGIN, END, PAD, UNKNOWN, Translator

FOLDER = "multi30k_en_de"
PARTS = {"training": "train", "evaluation": "val", "test": "test_2016_flickr"}

SPECIALS = 4  # PAD, BEGIN, END, UNKNOWN
VOCABULARY = 4096
LENGTH = 32  # tokens of a sentence with its END; 3 % of the training pairs have more

DEPTH = 2
HEADS = 4
EVALUATION_BATCH = 128


def read_lines(path: Path) -> list[str]:
    """Return the lines of a gzipped UTF-8 file, normalised; only line feeds end a line.

    Raises:
        ValueError: it is no such file.
    """
    try:
        text = gzip.decompress(path.read_bytes()).decode("utf-8")
    except (OSError, EOFError) as error:
        raise ValueError(f"{path} is no whole gzip file: {error}") from None
    return [normalised(line) for line in text.removesuffix("\n").split("\n")]


def padded(rows: Sequence[Sequence[int]], dtype: torch.dtype, length: int | None = None) -> Tensor:
    """Return the rows side by side, zeros behind the shorter ones: [N, length]."""
    width = max(map(len, rows)) if length is None else length
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=dtype)


def as_bytes(texts: Sequence[str]) -> Tensor:
    """Return texts as UTF-8, zeros behind the shorter ones: uint8 [N, longest]."""
    return padded([text.encode() for text in texts], torch.uint8)


def as_texts(rows: Tensor) -> list[str]:
    """Return the texts that `as_bytes` wrote."""
    return [bytes(row).rstrip(b"\0").decode() for row in rows.cpu().numpy()]


def shift(target: Tensor) -> Tensor:
    """Return what the decoder reads to write `target` [B, T]: it begins with BEGIN."""
    return F.pad(target[:, :-1], (1, 0), value=BEGIN)


class TranslationSettings(ModelSettings, frozen=True, kw_only=True):
    """Channels of the residual streams, and what lies between layers."""

    width: int = 96
    activation: Literal["gelu", "relu", "silu"] = "gelu"
    normalisation: Literal["layer", "rms"] = "layer"


class Multi30k(FileWorkload):
    """Trains on the tokens of the German side; evaluates what greedy decoding writes.

    Raises:
        UsageError: sacrebleu, which computes the metric, is not installed.
    """

    head_parameters: ClassVar[frozenset[str]] = frozenset({"head.weight"})

    def __init__(self, card: WorkloadCard) -> None:
        super().__init__(card)
        if importlib.util.find_spec("sacrebleu") is None:
            raise UsageError(
                f"{card.name} needs the package sacrebleu, which computes its metric. Install it: "
                "`pip install sacrebleu`, or the extra: `pip install -e '.[translate]'`."
            )

    def prepare(self) -> dict[str, dict[str, Tensor]]:
        """Return the splits.

        Each has `source` and `target`, int16 [N, LENGTH]: a sentence's tokens, END and PADs.
        Training leaves out the pairs that are longer. The held-back splits have the
        `references` and the `vocabulary`, texts of the true translations and of the tokens,
        uint8 [N, longest] and [VOCABULARY, longest]; their sources are cut where too long.
        """
        texts = {
            split: [
                read_lines(self.path(f"{FOLDER}/{part}.{language}.gz")) for language in ("en", "de")
            ]
            for split, part in PARTS.items()
        }
        words = Counter(
            word for lines in texts["training"] for line in lines for word in WORD.findall(line)
        )
        merges = learn_merges(words, VOCABULARY - SPECIALS)
        letters = sorted({letter for word in words for letter in word})
        symbols = list(dict.fromkeys([*letters, *("".join(pair) for pair in merges)]))
        token = {symbol: SPECIALS + i for i, symbol in enumerate(symbols)}
        pairs = BytePairs(merges)

        def encoded(line: str) -> list[int]:
            return [token.get(symbol, UNKNOWN) for symbol in pairs.split(line)]

        vocabulary = as_bytes([*[""] * SPECIALS, *symbols])
        splits: dict[str, dict[str, Tensor]] = {}
        for split, (source_lines, target_lines) in texts.items():
            both = [
                (encoded(source), encoded(target))
                for source, target in zip(source_lines, target_lines, strict=True)
            ]
            if split == "training":
                both = [pair for pair in both if max(map(len, pair)) < LENGTH]
            splits[split] = {
                name: padded([[*row[: LENGTH - 1], END] for row in rows], torch.int16, LENGTH)
                for name, rows in zip(("source", "target"), zip(*both, strict=True), strict=True)
            }
            if split != "training":
                references = as_bytes([line.strip() for line in target_lines])
                splits[split] |= {"references": references, "vocabulary": vocabulary}
        return splits

    def build_model(self) -> nn.Module:
        settings = self.settings(TranslationSettings)
        return Translator(
            vocabulary=VOCABULARY,
            length=LENGTH,
            width=settings.width,
            depth=DEPTH,
            heads=HEADS,
            activation=settings.activation,
            normalisation=settings.normalisation,
        )

    def training_batch(
        self,
        data: Mapping[str, Tensor],
        indices: Tensor,
        generator: torch.Generator,  # noqa: ARG002 - nothing is augmented
    ) -> tuple[Tensor, Tensor]:
        """Return sources above decoder inputs [B, 2, LENGTH] and targets [B, LENGTH], int64."""
        return self._batch(
            data["source"].index_select(0, indices).long(),
            data["target"].index_select(0, indices).long(),
        )

    def synthetic_batch(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return uniform tokens in sentences of 8 to LENGTH - 1, on the generator's device."""
        device = generator.device
        shape = (2, batch_size, LENGTH)
        tokens = torch.randint(SPECIALS, VOCABULARY, shape, generator=generator, device=device)
        ends = torch.randint(8, LENGTH, (2, batch_size, 1), generator=generator, device=device)
        places = torch.arange(LENGTH, device=device)
        tokens = tokens.masked_fill(places == ends, END).masked_fill(places > ends, PAD)
        return self._batch(*tokens)

    def per_example_loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """Return each sentence's mean cross-entropy in nats a token, shape [B]."""
        losses = F.cross_entropy(
            outputs.flatten(0, 1),
            targets.flatten(),
            ignore_index=PAD,
            reduction="none",
            label_smoothing=label_smoothing,
        ).view_as(targets)
        return losses.sum(dim=1) / (targets != PAD).sum(dim=1)

    def evaluate(self, model: nn.Module, data: Mapping[str, Tensor]) -> dict[str, float]:
        """Return `bleu` (0 to 100, of greedy translations) and `loss` (nats a token, unsmoothed).

        BLEU is the corpus's by sacreBLEU: case counts, tokenisation 13a.
        """
        import sacrebleu

        assert isinstance(model, Translator)
        source, target = data["source"].long(), data["target"].long()
        # Sentences of a length together: the batches of short ones end early.
        order = (source != PAD).sum(dim=1).argsort(stable=True)
        total = torch.zeros((), dtype=torch.float64, device=source.device)
        written = torch.full_like(target, PAD)
        for rows in torch.split(order, EVALUATION_BATCH):
            inputs, targets = self._batch(source[rows], target[rows])
            losses = self.per_example_loss(model(inputs).float(), targets, label_smoothing=0.0)
            total += losses.double().sum()
            longest = (source[rows] != PAD).any(dim=0).sum()
            translations = model.translate(source[rows, :longest], LENGTH)
            written[rows, : translations.shape[1]] = translations
        symbols = as_texts(data["vocabulary"])
        hypotheses = ["".join(map(symbols.__getitem__, row)).strip() for row in written.tolist()]
        bleu = sacrebleu.corpus_bleu(hypotheses, [as_texts(data["references"])], force=True)
        return {"bleu": bleu.score, "loss": total.item() / len(source)}

    def _batch(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return torch.stack((source, shift(target)), dim=1), target
