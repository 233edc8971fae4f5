#!/usr/bin/env python3
"""Computes the gradients of the step in double precision, for the tests in single precision.

    pip install torch numpy safetensors
    ./exact.py

`expected.safetensors` has the gradients of PyTorch in single precision. They are off by more
than 1e-4 at a few values that are small compared to others of their parameter. Code that sums in
another order, as on another processor, cannot reproduce those values. `exact.safetensors` has
the gradients in double precision, rounded once.
"""

import json
import pathlib

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

HERE = pathlib.Path(__file__).parent
CONFIG = json.loads((HERE / "config.json").read_text())
DIM, HEADS, DEPTH, PATCH = (CONFIG[key] for key in ("embed_dim", "num_heads", "depth", "patch_size"))
GRID = CONFIG["img_size"] // PATCH


def logits(parameters, images):
    """Computes backbone and head from parameters with Meta's names."""

    def part(prefix):
        return lambda name: parameters[f"{prefix}.{name}"]

    def linear(x, of, name):
        return F.linear(x, of(f"{name}.weight"), of(f"{name}.bias"))

    def norm(x, of, name):
        return F.layer_norm(x, (DIM,), of(f"{name}.weight"), of(f"{name}.bias"), 1e-6)

    backbone, head = part("backbone"), part("head")
    batch, side = len(images), images.shape[-1] // PATCH
    weight, bias = backbone("patch_embed.proj.weight"), backbone("patch_embed.proj.bias")
    patches = F.conv2d(images, weight, bias, stride=PATCH).flatten(2).transpose(1, 2)
    table = backbone("pos_embed")
    positions = table[:, 1:]
    if side != GRID:
        scale = (side + 0.1) / GRID
        positions = positions.reshape(1, GRID, GRID, DIM).permute(0, 3, 1, 2)
        positions = F.interpolate(positions, scale_factor=(scale, scale), mode="bicubic").flatten(2).transpose(1, 2)
    cls = (backbone("cls_token") + table[:, :1]).expand(batch, -1, -1)
    x = torch.cat([cls, patches + positions], 1)
    for index in range(DEPTH):
        block = part(f"backbone.blocks.{index}")
        qkv = linear(norm(x, block, "norm1"), block, "attn.qkv").reshape(batch, -1, 3, HEADS, DIM // HEADS)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attention = (q @ k.transpose(-1, -2) * (DIM // HEADS) ** -0.5).softmax(-1) @ v
        x = x + block("ls1.gamma") * linear(attention.transpose(1, 2).reshape(batch, -1, DIM), block, "attn.proj")
        hidden = F.gelu(linear(norm(x, block, "norm2"), block, "mlp.fc1"))
        x = x + block("ls2.gamma") * linear(hidden, block, "mlp.fc2")
    x = norm(x, backbone, "norm")[:, 0]
    x = F.gelu(linear(F.gelu(linear(x, head, "fc1")), head, "fc2"))
    return F.normalize(linear(x, head, "fc3"), dim=-1) @ F.normalize(head("prototypes"), dim=-1).T


def main():
    before = {name: values.double() for name, values in load_file(HERE / "before.safetensors").items()}
    student, teacher = (
        {name.removeprefix(f"{role}."): values for name, values in before.items() if name.startswith(f"{role}.")}
        for role in ("student", "teacher")
    )
    for values in student.values():
        values.requires_grad_(True)
    large = torch.cat([before["global.0"], before["global.1"]])
    small = torch.cat([before[f"local.{index}"] for index in range(3)])
    with torch.no_grad():
        targets = (logits(teacher, large) - before["center"]) / CONFIG["teacher_temperature"]
    targets = targets.softmax(-1).chunk(2)
    views = [
        view
        for images, count in ((large, 2), (small, 3))
        for view in (logits(student, images) / CONFIG["student_temperature"]).log_softmax(-1).chunk(count)
    ]
    losses = [-(t * v).sum(-1).mean() for i, t in enumerate(targets) for j, v in enumerate(views) if i != j]
    (sum(losses) / len(losses)).backward()
    exact = {name: values.grad for name, values in student.items() if values.grad is not None}
    expected = load_file(HERE / "expected.safetensors")
    worst = 0.0
    for name, values in exact.items():
        found = expected[f"grad.{name}"].double()
        allowed = (1e-4 * torch.maximum(found.abs(), values.abs())).clamp_min(1e-6)
        ratio = ((found - values).abs() / allowed).max().item()
        if ratio > 1.0:
            print(f"{name}: single precision is off by {ratio:.2f} times the tolerance")
        worst = max(worst, ((found - values).norm() / values.norm().clamp_min(1e-6)).item())
    print(f"{len(exact)} parameters; none is off by more than {worst:.1e} of its norm")
    save_file({name: values.float().contiguous() for name, values in exact.items()}, HERE / "exact.safetensors")


if __name__ == "__main__":
    main()
