#!/usr/bin/env python3
"""Times the matrix products of ViT-S/14 alone, as a limit for the model: oneDNN by PyTorch.

    products.py [--threads 2] [--batch 1] [--rounds 15]

Needs PyTorch, such as that of $DINOSERVE_HOME/peers/fastapi_pytorch/venv. Prints JSON: for each
precision and size the time of all products of an image, in ms.
"""

import argparse
import json
import statistics
import time

import torch

DIM, HEADS, BLOCKS, PATCH = 384, 6, 12, 14


def products(patches: int, batch: int, kind: torch.dtype) -> list:
    """Returns the products of one block, as functions without arguments."""
    tokens = 1 + patches
    rows = batch * tokens
    head = DIM // HEADS

    def linear(inputs: int, outputs: int):
        layer = torch.nn.Linear(inputs, outputs, dtype=kind)
        x = torch.randn(rows, inputs, dtype=kind)
        return lambda: layer(x)

    q = torch.randn(batch * HEADS, tokens, head, dtype=kind)
    k = torch.randn(batch * HEADS, head, tokens, dtype=kind)
    shares = torch.randn(batch * HEADS, tokens, tokens, dtype=kind)
    return [
        linear(DIM, 3 * DIM),
        lambda: torch.bmm(q, k),
        lambda: torch.bmm(shares, q),
        linear(DIM, DIM),
        linear(DIM, 4 * DIM),
        linear(4 * DIM, DIM),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    answer = {}
    with torch.inference_mode():
        for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            for size in (224, 518):
                block = products((size // PATCH) ** 2, arguments.batch, kind)
                times = []
                for _ in range(2 + arguments.rounds):
                    started = time.perf_counter()
                    for product in block:
                        product()
                    times.append(time.perf_counter() - started)
                ms = 1e3 * BLOCKS * statistics.median(times[2:]) / arguments.batch
                answer[f"{name}, {size}"] = round(ms, 2)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
