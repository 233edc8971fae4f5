"""FastAPI and ONNX Runtime: the ordinary export of Dinov2Model, with all optimizations."""

import argparse
from pathlib import Path

import onnxruntime as ort
from app import serve
from onnx_sessions import Embedder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, help="output folder of prepare.py")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = arguments.threads
    embedder = Embedder(arguments.models, options, ["CPUExecutionProvider"])
    serve(embedder.embed, arguments.port)


if __name__ == "__main__":
    main()
