#!/bin/sh
# Checks dinoserve on this machine's GPUs and prints parity, throughput and latency as one table.
#
#   deploy/gpu-check.sh [MODEL] [DEVICE]      by default dinov2-small-focus on cuda:0
#
# Needs a build (`make build`), ONNX Runtime for CUDA (set ORT_DYLIB_PATH to its library; `pip download
# onnxruntime-gpu` gets it), CUDA and cuDNN, and the model in the cache or network access to download it.
set -eu
cd "$(dirname "$0")/.."

model=${1:-dinov2-small-focus}
device=${2:-cuda:0}
program=${DINOSERVE:-target/release/dinoserve}
batches=${BATCHES:-1 8 32}
sizes=${SIZES:-224,518}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/images"
cp tests/golden/dinov2-small-focus/rocket.jpg tests/golden/dinov2-small-focus/coffee.png "$scratch/images"

fail() { echo "gpu-check: $1" >&2; exit 1; }
[ -x "$program" ] || fail "$program does not exist; run \`make build\`"
command -v python3 >/dev/null || fail "python3 is needed to read dinoserve's output"
command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=index,name,memory.total,driver_version --format=csv,noheader

# A GPU that cannot be used is an error here, with the reason.
for precision in fp32 fp16; do
    "$program" embed "$scratch/images" -o "$scratch/$precision.jsonl" --model "$model" --device "$device" \
        --precision "$precision" --log error || fail "$precision does not run on $device"
    for batch in $batches; do
        "$program" bench "$scratch/images/"* --model "$model" --device "$device" --precision "$precision" \
            --max-batch "$batch" --sizes "$sizes" --json --log error > "$scratch/$precision-$batch.json"
    done
done
"$program" embed "$scratch/images" -o "$scratch/cpu.jsonl" --model "$model" --device cpu --log error

python3 - "$scratch" "$batches" <<'PY'
import json, math, pathlib, sys

folder, batches = pathlib.Path(sys.argv[1]), sys.argv[2].split()

def vectors(name):
    lines = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    return [line["embedding"] for line in sorted(lines, key=lambda line: line["path"])]

def cosine(a, b):
    return sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))

reference = vectors("cpu.jsonl")
print(f"\n{'precision':>9} {'batch':>6} {'size':>5} {'one image, ms':>14} {'images/s':>9} {'from file':>10} {'cosine to CPU fp32':>19}")
good = True
for precision, least in (("fp32", 0.99999), ("fp16", 0.999)):
    worst = min(cosine(a, b) for a, b in zip(vectors(f"{precision}.jsonl"), reference, strict=True))
    good &= worst >= least
    for batch in batches:
        for row in json.loads((folder / f"{precision}-{batch}.json").read_text())["rows"]:
            print(
                f"{precision:>9} {batch:>6} {row['size']:>5} {row['inference_ms']:>14.2f} {row['session_rate']:>9.1f} "
                f"{row['pipeline_rate']:>10.1f} {worst:>19.6f}"
            )
print("\nparity holds" if good else "\nPARITY FAILS: the features of the GPU and the CPU differ")
sys.exit(not good)
PY
