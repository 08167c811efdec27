"""The same training as `adamw` on `resnet/digits`, written as anybody would, with no harness.

    python bare_loop.py CORES THREADS

Takes a number of steps a line on standard input and answers with the seconds that they took;
but for the first of all, after a few untimed ones that warm the core's caches. The data is read
from the harness's cache; model and batches are the workload's own, since they are what is
trained and not what is measured.
"""

import math
import os
import sys
import time

WARM_UP_STEPS = 5

cores, threads = sys.argv[1], int(sys.argv[2])
if cores:
    os.sched_setaffinity(0, [int(core) for core in cores.split(",")])

import torch  # noqa: E402 - its threads inherit the pinning
from torch import nn  # noqa: E402

from harness import catalogue  # noqa: E402
from harness.prepared_data import load_split  # noqa: E402
from harness.workload import load_workload  # noqa: E402

torch.set_num_threads(threads)
entry = catalogue.workload("resnet/digits")
card, recipe = entry.card, entry.card.recipe
workload = load_workload(entry.module, card)
data = load_split(card, "training", torch.device("cpu"))
torch.manual_seed(0)
model = workload.build_model()
order = torch.Generator().manual_seed(0)
augmentation = torch.Generator().manual_seed(0)
generator = torch.Generator().manual_seed(1)
warm_model = workload.build_model()
for _ in range(3):
    x, y = workload.synthetic_batch(card.batch_size, generator)
    workload.per_example_loss(warm_model(x), y, 0.0).mean().backward()

decayed, exempt = [], []
for module in model.modules():
    for name, parameter in module.named_parameters(recurse=False):
        norm = isinstance(module, nn.BatchNorm2d)
        (exempt if norm or name == "bias" else decayed).append(parameter)
peak_lr = recipe.hyperparameters["lr"]
decay = recipe.hyperparameters["weight_decay"]
optimizer = torch.optim.AdamW(
    [{"params": decayed, "weight_decay": decay}, {"params": exempt, "weight_decay": 0.0}],
    lr=peak_lr,
    fused=True,
)
size, count = card.batch_size, card.data.training_examples

examples, position, permutation = 0, count, torch.empty(0)


def train(steps: int) -> None:
    """Go on for so many steps."""
    global examples, position, permutation  # noqa: PLW0603 - a script as anybody would write
    for _ in range(steps):
        if position + size > count:
            permutation, position = torch.randperm(count, generator=order), 0
        ids = permutation[position : position + size]
        x, y = workload.training_batch(data, ids, augmentation)
        position += size
        examples += size
        progress = min(1.0, examples / card.horizon_examples)
        if progress < recipe.warmup_fraction:
            factor = progress / recipe.warmup_fraction
        else:
            part = (progress - recipe.warmup_fraction) / (1 - recipe.warmup_fraction)
            floor = recipe.final_lr_fraction
            factor = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * part))
        for group in optimizer.param_groups:
            group["lr"] = peak_lr * factor
        loss = workload.per_example_loss(model(x), y, recipe.label_smoothing).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def answer(text: object) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


answer("ready")
for line in sys.stdin:
    if examples:
        train(WARM_UP_STEPS)
    begun = time.perf_counter()
    train(int(line))
    answer(time.perf_counter() - begun)
