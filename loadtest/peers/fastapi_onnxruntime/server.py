"""FastAPI and ONNX Runtime: the ordinary export of Dinov2Model, with all optimizations."""

import argparse
import threading
from pathlib import Path

import onnxruntime as ort
import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from preprocess import normalize, preprocess


class Embedder:
    """The session. Images are decoded and resized in parallel, and run through it one at a time."""

    def __init__(self, model: Path, threads: int) -> None:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = threads
        self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.turn = threading.Lock()

    def embed(self, file: bytes) -> list[float]:
        pixels = preprocess(file)[None]
        with self.turn:
            (cls,) = self.session.run(["cls"], {"pixel_values": pixels})
        return normalize(cls[0]).tolist()


def make_app(embedder: Embedder) -> FastAPI:
    app = FastAPI()

    @app.post("/embed")
    async def embed(request: Request) -> JSONResponse:
        embedding = await run_in_threadpool(embedder.embed, await request.body())
        return JSONResponse({"embedding": embedding})

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
    app = make_app(Embedder(arguments.models / "model.onnx", arguments.threads))
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
