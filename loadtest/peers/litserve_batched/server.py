"""LitServe and PyTorch: transformers' Dinov2Model; images that arrive together form a batch."""

import argparse
import signal
from typing import Annotated

import litserve as ls
import numpy as np
from fastapi import Depends, Request
from preprocess import normalize, preprocess
from pytorch_model import PyTorchModel, add_options


async def image_and_size(request: Request, size: int = 224) -> tuple[bytes, int]:
    return await request.body(), size


class Embedder(ls.LitAPI):
    """The model, and the steps that LitServe calls for a batch."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(
            api_path="/embed",
            max_batch_size=arguments.max_batch_size,
            batch_timeout=arguments.batch_timeout,
        )
        self.arguments = arguments

    def setup(self, device: str) -> None:
        self.model = PyTorchModel(self.arguments)

    def decode_request(
        self, request: Annotated[tuple[bytes, int], Depends(image_and_size)]
    ) -> np.ndarray:
        return preprocess(*request)

    def batch(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        return inputs

    def predict(self, inputs: list[np.ndarray]) -> list[list[float]]:
        sizes = {pixels.shape for pixels in inputs}
        embeddings: list[list[float]] = [[] for _ in inputs]
        # Only images of one size can share a batch of the model.
        for size in sizes:
            chosen = [i for i, pixels in enumerate(inputs) if pixels.shape == size]
            cls = self.model.embed(np.stack([inputs[i] for i in chosen]))
            for i, row in zip(chosen, normalize(cls), strict=True):
                embeddings[i] = row.tolist()
        return embeddings

    def unbatch(self, output: list[list[float]]) -> list[list[float]]:
        return output

    def encode_response(self, output: list[float]) -> dict[str, list[float]]:
        return {"embedding": output}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--max-batch-size", type=int, default=8)
    parser.add_argument("--batch-timeout", type=float, default=0.005, help="in seconds")
    arguments = parser.parse_args()
    # LitServe stops its processes on an interrupt, but leaves them running on a plain SIGTERM.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = ls.LitServer(
        Embedder(arguments), accelerator="cpu", workers_per_device=arguments.workers
    )
    server.run(
        host="127.0.0.1",
        port=arguments.port,
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
    )


if __name__ == "__main__":
    main()
