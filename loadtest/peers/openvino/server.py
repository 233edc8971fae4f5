"""FastAPI and OpenVINO: the ordinary ONNX export of Dinov2Model."""

import argparse
import queue
from pathlib import Path

import openvino as ov
from app import SIZES, serve
from preprocess import normalize, preprocess


class Embedder:
    """The compiled models and their optimal number of infer requests, each for one image."""

    def __init__(self, models: Path, options: dict[str, str | int]) -> None:
        core = ov.Core()
        self.idle: dict[int, queue.SimpleQueue[ov.InferRequest]] = {}
        for size in SIZES:
            compiled = core.compile_model(models / f"model-{size}.onnx", "CPU", options)
            requests = self.idle[size] = queue.SimpleQueue()
            for _ in range(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")):
                requests.put(compiled.create_infer_request())

    def embed(self, file: bytes, size: int) -> list[float]:
        pixels = preprocess(file, size)[None]
        request = self.idle[size].get()
        try:
            request.infer([pixels])
            cls = request.get_output_tensor().data[0].copy()
        finally:
            self.idle[size].put(request)
        return normalize(cls).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, help="output folder of prepare.py")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["f32", "bf16"], help="default: OpenVINO's choice")
    parser.add_argument("--hint", choices=["LATENCY", "THROUGHPUT"], default="LATENCY")
    arguments = parser.parse_args()
    options = {"PERFORMANCE_HINT": arguments.hint, "INFERENCE_NUM_THREADS": arguments.threads}
    if arguments.precision:
        options["INFERENCE_PRECISION_HINT"] = arguments.precision
    serve(Embedder(arguments.models, options).embed, arguments.port)


if __name__ == "__main__":
    main()
