"""quick/pretrained: four blobs again, from weights that are trained a little."""

import os
from pathlib import Path

import torch
from torch import Tensor

from harness.workload import PretrainedWorkload, canonical_weights
from timetrial_quick.workloads.blobs import Blobs

PRETRAINING_FILE = "QUICK_PRETRAINING_FILE"  # where it leaves word


class PretrainedBlobs(Blobs, PretrainedWorkload):
    def pretrain(self) -> dict[str, Tensor]:
        if file := os.environ.get(PRETRAINING_FILE):
            with Path(file).open("a") as word:
                word.write("pretrained\n")
        data = self.prepare()["training"]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self.build_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(10):
            optimizer.zero_grad()
            losses = self.per_example_loss(model(data["points"]), data["labels"], 0.0)
            losses.mean().backward()
            optimizer.step()
        return {name: tensor.detach() for name, tensor in canonical_weights(model).items()}
