"""FastAPI and ONNX Runtime's OpenVINO provider: the ordinary export of Dinov2Model."""

import argparse
import json
from pathlib import Path

import onnxruntime as ort
from app import serve
from onnx_sessions import Embedder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, help="output folder of prepare.py")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["f32", "bf16"], help="default: OpenVINO's choice")
    parser.add_argument("--hint", choices=["LATENCY", "THROUGHPUT"], default="LATENCY")
    arguments = parser.parse_args()
    config = {"INFERENCE_NUM_THREADS": arguments.threads, "PERFORMANCE_HINT": arguments.hint}
    if arguments.precision:
        config["INFERENCE_PRECISION_HINT"] = arguments.precision
    options = ort.SessionOptions()
    # With ONNX Runtime's own fusions, OpenVINO would get only pieces of the graph.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    provider = {"device_type": "CPU", "load_config": json.dumps({"CPU": config})}
    embedder = Embedder(arguments.models, options, [("OpenVINOExecutionProvider", provider)])
    serve(embedder.embed, arguments.port)


if __name__ == "__main__":
    main()
