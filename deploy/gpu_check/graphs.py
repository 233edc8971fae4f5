#!/usr/bin/env python3
"""Times a converted model in Python's ONNX Runtime: plain, with CUDA graphs, and by TensorRT.

Says what a server of fixed batches would gain. Prints JSON; a way that does not work has its error.
"""

import argparse
import json
import os
import time

import numpy as np
import onnxruntime

WAYS = {
    "CUDA": ("CUDAExecutionProvider", {}),
    "CUDA graphs": ("CUDAExecutionProvider", {"enable_cuda_graph": "1"}),
    "TensorRT": ("TensorrtExecutionProvider", {"trt_fp16_enable": "1"}),
    "CPU": ("CPUExecutionProvider", {}),
}


def milliseconds(path: str, way: str, patch: int, size: int, batch: int, seconds: float) -> float:
    provider, options = WAYS[way]
    if provider not in onnxruntime.get_available_providers():
        raise RuntimeError(f"this onnxruntime has no {provider}")
    session_options = onnxruntime.SessionOptions()
    session_options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, session_options, [(provider, options)])
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"it fell back to {session.get_providers()[0]}")
    # An input with a default is among the initializers.
    positions = [*session.get_inputs(), *session.get_overridable_initializers()]
    shapes = {value.name: value.shape for value in positions}
    if "pos_embed" not in shapes:
        raise RuntimeError("only models with a position table are tried")
    dim = shapes["pos_embed"][-1]
    values = {
        "pixels": np.random.default_rng(0).integers(0, 255, (batch, size, size, 3), np.uint8),
        "pos_embed": np.zeros((1, 1 + (size // patch) ** 2, dim), np.float32),
    }
    device = "cpu" if way == "CPU" else "cuda"
    # CUDA graphs need inputs and outputs at fixed addresses.
    binding = session.io_binding()
    for name, value in values.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value, device, 0))
    output = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((batch, dim), np.float32), device, 0)
    binding.bind_ortvalue_output("cls", output)

    def run() -> None:
        session.run_with_iobinding(binding)
        output.numpy()

    for _ in range(3):
        run()
    calls, started = 0, time.perf_counter()
    while calls == 0 or time.perf_counter() - started < seconds:
        run()
        calls += 1
    return 1e3 * (time.perf_counter() - started) / calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="converted model.onnx")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--patch", type=int, default=14)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batches", default="1,32")
    parser.add_argument("--seconds", type=float, default=2)
    arguments = parser.parse_args()
    ways = ["CPU"] if arguments.device == "cpu" else ["CUDA", "CUDA graphs", "TensorRT"]
    if hasattr(onnxruntime, "preload_dlls") and "cpu" not in ways:
        onnxruntime.preload_dlls()
    rows = []
    for way in ways:
        for batch in map(int, arguments.batches.split(",")):
            row = {"way": way, "batch": batch}
            try:
                row["ms"] = milliseconds(
                    arguments.model, way, arguments.patch, arguments.size, batch, arguments.seconds
                )
            except Exception as error:  # noqa: BLE001 - whatever the library says belongs in the report
                row["error"] = (str(error) or repr(error)).splitlines()[0][:200]
            rows.append(row)
    print(json.dumps({"version": onnxruntime.__version__, "rows": rows}), flush=True)
    # Some versions crash in their destructors with CUDA graphs.
    os._exit(0)


if __name__ == "__main__":
    main()
