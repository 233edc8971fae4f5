#!/usr/bin/env python3
"""Writes seeds: small valid inputs of every target, from which the fuzzer starts.

    seeds.py OUT_DIR         needs only Python's standard library

OUT_DIR gets a folder for each target. The bytes are the same on each run.
"""

from __future__ import annotations

import collections
import io
import json
import pickle
import struct
import subprocess
import sys
import tempfile
import types
import zipfile
import zlib
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIM, HIDDEN, GRID = 2, 2, 2
BINDING = {
    "model": "m", "fingerprint": "ab", "dim": DIM, "pooling": "cls", "layers": 1, "size": 224,
    "resize": "crop", "filter": "bicubic", "exif": True, "background": "white",
}
SPEC = {
    "name": "m", "summary": "", "licence": "", "dim": DIM, "depth": 1, "heads": 1, "registers": 0,
    "ffn": "mlp", "ffn_hidden": HIDDEN, "native_grid": GRID, "embed_size": 14, "map_size": 14,
}


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def message(*fields: tuple) -> bytes:
    """Encodes a protobuf message of (number, value) pairs with integers, texts or bytes."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            value = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def floats(count: int) -> list[float]:
    return [(index % 5 - 2) / 4 for index in range(count)]


def packed(values: list[float], kind: str = "f") -> bytes:
    return struct.pack(f"<{len(values)}{kind}", *values)


# Weights


def hub_shapes(swiglu: bool) -> dict[str, tuple[int, ...]]:
    """Returns the tensors of the target's models under the hub's names."""
    block = "blocks.0."
    first, second, wide = ("w12", "w3", 2 * HIDDEN) if swiglu else ("fc1", "fc2", HIDDEN)
    shapes = {
        "cls_token": (1, 1, DIM), "pos_embed": (1, 1 + GRID * GRID, DIM),
        "patch_embed.proj.weight": (DIM, 3, 14, 14), "patch_embed.proj.bias": (DIM,),
        block + "attn.qkv.weight": (3 * DIM, DIM), block + "attn.qkv.bias": (3 * DIM,),
        block + "attn.proj.weight": (DIM, DIM), block + "attn.proj.bias": (DIM,),
        block + "ls1.gamma": (DIM,), block + "ls2.gamma": (DIM,),
        f"{block}mlp.{first}.weight": (wide, DIM), f"{block}mlp.{first}.bias": (wide,),
        f"{block}mlp.{second}.weight": (DIM, HIDDEN), f"{block}mlp.{second}.bias": (DIM,),
    }
    for norm in (block + "norm1", block + "norm2", "norm"):
        shapes |= {f"{norm}.weight": (DIM,), f"{norm}.bias": (DIM,)}
    return shapes | ({"register_tokens": (1, 1, DIM)} if swiglu else {})


def hugging_face_shapes(swiglu: bool) -> dict[str, tuple[int, ...]]:
    """Returns the same tensors under Hugging Face's names."""
    names = {
        "cls_token": "embeddings.cls_token", "register_tokens": "embeddings.register_tokens",
        "pos_embed": "embeddings.position_embeddings", "blocks.0.": "encoder.layer.0.",
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "attn.proj": "attention.output.dense", "ls1.gamma": "layer_scale1.lambda1",
        "ls2.gamma": "layer_scale2.lambda1", "w12": "weights_in", "w3": "weights_out",
    }
    shapes = {}
    for name, shape in hub_shapes(swiglu).items():
        name = name.replace("norm.", "layernorm.") if name.startswith("norm.") else name
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        if "attn.qkv" in name:
            for part in ("query", "key", "value"):
                shapes[name.replace("attn.qkv", f"attention.attention.{part}")] = (DIM, *shape[1:])
        else:
            shapes[name] = shape
    return shapes


def count(shape: tuple[int, ...]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total


def safetensors(shapes: dict[str, tuple[int, ...]], kind: str = "F16") -> bytes:
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, shape in shapes.items():
        values = packed(floats(count(shape)), "e" if kind == "F16" else "f")
        offsets = [len(data), len(data) + len(values)]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": offsets}
        data += values
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + data


def fake_torch() -> types.SimpleNamespace:
    """Fakes the names in a checkpoint's pickle, which pickling needs."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    sys.modules |= {"torch": torch, "torch._utils": utils}
    torch.HalfStorage = type("HalfStorage", (), {"__module__": "torch"})

    def _rebuild_tensor_v2(*_: object) -> None: ...

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    return types.SimpleNamespace(storage=torch.HalfStorage, rebuild=_rebuild_tensor_v2)


TORCH = fake_torch()
Storage = collections.namedtuple("Storage", "key values")


class Tensor:
    def __init__(self, storage: Storage, offset: int, shape: tuple[int, ...]):
        self.storage, self.offset, self.shape = storage, offset, shape

    def __reduce__(self) -> tuple:
        strides = tuple(count(self.shape[axis + 1 :]) for axis in range(len(self.shape)))
        hooks = collections.OrderedDict()
        return TORCH.rebuild, (self.storage, self.offset, self.shape, strides, False, hooks)


class CheckpointPickler(pickle.Pickler):
    def persistent_id(self, value: object) -> tuple | None:
        if isinstance(value, Storage):
            return ("storage", TORCH.storage, value.key, "cpu", len(value.values))
        return None


def torch(
    shapes: dict[str, tuple[int, ...]], protocol: int, compression: int, inner: str | None = None
) -> bytes:
    storage = Storage("0", floats(sum(map(count, shapes.values()))))
    tensors, offset = collections.OrderedDict(), 0
    for name, shape in shapes.items():
        tensors[name] = Tensor(storage, offset, shape)
        offset += count(shape)
    pickled, out = io.BytesIO(), io.BytesIO()
    CheckpointPickler(pickled, protocol).dump({inner: tensors, "epoch": 1} if inner else tensors)
    with zipfile.ZipFile(out, "w", compression) as archive:
        files = {"data.pkl": pickled.getvalue(), "data/0": packed(storage.values, "e")}
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(f"a/{name}"), content, compression)
    return out.getvalue()


def initializer(name: str, shape: tuple[int, ...]) -> bytes:
    values = packed(floats(count(shape)))
    return message(*((1, side) for side in shape), (2, 1), (8, name), (9, values))


def onnx(shapes: dict[str, tuple[int, ...]]) -> bytes:
    """Imitates the exporter: nodes name the transposed linear layers, and positions are split."""
    graph = []
    for index, (name, shape) in enumerate(shapes.items()):
        if name == "embeddings.position_embeddings":
            for rows in (1, shape[1] - 1):
                table, node = f"rows{rows}", f"/embeddings/Add_{rows}"
                graph.append((5, initializer(table, (1, rows, DIM))))
                graph.append((1, message((1, "x"), (1, table), (3, node), (4, "Add"))))
        elif len(shape) == 2:
            module = name.removesuffix(".weight").replace(".", "/").replace("layer/0", "layer.0")
            weight, node = f"onnx::MatMul_{index}", f"/{module}/MatMul"
            graph.append((5, initializer(weight, shape[::-1])))
            edges = ((1, "x"), (1, weight), (2, "y"))
            graph.append((1, message(*edges, (3, node), (4, "MatMul"))))
        else:
            graph.append((5, initializer(name, shape)))
    opset = message((1, ""), (2, 17))
    return message((1, 8), (2, "pytorch"), (7, message(*graph)), (8, opset))


def weights() -> dict[str, bytes]:
    def input_of(format_: int, precision: int, swiglu: bool, file: bytes) -> bytes:
        return bytes([format_ + 3 * precision + 9 * swiglu]) + file

    few = {"cls_token": (1, 1, DIM), "patch_embed.proj.weight": (0, 3)}
    small = {"embeddings.cls_token": (1, 1, DIM), "embeddings.position_embeddings": (1, 2, DIM)}
    stored, deflated = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
    seeds = {"safetensors-few": input_of(0, 0, False, safetensors(few, "F32"))}
    seeds["torch-few"] = input_of(1, 0, False, torch(few, 2, stored))
    seeds["onnx-few"] = input_of(2, 0, False, onnx(small))
    for precision in range(3):
        swiglu = precision == 1
        hub, theirs = hub_shapes(swiglu), hugging_face_shapes(swiglu)
        for name, format_, file in (
            ("safetensors-hub", 0, safetensors(hub)),
            ("safetensors-hf", 0, safetensors(theirs, "F32")),
            ("torch", 1, torch(hub, 2, stored)),
            ("torch-deflated", 1, torch(hub, 4, deflated, "model")),
            ("onnx", 2, onnx(theirs)),
        ):
            seeds[f"{name}-{precision}"] = input_of(format_, precision, swiglu, file)
    return seeds


# Models, requests, galleries


def model() -> bytes:
    def entries(number: int, values: dict[str, str]) -> list[tuple]:
        return [(number, message((1, key), (2, value))) for key, value in values.items()]

    spec = json.dumps(SPEC)
    metadata = {
        "dinoserve.spec": spec, "dinoserve.precision": "fp32", "dinoserve.fingerprint": "ab",
    }
    place = entries(13, {"location": "d", "offset": "0", "length": "8"})
    external = message((1, DIM), (2, 1), (8, "w"), *place, (14, 1))
    graph = message((5, initializer("pos_embed", (1, 1 + GRID * GRID, DIM))), (5, external))
    return message((1, 8), (7, graph), *entries(14, metadata))


def models() -> dict[str, bytes]:
    seeds = {"model": b"\0" + model()}
    for file in sorted((ROOT / "models").glob("*.toml"))[:3]:
        seeds[file.stem] = b"\1" + file.read_bytes()
    key = f'[[key]]\nname = "a"\nrole = "write"\nsha256 = "{"0a" * 32}"\n'
    key += "requests_per_minute = 60\nburst = 5\n"
    seeds["keys"] = b"\2" + (key + key.replace("0a", "0b").replace('"a"', '"b"')).encode()
    return seeds


def requests() -> dict[str, bytes]:
    def request(kind: int, query: str, body: bytes) -> bytes:
        return bytes([kind, len(query)]) + query.encode() + body

    def form(*parts: tuple[str, bytes]) -> bytes:
        start = b"--x\r\nContent-Disposition: form-data; "
        lines = (start + head.encode() + b"\r\n\r\n" + body for head, body in parts)
        return b"".join(line + b"\r\n" for line in lines) + b"--x--\r\n"

    where = {"label": "cat", "metadata": {"a": {"gte": 1, "lt": 2}, "b": {"any": ["x", True]}}}
    item = {"id": "a", "image": "aGk=", "label": "x", "metadata": {"y": [1]}}
    items = {"items": [item, {"vector": [1, 0.5], "id": 7}]}
    bodies = {
        "image": {
            "image": "data:image/png;base64,aGk=", "pooling": "mean", "size": 224, "resize": "fit",
            "filter": "bilinear",
        },
        "images": {
            "images": ["aGk=", "aG k="], "layers": "4", "exif": False, "background": "black",
            "threshold": 0.6,
        },
        "vector": {"vector": [1, 2.5e-3, -1], "k": 5, "where": where},
        "items": items,
        "input": {"input": ["aGk="], "model": "m", "encoding_format": "base64"},
        "where": where,
    }
    seeds = {}
    for name, body in bodies.items():
        seeds[name] = request(2, "k=3&exact=true", json.dumps(body).encode())
    query = "size=518&normalize=false&colormap=viridis&format=png"
    seeds["raw"] = request(0, query, b"\x89PNG\r\n\x1a\n")
    listing = json.dumps([{"id": "a", "label": "x"}, {}]).encode()
    files = (
        ('name="f"; filename="a.png"', b"abc"),
        ('name="f"; filename="b.png"\r\nContent-Type: image/png', b"def"),
    )
    seeds["form"] = request(1, "pooling=cls_mean", form(*files, ('name="size"', b"224")))
    seeds["form-items"] = request(1, "", form(('name="items"', listing), *files))
    return seeds


def snapshots() -> dict[str, bytes]:
    def snapshot(*records: bytes) -> bytes:
        file = b"DINOGLRY" + struct.pack("<I", 1)
        header = json.dumps({"binding": BINDING}, separators=(",", ":")).encode()
        for part in (header, *records):
            file += struct.pack("<I", len(part)) + part
        file += struct.pack("<IQ", 0, len(records))
        return file + sha256(file).digest()

    plain = message((1, "a"), (3, "{}"), (4, packed([0.6, 0.8])))
    metadata = '{"year":2024,"tags":["x",true]}'
    vectors = ((4, packed([1, 0])), (5, packed(floats(4))))
    full = message((1, "b"), (2, "cat"), (3, metadata), *vectors, (6, b"jpeg"))
    return {
        "empty": b"\0" + snapshot(), "plain": b"\0" + snapshot(plain),
        "full": b"\0" + snapshot(plain, full), "corrected": b"\1" + snapshot(full, plain),
    }


def folders() -> dict[str, bytes]:
    def entry(table: int, key: bytes, value: bytes) -> bytes:
        return struct.pack("<BBH", table, len(key), len(value)) + key + value

    def item(
        place: int, id_: str, label: str, metadata: bytes, parts: tuple[bytes, bytes, bytes]
    ) -> bytes:
        record = struct.pack("<QQQ", place, place, 1_700_000_000_000)
        for text in (id_, label):
            record += struct.pack("<H", len(text)) + text.encode()
        record += metadata
        summed = b"".join(struct.pack("<Q", len(part)) + part for part in (record, *parts))
        key = struct.pack(">IQ", 1, place)
        entries = entry(2, struct.pack(">I", 1) + id_.encode(), struct.pack("<Q", place))
        entries += entry(3, key, struct.pack("<I", zlib.crc32(summed)) + record)
        numbered = enumerate(parts, 4)
        return entries + b"".join(entry(table, key, part) for table, part in numbered if part)

    def gallery(vectors: str, items: int) -> bytes:
        row = {
            "number": 1, "binding": BINDING, "vectors": vectors, "items": items, "next_place": 3,
            "next_serial": 3,
        }
        return entry(1, b"g", json.dumps(row, separators=(",", ":")).encode())

    whole = item(1, "a", "", b"", (packed([0.6, 0.8]), b"", b""))
    parts = (packed([1, 0]), packed(floats(4), "e"), b"jpeg")
    whole += item(2, "b", "cat", b'{"year":2024}', parts)
    half = item(1, "a", "dog", b"", (packed([0.6, 0.8], "e"), b"", b""))
    documents = entry(7, b"probe/p", b"{}") + entry(0, b"next gallery", struct.pack("<I", 2))
    return {"f32": gallery("f32", 2) + whole + documents, "f16": gallery("f16", 1) + half}


def uses() -> dict[str, bytes]:
    """Returns choices of the target, which builds snapshots and rows of them."""
    binding = bytes([3, 0, 0, 8, 0])
    record = bytes([2, 150, 40, 130, 90, 0])
    return {
        "snapshot": b"\0" + binding + record * 3,
        "row": b"\1" + bytes([0]) + binding + bytes([5, 0, 0]),
        "joined": b"\0" + bytes([4, 1, 2, 8, 1]) + record,
        "layers": b"\0" + bytes([4, 13, 0, 8, 0]) + record,
        "wide": b"\1" + bytes([0, 14, 0, 0, 8, 0, 5, 0, 0]),
    }


def images() -> dict[str, bytes]:
    """Returns the valid files of the hostile corpus, and the smallest of the others."""
    with tempfile.TemporaryDirectory() as folder:
        generate = ROOT / "tests/hostile/generate.py"
        subprocess.run([sys.executable, generate, folder], check=True, stdout=subprocess.DEVNULL)
        paths = [path for path in sorted(Path(folder).iterdir()) if path.suffix != ".json"]
        files = {path.name: path.read_bytes() for path in paths}
    return {name: file for name, file in files.items() if "-valid-" in name or len(file) <= 500}


def main() -> None:
    [out] = sys.argv[1:]
    targets = {
        "decode_image": images, "read_weights": weights, "open_model": models,
        "read_request": requests, "read_gallery": snapshots, "open_gallery": folders,
        "use_gallery": uses,
    }
    for target, seeds in targets.items():
        folder = Path(out) / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in seeds().items():
            (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
