#!/usr/bin/env python3
"""Times PyTorch on the same architectures, and the limits of the device. Prints JSON.

bf16 weights, scaled_dot_product_attention, and torch.compile unless --eager.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, 1e-6), nn.LayerNorm(dim, 1e-6)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.gamma1, self.gamma2 = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.ones(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, dim = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attention = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        x = x + self.gamma1 * self.proj(attention)
        return x + self.gamma2 * self.fc2(F.gelu(self.fc1(self.norm2(x))))


class ViT(nn.Module):
    def __init__(self, spec: dict, size: int) -> None:
        super().__init__()
        dim, patch = spec["dim"], spec.get("patch", 14)
        self.patches = nn.Conv2d(3, dim, patch, patch)
        self.first = nn.Parameter(torch.zeros(1, 1 + spec["registers"], dim))
        self.positions = nn.Parameter(torch.zeros(1, (size // patch) ** 2, dim))
        blocks = (Block(dim, spec["heads"], spec["ffn_hidden"]) for _ in range(spec["depth"]))
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(dim, 1e-6)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = self.patches(pixels).flatten(2).transpose(1, 2) + self.positions
        x = torch.cat([self.first.expand(len(x), -1, -1), x], dim=1)
        return self.norm(self.blocks(x))[:, 0]


def seconds_per_call(work: Callable[[], object], device: torch.device, seconds: float) -> float:
    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    for _ in range(3):
        work()
    wait()
    calls, started = 0, time.perf_counter()
    while calls == 0 or time.perf_counter() - started < seconds:
        work()
        wait()
        calls += 1
    return (time.perf_counter() - started) / calls


def limits(device: torch.device, seconds: float) -> dict:
    """Returns TFLOP/s of square products in each precision, and GB/s of a copy."""
    side = 8192 if device.type == "cuda" else 2048
    answer = {}
    for name, kind in (("fp32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)):
        if device.type == "cpu" and kind == torch.float16:
            continue
        a, b = torch.randn(2, side, side, device=device, dtype=torch.float32).to(kind)
        answer[name] = 2e-12 * side**3 / seconds_per_call(lambda a=a, b=b: a @ b, device, seconds)
    values = torch.zeros(2**28 if device.type == "cuda" else 2**25, device=device)
    copied = 2e-9 * values.nbytes
    answer["GB/s"] = copied / seconds_per_call(lambda: values.clone(), device, seconds)
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("specs", help="descriptions of the models, as a JSON list")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--sizes", default="224")
    parser.add_argument("--batches", default="1,8,32,64")
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--eager", action="store_true", help="do not use torch.compile")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    answer = {"version": torch.__version__, "limits": limits(device, arguments.seconds / 4), "rows": []}
    for spec in json.loads(arguments.specs):
        if spec["ffn"] != "mlp" or spec.get("positions") == "rope":
            print(f"{spec['name']} is not compared: it is written for plain ViTs", file=sys.stderr)
            continue
        for size in map(int, arguments.sizes.split(",")):
            model = ViT(spec, size).to(device, torch.bfloat16).eval()
            if not arguments.eager:
                # CUDA graphs, as a server with fixed batches would have them.
                model = torch.compile(model, mode="reduce-overhead", dynamic=False)
            for batch in map(int, arguments.batches.split(",")):
                pixels = torch.randn(batch, 3, size, size, device=device).to(torch.bfloat16)
                with torch.inference_mode():
                    took = seconds_per_call(lambda m=model, p=pixels: m(p), device, arguments.seconds)
                row = {"model": spec["name"], "size": size, "batch": batch, "ms": 1e3 * took}
                answer["rows"].append(row)
                print(row, file=sys.stderr, flush=True)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
