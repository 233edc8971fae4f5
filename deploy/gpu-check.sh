#!/bin/sh
# Checks dinoserve on this machine's GPU: parity with the CPU, speed next to PyTorch and to the
# card's limits, memory, two workers, and what happens without the GPU. Prints a report.
#
#   deploy/gpu-check.sh [--device cuda:0] [--models dinov2-small,dinov2-base,dinov2-large]
#                       [--batches 1,8,32,64] [--sizes 224,518] [--seconds 1] [--home DIR]
#
# Needs a build (`make build`; or set DINOSERVE to the program), ONNX Runtime for CUDA (`python3
# deploy/setup.py --runtime cuda` says how to set ORT_DYLIB_PATH), CUDA and cuDNN, and Python with
# NumPy. PyTorch and the Python package onnxruntime-gpu are compared with if they are installed.
# Weights are random, so nothing is downloaded. `--device cpu` rehearses the script without a GPU.
set -eu
cd "$(dirname "$0")/.."
exec python3 -B deploy/gpu_check/main.py "$@"
