"""Random weights of an architecture, as a safetensors file with the names of Meta's hub."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np


def shapes(spec: dict) -> Iterator[tuple[str, tuple[int, ...], float, float]]:
    """Yields name, shape, mean and standard deviation of each tensor."""
    dim, hidden, patch = spec["dim"], spec["ffn_hidden"], spec.get("patch", 14)
    yield "cls_token", (1, 1, dim), 0, 0.02
    if spec["registers"]:
        yield "register_tokens", (1, spec["registers"], dim), 0, 0.02
    if spec.get("positions") != "rope":
        yield "pos_embed", (1, 1 + spec["native_grid"] ** 2, dim), 0, 0.02
    layers = [("patch_embed.proj", (dim, 3, patch, patch))]
    for block in range(spec["depth"]):
        name = f"blocks.{block}"
        layers += [(f"{name}.attn.qkv", (3 * dim, dim)), (f"{name}.attn.proj", (dim, dim))]
        if spec["ffn"] == "mlp":
            layers += [(f"{name}.mlp.fc1", (hidden, dim)), (f"{name}.mlp.fc2", (dim, hidden))]
        else:
            layers += [(f"{name}.mlp.w12", (2 * hidden, dim)), (f"{name}.mlp.w3", (dim, hidden))]
        for norm in ("norm1", "norm2"):
            yield f"{name}.{norm}.weight", (dim,), 1, 0.1
            yield f"{name}.{norm}.bias", (dim,), 0, 0.1
        for scale in ("ls1", "ls2") if spec.get("layer_scale", True) else ():
            yield f"{name}.{scale}.gamma", (dim,), 0.3, 0.1
    for name, shape in layers:
        # Keeps the variance from one layer to the next.
        yield f"{name}.weight", shape, 0, float(np.prod(shape[1:])) ** -0.5
        yield f"{name}.bias", shape[:1], 0, 0.02
    yield "norm.weight", (dim,), 1, 0.1
    yield "norm.bias", (dim,), 0, 0.1


def write(spec: dict, path: Path) -> None:
    """Writes the weights as f32; the same description gives the same file."""
    tensors = list(shapes(spec))
    header, offset = {}, 0
    for name, shape, _, _ in tensors:
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    random = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, shape, mean, deviation in tensors:
            values = random.standard_normal(shape, dtype=np.float32)
            file.write((values * np.float32(deviation) + np.float32(mean)).tobytes())


def flop(spec: dict, size: int) -> float:
    """Returns the floating-point operations of all products of one square image."""
    dim, patch = spec["dim"], spec.get("patch", 14)
    patches = (size // patch) ** 2
    tokens = 1 + spec["registers"] + patches
    ffn_products = 2 if spec["ffn"] == "mlp" else 3
    block = 4 * dim * dim + 2 * tokens * dim + ffn_products * dim * spec["ffn_hidden"]
    return 2 * (spec["depth"] * tokens * block + patches * 3 * patch * patch * dim)
