"""Compares dinoserve on a GPU with the CPU, with PyTorch and with the card's limits.

`deploy/gpu-check.sh` starts it and says what it needs. Exits with 1 if parity or the fallback fails.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import weights

HERE = Path(__file__).resolve().parent
PROGRAM = os.environ.get("DINOSERVE", "target/release/dinoserve")
GOLDEN = Path("tests/golden/dinov2-small-focus")
IMAGES = [str(GOLDEN / name) for name in ("rocket.jpg", "coffee.png", "chelsea.png")]
# Least cosine of CLS to that of the CPU in fp32.
LEAST_COSINE = {"fp32": 0.99999, "fp16": 0.999}


class Failed(Exception):
    """A program ended with an error."""


def run(*command: str, **environment: str) -> str:
    """Runs a program that must succeed, and returns what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode != 0:
        lines = (done.stderr + done.stdout).strip().splitlines()
        # `dinoserve doctor` marks what does not hold.
        bad = [" ".join(line.split()) for line in lines if line.startswith("BAD ")]
        raise Failed("\n".join(bad or lines[-3:]))
    return done.stdout


def cosine(a: list[float], b: list[float]) -> float:
    def product(x: list[float], y: list[float]) -> float:
        return sum(p * q for p, q in zip(x, y, strict=True))

    return product(a, b) / (product(a, a) * product(b, b)) ** 0.5


class MemoryWatch(threading.Thread):
    """The largest amount of GPU memory in use while it runs, in MB; 0 without nvidia-smi."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.ended = 0, threading.Event()

    def run(self) -> None:
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        while not self.ended.wait(0.2):
            try:
                used = subprocess.run(query, capture_output=True, text=True, check=True).stdout
            except (OSError, subprocess.CalledProcessError):
                return
            self.most = max(self.most, max(map(int, used.split())))


class Check:
    def __init__(self, flags: argparse.Namespace, home: Path) -> None:
        self.flags = flags
        self.home = ["--home", str(home)]
        self.good = True
        catalog = json.loads(run(PROGRAM, "models", "list", "--json", *self.home))
        specs = {model["model"]["name"]: model["model"] for model in catalog}
        unknown = [name for name in flags.models if name not in specs]
        if unknown:
            sys.exit(f"gpu-check: unknown model {unknown[0]}; known are {', '.join(specs)}")
        self.specs = [specs[name] for name in flags.models]

    def wrong(self, what: str) -> None:
        self.good = False
        print(f"\n**FAILED: {what}**")

    def convert(self, spec: dict) -> None:
        """Converts random weights for every precision."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.safetensors"
            weights.write(spec, path)
            # The reference is in fp32.
            for precision in {"fp32", *self.flags.precisions}:
                command = ["models", "convert", spec["name"], "--from", str(path)]
                run(PROGRAM, *command, "--precision", precision, "--device", "cpu", *self.home)

    def bench(self, spec: dict, device: str, precision: str, *options: str) -> dict:
        target = ["--model", spec["name"], "--offline", "--device", device, "--precision", precision]
        sizes = ["--sizes", ",".join(map(str, self.flags.sizes))]
        output = run(PROGRAM, "bench", *IMAGES, *target, *sizes, *options, "--json", "--log", "error", *self.home)
        return json.loads(output)

    def model(self, spec: dict, limits: dict) -> None:
        """Parity, and the table of one architecture."""
        print(f"\n## {spec['name']}\n")
        reference = self.bench(spec, "cpu", "fp32", "--rounds", "1", "--seconds", "0")
        print("| precision | workers | batch | size | one image, ms | images/s | from file | % of limit | GPU memory, MB | cosine |")
        print("|---|---|---|---|---|---|---|---|---|---|")
        runs = [(precision, 1, batch) for precision in self.flags.precisions for batch in self.flags.batches]
        runs.append((self.flags.precisions[-1], 2, self.flags.batches[-1]))
        for precision, workers, batch in runs:
            options = ["--max-batch", str(batch), "--workers", str(workers), "--seconds", str(self.flags.seconds)]
            watch = MemoryWatch()
            watch.start()
            try:
                report = self.bench(spec, self.flags.device, precision, *options)
            except Failed as error:
                self.wrong(f"{precision} in batches of {batch}: {error}")
                continue
            finally:
                watch.ended.set()
            for row, expected in zip(report["rows"], reference["rows"], strict=True):
                worst = min(map(cosine, row["cls"], expected["cls"]))
                used = weights.flop(spec, row["size"]) * row["session_rate"] / 1e12
                share = f"{100 * used / limits[precision]:.0f}" if precision in limits else "-"
                print(
                    f"| {precision} | {workers} | {batch} | {row['size']} | {row['inference_ms']:.2f} "
                    f"| {row['session_rate']:.1f} | {row['pipeline_rate']:.1f} | {share} | {watch.most or '-'} "
                    f"| {worst:.6f} |",
                    flush=True,
                )
                if worst < LEAST_COSINE[precision]:
                    self.wrong(f"{precision} at {row['size']}: the cosine to the CPU is {worst:.6f}")

    def pytorch(self) -> dict:
        """Times PyTorch, prints its table and returns the limits; empty without PyTorch."""
        options = ["--device", self.flags.device, "--sizes", str(self.flags.sizes[0])]
        options += ["--batches", ",".join(map(str, self.flags.batches)), "--seconds", str(self.flags.seconds)]
        options += ["--eager"] if self.flags.eager else []
        try:
            output = run(sys.executable, str(HERE / "pytorch.py"), json.dumps(self.specs), *options)
        except Failed as error:
            print(f"\nNot compared with PyTorch: {error}")
            return {}
        report = json.loads(output.splitlines()[-1])
        limits = ", ".join(f"{name} {value:.1f}" for name, value in report["limits"].items())
        print(f"\n## PyTorch {report['version']}, bf16\n\nLimits: {limits} (products in TFLOP/s).\n")
        print("| model | size | batch | ms | images/s | % of limit |\n|---|---|---|---|---|---|")
        for row in report["rows"]:
            spec = next(spec for spec in self.specs if spec["name"] == row["model"])
            rate = 1e3 * row["batch"] / row["ms"]
            share = 1e-10 * weights.flop(spec, row["size"]) * rate / report["limits"]["bf16"]
            print(f"| {row['model']} | {row['size']} | {row['batch']} | {row['ms']:.2f} | {rate:.1f} | {share:.0f} |")
        return report["limits"]

    def graphs(self) -> None:
        """Times CUDA graphs and TensorRT in Python's ONNX Runtime."""
        spec, precision = self.specs[0], self.flags.precisions[-1]
        command = ["models", "verify", spec["name"], "--precision", precision, "--device", "cpu", "--json"]
        path = json.loads(run(PROGRAM, *command, *self.home))["path"]
        options = ["--device", self.flags.device, "--seconds", str(self.flags.seconds)]
        options += ["--patch", str(spec.get("patch", 14))]
        try:
            output = run(sys.executable, str(HERE / "graphs.py"), path, *options)
        except Failed as error:
            print(f"\nNot tried in Python's ONNX Runtime: {error}")
            return
        report = json.loads(output.splitlines()[-1])
        print(f"\n## {spec['name']} {precision} in Python's ONNX Runtime {report['version']}\n")
        print("| provider | batch | ms |\n|---|---|---|")
        for row in report["rows"]:
            result = f"{row['ms']:.2f}" if "ms" in row else row["error"]
            print(f"| {row['way']} | {row['batch']} | {result} |")

    def fallback(self) -> None:
        """Without a visible GPU `auto` runs on the CPU, and `cuda` is an error with its reason."""
        print("\n## Without a visible GPU\n")
        doctor = [PROGRAM, "doctor", "--model", self.specs[0]["name"], "--offline", "--port", "0", *self.home]
        hidden = {"CUDA_VISIBLE_DEVICES": "-1"}
        try:
            run(*doctor, "--device", "auto", **hidden)
            print("* `--device auto` runs on the CPU.")
        except Failed as error:
            self.wrong(f"`--device auto` does not run on the CPU: {error}")
        try:
            run(*doctor, "--device", "cuda", **hidden)
            self.wrong("`--device cuda` starts")
        except Failed as error:
            print(f"* `--device cuda` is refused: {error}")


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def words(text: str) -> list[str]:
    return text.split(",")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu-check.sh", description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0", help="cuda:N, or cpu for a rehearsal")
    parser.add_argument("--models", type=words, default=["dinov2-small", "dinov2-base", "dinov2-large"])
    parser.add_argument("--precisions", type=words, default=["fp32", "fp16"])
    parser.add_argument("--batches", type=numbers, default=[1, 8, 32, 64])
    parser.add_argument("--sizes", type=numbers, default=[224, 518])
    parser.add_argument("--seconds", type=float, default=1, help="time of each measurement")
    parser.add_argument("--eager", action="store_true", help="do not compile PyTorch's models")
    parser.add_argument("--home", type=Path, help="folder for the converted models, which are kept there")
    return parser.parse_args()


def main() -> None:
    flags = arguments()
    if not Path(PROGRAM).exists():
        sys.exit(f"gpu-check: {PROGRAM} does not exist; run `make build`")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        check = Check(flags, flags.home or Path(scratch))
        query = ["nvidia-smi", "--query-gpu=index,name,memory.total,driver_version", "--format=csv,noheader"]
        try:
            print(run(*query).strip())
        except (Failed, OSError):
            print("nvidia-smi finds no GPU")
        limits = check.pytorch()
        for spec in check.specs:
            check.convert(spec)
            check.model(spec, limits)
        check.graphs()
        check.fallback()
    print(f"\n{'All holds' if check.good else 'FAILED, see above'}; {time.monotonic() - began:.0f} s")
    sys.exit(not check.good)


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        sys.exit(f"gpu-check: {error}")
