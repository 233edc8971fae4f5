"""FastAPI and OpenVINO: the ordinary ONNX export of Dinov2Model, computed in f32."""

import argparse
import queue
from pathlib import Path

import openvino as ov
import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from preprocess import normalize, preprocess


class Embedder:
    """The compiled model and its optimal number of infer requests, each for one image at a time."""

    def __init__(self, model: Path, threads: int, hint: str) -> None:
        options = {
            "PERFORMANCE_HINT": hint,
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
        }
        self.compiled = ov.Core().compile_model(model, "CPU", options)
        self.idle: queue.SimpleQueue[ov.InferRequest] = queue.SimpleQueue()
        for _ in range(self.compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")):
            self.idle.put(self.compiled.create_infer_request())

    def embed(self, file: bytes) -> list[float]:
        pixels = preprocess(file)[None]
        request = self.idle.get()
        try:
            request.infer([pixels])
            cls = request.get_output_tensor().data[0].copy()
        finally:
            self.idle.put(request)
        return normalize(cls).tolist()


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
    parser.add_argument("--hint", choices=["LATENCY", "THROUGHPUT"], default="LATENCY")
    arguments = parser.parse_args()
    app = make_app(Embedder(arguments.models / "model.onnx", arguments.threads, arguments.hint))
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
