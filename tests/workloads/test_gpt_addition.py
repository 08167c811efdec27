"""gpt/addition: every sum recomputed, the model's causality, the loss and the metric by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from harness import catalogue
from workloads.gpt.addition import (
    ANSWER,
    CONTEXT,
    DELIMITER,
    DIGITS,
    HELD_OUT_EXAMPLES,
    NO_LOSS,
    QUESTION,
    SYMBOLS,
    TRAINING_EXAMPLES,
    GPTAddition,
    GPTSettings,
    count_carries,
    shift,
    write_sums,
)
from workloads.gpt.model import GPT

WIDTH = GPTSettings().width

Splits = dict[str, dict[str, Tensor]]


@pytest.fixture(scope="module")
def workload() -> GPTAddition:
    return GPTAddition(catalogue.workload("gpt/addition").card)


@pytest.fixture(scope="module")
def splits(workload: GPTAddition) -> Splits:
    return workload.prepare()


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def texts(tokens: Tensor) -> list[str]:
    return ["".join(SYMBOLS[token] for token in row) for row in tokens.tolist()]


def test_splits_have_the_stated_shapes(splits: Splits) -> None:
    sizes = {name: len(tensors["tokens"]) for name, tensors in splits.items()}
    held_out = {"evaluation": HELD_OUT_EXAMPLES, "test": HELD_OUT_EXAMPLES}
    assert sizes == {"training": TRAINING_EXAMPLES} | held_out
    for tensors in splits.values():
        tokens, groups = tensors["tokens"], tensors["groups"]
        assert tokens.dtype == groups.dtype == torch.int64
        assert tokens.shape[1] == CONTEXT + 1 and groups.shape == (len(tokens),)
        assert tokens.min() == 0 and tokens.max() == len(SYMBOLS) - 1


def test_every_sum_is_right_and_grouped_by_its_carries(splits: Splits) -> None:
    for tensors in splits.values():
        for text, group in zip(texts(tensors["tokens"]), tensors["groups"].tolist(), strict=True):
            assert text[0] == text[-1] == "$"
            question, equals, answer = text[1:-1].partition("=")
            a, plus, b = question.partition("+")
            assert (plus, equals) == ("+", "=") and len(a) == len(b) == DIGITS
            assert len(answer) == DIGITS + 1
            assert int(a) + int(b) == int(answer[::-1])
            # A carry turns ten of one column into one of the next: nine less in the digit sum.
            lost = sum(int(digit) for digit in a + b) - sum(int(digit) for digit in answer)
            assert lost == 9 * group


def test_no_pair_of_operands_stands_twice(splits: Splits) -> None:
    questions = torch.cat([tensors["tokens"][:, :QUESTION] for tensors in splits.values()])
    assert len(torch.unique(questions, dim=0)) == len(questions)


def test_digits_are_zero_in_two_of_five_columns_and_else_uniform(splits: Splits) -> None:
    tokens = splits["training"]["tokens"]
    columns = [1 + i for i in range(DIGITS)] + [2 + DIGITS + i for i in range(DIGITS)]
    for column in columns:
        shares = torch.bincount(tokens[:, column], minlength=10) / len(tokens)
        # Zeros are a little rarer: sums drawn again, mostly easy ones, were dropped.
        assert 0.37 < shares[0] < 0.4
        assert shares[1:].min() > 0.06 and shares[1:].max() < 0.075
    for tensors in splits.values():
        assert (torch.bincount(tensors["groups"], minlength=DIGITS + 1) > 0).all()


def test_sums_are_written_in_reverse_with_every_carry() -> None:
    a, b = torch.tensor([12, 9999, 0]), torch.tensor([345, 1, 0])
    assert texts(write_sums(a, b)) == [
        "$0012+0345=75300$",
        "$9999+0001=00001$",
        "$0000+0000=00000$",
    ]
    assert count_carries(a, b).tolist() == [0, 4, 0]


def test_training_batch_counts_the_answer_and_nothing_else(
    workload: GPTAddition, splits: Splits
) -> None:
    indices = torch.tensor([7, 0, 7, TRAINING_EXAMPLES - 1])
    tokens = splits["training"]["tokens"][indices]
    inputs, targets = workload.training_batch(splits["training"], indices, generator(0))
    assert inputs.shape == targets.shape == (4, CONTEXT)
    assert inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(inputs, tokens[:, :-1])
    assert (targets[:, :-ANSWER] == NO_LOSS).all()
    assert torch.equal(targets[:, -ANSWER:], tokens[:, QUESTION:])
    assert (targets[:, -1] == DELIMITER).all()
    # The batch is a copy: a submission that writes to it leaves the data alone.
    targets.zero_()
    assert torch.equal(tokens, splits["training"]["tokens"][indices])


def test_loss_against_cross_entropy_by_hand(workload: GPTAddition) -> None:
    outputs = torch.randn(3, 4, 5, dtype=torch.float64, generator=generator(0))
    targets = torch.tensor(
        [[NO_LOSS, 0, 4, 2], [NO_LOSS, NO_LOSS, NO_LOSS, 1], [3, NO_LOSS, 3, NO_LOSS]]
    )
    for smoothing in (0.0, 0.1):
        losses = workload.per_example_loss(outputs, targets, smoothing)
        assert losses.shape == (3,) and losses.dtype == torch.float64
        for rows, truths, loss in zip(
            outputs.tolist(), targets.tolist(), losses.tolist(), strict=True
        ):
            counted = []
            for row, truth in zip(rows, truths, strict=True):
                if truth == NO_LOSS:
                    continue
                log_total = math.log(sum(math.exp(z) for z in row))
                right = log_total - row[truth]
                uniform = sum(log_total - z for z in row) / 5
                counted.append((1 - smoothing) * right + smoothing * uniform)
            assert loss == pytest.approx(sum(counted) / len(counted), rel=1e-12)


def test_loss_sends_no_gradient_to_uncounted_positions(workload: GPTAddition) -> None:
    outputs = torch.randn(2, 3, 5, requires_grad=True, generator=generator(0))
    targets = torch.tensor([[NO_LOSS, 1, 2], [0, NO_LOSS, 4]])
    workload.per_example_loss(outputs, targets, 0.1).sum().backward()
    assert outputs.grad is not None
    counted = outputs.grad.abs().sum(dim=2) > 0
    assert torch.equal(counted, targets != NO_LOSS)


class AnswersZero(nn.Module):
    """Every answer is 00000$, each token of it with probability nine tenths."""

    def forward(self, tokens: Tensor) -> Tensor:
        probabilities = torch.full((*tokens.shape, len(SYMBOLS)), 0.1 / (len(SYMBOLS) - 1))
        probabilities[:, :-1, 0] = 0.9
        probabilities[:, -1, DELIMITER] = 0.9
        return probabilities.log()


def test_evaluate_against_a_model_that_answers_zero(workload: GPTAddition) -> None:
    # 150 right answers, 90 with one digit wrong, 60 with two.
    a = torch.cat((torch.zeros(150), torch.full((90,), 3), torch.full((60,), 110))).long()
    metrics = workload.evaluate(AnswersZero(), {"tokens": write_sums(a, torch.zeros_like(a))})
    assert metrics["accuracy"] == 0.5
    wrong = (90 * 1 + 60 * 2) / (300 * ANSWER)  # share of the answers' tokens
    expected = -(1 - wrong) * math.log(0.9) - wrong * math.log(0.1 / (len(SYMBOLS) - 1))
    assert metrics["loss"] == pytest.approx(expected, rel=1e-6)


class AddsButSometimesDropsCarries(nn.Module):
    """Reads what stands before each position and nothing else, as a decoder does.

    It adds column by column from the digits written so far, but forgets the carry where the
    first operand is odd, and after a wrong digit it goes on with that one.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        logits = torch.zeros(*tokens.shape, len(SYMBOLS))
        for row, text in enumerate(texts(tokens)):
            a, b = text[1 : 1 + DIGITS], text[2 + DIGITS : QUESTION - 1]
            for position in range(QUESTION - 1, len(text)):
                written = text[QUESTION : position + 1]
                digit = len(written)
                if digit == DIGITS + 1:
                    logits[row, position, DELIMITER] = 1
                    continue
                column = sum(int(x[DIGITS - 1 - digit]) for x in (a, b)) if digit < DIGITS else 0
                carry = False
                if digit and int(a) % 2 == 0:
                    below = sum(int(x[DIGITS - digit]) for x in (a, b))
                    carry = int(written[-1]) != below or below > 9
                logits[row, position, (column + carry) % 10] = 1
        return logits


@torch.inference_mode()
def decodes(model: nn.Module, tokens: Tensor) -> Tensor:
    """Whether greedy decoding, token by token from the question, writes each answer [N]."""
    text = tokens[:, :QUESTION]
    while text.shape[1] < tokens.shape[1]:
        text = torch.cat((text, model(text)[:, -1:].argmax(dim=-1)), dim=1)
    return (text == tokens).all(dim=1)


def test_metric_agrees_with_greedy_decoding(workload: GPTAddition, splits: Splits) -> None:
    tokens = splits["test"]["tokens"][:200]
    model = AddsButSometimesDropsCarries()
    greedy = decodes(model, tokens).double().mean().item()
    assert workload.evaluate(model, {"tokens": tokens})["accuracy"] == greedy
    assert 0.3 < greedy < 0.9


def test_metric_agrees_with_greedy_decoding_of_a_network(workload: GPTAddition) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    tokens = write_sums(torch.arange(32), torch.arange(32) * 37 % 32)
    inputs, targets = shift(tokens)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(26):
        workload.per_example_loss(model(inputs), targets, 0.0).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    greedy = decodes(model, tokens).double().mean().item()
    with torch.inference_mode():
        assert workload.evaluate(model, {"tokens": tokens})["accuracy"] == greedy
    assert 0 < greedy < 1


def test_evaluate_in_inference_mode_changes_no_state(workload: GPTAddition, splits: Splits) -> None:
    torch.manual_seed(0)
    model = workload.build_model().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        metrics = workload.evaluate(model, splits["test"])
    assert set(metrics) == {"accuracy", "loss"} and metrics["accuracy"] < 0.01
    assert 2 < metrics["loss"] < 5  # uniform guessing: log 13 = 2.56
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_later_tokens_leave_earlier_logits_unchanged(workload: GPTAddition) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    tokens, _ = workload.synthetic_batch(4, generator(0))
    logits = model(tokens)
    for position in range(CONTEXT):
        changed = tokens.clone()
        changed[:, position] = (changed[:, position] + 1) % len(SYMBOLS)
        others = model(changed)
        assert torch.equal(others[:, :position], logits[:, :position])
        difference = (others[:, position:] - logits[:, position:]).abs().amax(dim=2)
        assert (difference > 0).all()  # and every later one hears of it
    torch.testing.assert_close(model(tokens[:, :7]), logits[:, :7])


def test_attention_against_torch(workload: GPTAddition) -> None:
    torch.manual_seed(0)
    model = workload.build_model().double()
    assert isinstance(model, GPT)
    attention = model.blocks[0].attention
    x = torch.randn(2, CONTEXT, WIDTH, dtype=torch.float64)
    later = torch.ones(CONTEXT, CONTEXT, dtype=torch.bool).triu(diagonal=1)
    q, k, v = (
        part.unflatten(2, (attention.heads, -1)).transpose(1, 2)
        for part in attention.qkv(x).chunk(3, dim=2)
    )
    mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    expected = attention.projection(mixed.transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(x, later), expected)


def test_model_can_be_differentiated_twice(workload: GPTAddition) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    inputs, targets = workload.synthetic_batch(2, generator(0))
    parameters = list(model.parameters())
    loss = workload.per_example_loss(model(inputs), targets, 0.0).mean()
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    curvature = torch.autograd.grad(sum(g.square().sum() for g in gradients), parameters)
    assert all(torch.isfinite(tensor).all() and tensor.any() for tensor in curvature)


def test_model_comes_in_training_mode_from_the_global_seed(workload: GPTAddition) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    torch.manual_seed(0)
    twin = workload.build_model()
    assert model.training
    names = dict(model.named_parameters())
    assert workload.head_parameters <= names.keys()
    assert all(torch.equal(names[name], tensor) for name, tensor in twin.named_parameters())
    # What writes to the residual stream starts at 1 ÷ √fan-in ÷ √(2 depth), here with √4 = 2.
    stds = {
        "attention.projection": WIDTH**-0.5 / 2,
        "contract": (4 * WIDTH) ** -0.5 / 2,
        "expand": WIDTH**-0.5,
    }
    for name, std in stds.items():
        assert names[f"blocks.1.{name}.weight"].std().item() == pytest.approx(std, rel=0.05)


def test_model_is_generic_in_its_sizes() -> None:
    model = GPT(vocabulary=7, context=9, width=12, depth=3, heads=2)
    assert model(torch.randint(7, (2, 9))).shape == (2, 9, 7)
    assert model(torch.randint(7, (2, 4))).shape == (2, 4, 7)
    matrices = 3 * (12 * 12 * 4 + 12 * 48 * 2)
    vectors = (3 * 2 + 1) * 2 * 12
    assert sum(p.numel() for p in model.parameters()) == matrices + vectors + (7 + 9 + 7) * 12
    with pytest.raises(ValueError, match=r"width a multiple of heads; got .*width=12.*heads=5"):
        GPT(vocabulary=7, context=9, width=12, depth=3, heads=5)
    with pytest.raises(ValueError, match="depth=0"):
        GPT(vocabulary=7, context=9, width=12, depth=0, heads=2)


def test_synthetic_batch_looks_like_a_real_one(workload: GPTAddition, splits: Splits) -> None:
    real = workload.training_batch(splits["training"], torch.arange(32), generator(0))
    synthetic = workload.synthetic_batch(32, generator(0))
    for ours, theirs in zip(synthetic, real, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        assert ours.max() < len(SYMBOLS)
    assert synthetic[0].min() >= 0
    assert torch.equal(synthetic[1] == NO_LOSS, real[1] == NO_LOSS)
    again = workload.synthetic_batch(32, generator(0))
    assert all(torch.equal(a, b) for a, b in zip(synthetic, again, strict=True))
