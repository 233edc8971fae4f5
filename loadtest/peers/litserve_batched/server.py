"""LitServe and PyTorch: transformers' Dinov2Model; images that arrive together form a batch."""

import argparse
import signal
from pathlib import Path
from typing import Annotated

import litserve as ls
import torch
from fastapi import Depends, Request
from preprocess import normalize, preprocess
from transformers import Dinov2Model


async def raw_body(request: Request) -> bytes:
    return await request.body()


class Embedder(ls.LitAPI):
    """The model, and the steps that LitServe calls for a batch."""

    def __init__(self, weights: Path, threads: int, **batching: float) -> None:
        super().__init__(api_path="/embed", **batching)
        self.weights = weights
        self.threads = threads

    def setup(self, device: str) -> None:
        torch.set_num_threads(self.threads)
        self.model = Dinov2Model.from_pretrained(self.weights).eval()

    def decode_request(self, request: Annotated[bytes, Depends(raw_body)]) -> torch.Tensor:
        return torch.from_numpy(preprocess(request))

    def predict(self, pixels: torch.Tensor) -> list[list[float]]:
        with torch.inference_mode():
            cls = self.model(pixels).pooler_output
        return normalize(cls.numpy()).tolist()

    def unbatch(self, output: list[list[float]]) -> list[list[float]]:
        return output

    def encode_response(self, output: list[float]) -> dict[str, list[float]]:
        return {"embedding": output}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, help="output folder of prepare.py")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--threads", type=int, default=2, help="number of threads of each worker")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--max-batch-size", type=int, default=8)
    parser.add_argument("--batch-timeout", type=float, default=0.005, help="in seconds")
    arguments = parser.parse_args()
    api = Embedder(
        arguments.models / "hf",
        arguments.threads,
        max_batch_size=arguments.max_batch_size,
        batch_timeout=arguments.batch_timeout,
    )
    # LitServe stops its processes on an interrupt, but leaves them running on a plain SIGTERM.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=arguments.workers)
    server.run(
        host="127.0.0.1",
        port=arguments.port,
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
    )


if __name__ == "__main__":
    main()
