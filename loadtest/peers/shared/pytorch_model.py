"""The model of the peers that use PyTorch: transformers' Dinov2Model, in f32 or in bf16."""

import argparse
from pathlib import Path

import numpy as np
import torch
from transformers import Dinov2Model


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the model, and the port."""
    parser.add_argument("models", type=Path, help="output folder of prepare.py")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--compile", action="store_true", help="use torch.compile")


class PyTorchModel:
    """The model with its options. bf16 is PyTorch's autocast."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        torch.set_num_threads(arguments.threads)
        self.bf16 = arguments.precision == "bf16"
        self.model = Dinov2Model.from_pretrained(arguments.models / "hf").eval()
        if arguments.compile:
            self.model = torch.compile(self.model)

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        """Returns CLS of each image: f32 [batch, dim] of [batch, 3, height, width]."""
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            return self.model(torch.from_numpy(pixels)).pooler_output.float().numpy()
