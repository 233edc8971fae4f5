"""FastAPI and PyTorch: transformers' Dinov2Model in one process, one image at a time."""

import argparse
import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from preprocess import normalize, preprocess
from pytorch_model import PyTorchModel, add_options


class Embedder:
    """The model in a dedicated thread: every thread that calls PyTorch makes OpenMP threads."""

    def __init__(self, model: PyTorchModel) -> None:
        self.model = model
        self.thread = ThreadPoolExecutor(max_workers=1)

    def run(self, pixels: np.ndarray) -> list[float]:
        return normalize(self.model.embed(pixels[None])[0]).tolist()

    async def embed(self, file: bytes, size: int) -> list[float]:
        pixels = await run_in_threadpool(preprocess, file, size)
        return await asyncio.get_running_loop().run_in_executor(self.thread, self.run, pixels)


def make_app(embedder: Embedder) -> FastAPI:
    app = FastAPI()

    @app.post("/embed")
    async def embed(request: Request, size: int = 224) -> JSONResponse:
        return JSONResponse({"embedding": await embedder.embed(await request.body(), size)})

    @app.get("/health")
    async def health() -> JSONResponse:
        return JSONResponse({"status": "ready"})

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    arguments = parser.parse_args()
    app = make_app(Embedder(PyTorchModel(arguments)))
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
