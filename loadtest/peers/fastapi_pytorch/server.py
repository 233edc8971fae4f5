"""FastAPI and PyTorch: transformers' Dinov2Model in one process, one image at a time."""

import argparse
import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from preprocess import normalize, preprocess
from transformers import Dinov2Model


class Embedder:
    """The model in a dedicated thread: every thread that calls PyTorch makes OpenMP threads."""

    def __init__(self, weights: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self.model = Dinov2Model.from_pretrained(weights).eval()
        self.thread = ThreadPoolExecutor(max_workers=1)

    def run(self, pixels: np.ndarray) -> list[float]:
        with torch.inference_mode():
            cls = self.model(torch.from_numpy(pixels).unsqueeze(0)).pooler_output
        return normalize(cls[0].numpy()).tolist()

    async def embed(self, file: bytes) -> list[float]:
        pixels = await run_in_threadpool(preprocess, file)
        return await asyncio.get_running_loop().run_in_executor(self.thread, self.run, pixels)


def make_app(embedder: Embedder) -> FastAPI:
    app = FastAPI()

    @app.post("/embed")
    async def embed(request: Request) -> JSONResponse:
        return JSONResponse({"embedding": await embedder.embed(await request.body())})

    @app.get("/health")
    async def health() -> JSONResponse:
        return JSONResponse({"status": "ready"})

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, help="output folder of prepare.py")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    app = make_app(Embedder(arguments.models / "hf", arguments.threads))
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
