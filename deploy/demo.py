#!/usr/bin/env python3
"""Starts a server with the embedded model, sends the images of tests/golden/ to every endpoint, saves the
renderings to demo-output/ and prints the responses.

    demo.py PROGRAM         needs only Python's standard library
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMAGES = sorted(
    path
    for path in (ROOT / "tests/golden/dinov2-small-focus").iterdir()
    if path.suffix in (".png", ".jpg") and not path.stem.endswith("_input")
)
OUTPUT = ROOT / "demo-output"
MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg"}


class Server:
    """A server process on a free port."""

    def __init__(self, program: str):
        command = [program, "serve", "--model", "dinov2-small-focus", "--port", "0", "--device", "cpu", "--log", "warn"]
        self.started = time.monotonic()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            sys.exit(f"demo: the server did not start (exit code {self.process.wait()})")
        self.address = line.split()[-1]

    def wait_until_ready(self) -> None:
        for _ in range(300):
            if self.process.poll() is not None:
                sys.exit(f"demo: the server ended with exit code {self.process.returncode}")
            try:
                ready = self.get("/readyz").decode()
                return print(f"ready after {time.monotonic() - self.started:.2f} s: {ready}")
            except urllib.error.HTTPError:
                time.sleep(0.1)
        sys.exit("demo: the server was not ready within 30 s")

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.address + path, timeout=30) as answer:
            return answer.read()

    def post(self, path: str, image: Path, accept: str) -> bytes:
        headers = {"Content-Type": MEDIA_TYPES[image.suffix], "Accept": accept}
        request = urllib.request.Request(self.address + path, image.read_bytes(), headers)
        with urllib.request.urlopen(request, timeout=120) as answer:
            timing = answer.headers["Server-Timing"]
            body = answer.read()
        stages = "  ".join(stage.replace(";dur=", " ") for stage in timing.split(", "))
        print(f"  POST {path:<55} {len(body):>9,} bytes   ms: {stages}")
        return body

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(timeout=30)


def convert(program: str) -> None:
    """Converts the embedded model to a scratch file and prints the time and memory."""
    home = os.environ.get("DINOSERVE_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dinoserve"
    source = Path(home) / "sources/dinov2-small-focus/vit_s_focus.onnx"
    with tempfile.TemporaryDirectory() as scratch:
        started = time.monotonic()
        to = Path(scratch) / "model.onnx"
        command = [program, "models", "convert", "dinov2-small-focus", "--from", str(source), "--to", str(to)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - started
    unit = 1 if sys.platform == "darwin" else 1024
    megabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 1e6
    print(f"converted the embedded model in {seconds:.1f} s with {megabytes:.0f} MB of memory")
    if seconds > 30 or megabytes > 400:
        sys.exit("demo: the conversion may take 30 s and 400 MB")


def main() -> None:
    OUTPUT.mkdir(exist_ok=True)
    convert(sys.argv[1])
    # Converts the model into the cache, unless it is there.
    subprocess.run([sys.argv[1], "models", "pull", "dinov2-small-focus"], check=True, stdout=subprocess.DEVNULL)
    server = Server(sys.argv[1])
    try:
        print(f"server on {server.address}")
        server.wait_until_ready()
        model = json.loads(server.get("/v1/models"))["data"][0]
        print(f"model {model['id']}: {model['summary']}\n  note: {model['notice']}")
        for image in IMAGES:
            print(image.name)
            embedding = json.loads(server.post("/v1/embed", image, "application/json"))
            vector = embedding["data"][0]["embedding"]
            print(f"    embedding of {embedding['dim']} values: {', '.join(f'{v:.4f}' for v in vector[:5])}, …")
            renderings = {
                "pca": "/v1/pca",
                "pca-foreground": "/v1/pca?foreground=auto",
                "pca-overlay": "/v1/pca?upscale=bicubic&overlay=0.6",
                "attention": "/v1/attention?colormap=inferno",
                "attention-overlay": "/v1/attention?upscale=bicubic&overlay=0.6",
                "attention-heads": "/v1/attention?head=all&overlay=0.7",
                "similarity": "/v1/similarity?box=0.45,0.35,0.55,0.45&overlay=0.7",
            }
            for name, path in renderings.items():
                file = OUTPUT / f"{image.stem}-{name}.png"
                file.write_bytes(server.post(path, image, "image/png"))
            stats = json.loads(server.post("/v1/attention/stats", image, "application/json"))["data"][0]
            masses = ", ".join(f"{head['foreground_mass']:.0%}" for head in stats["heads"])
            print(f"    attention of each head on the foreground: {masses}; mean overlap {stats['mean_overlap']:.0%}")
        metrics = server.get("/metrics").decode()
        done = next(line for line in metrics.splitlines() if line.startswith("dinoserve_images_total{") and 'outcome="ok"' in line)
        print(f"metrics: {done}")
    except (urllib.error.URLError, OSError) as error:
        server.process.kill()
        sys.exit(f"demo: {error}")
    if server.stop() != 0:
        sys.exit("demo: the server did not stop cleanly")
    count = len(list(OUTPUT.glob("*.png")))
    print(f"{count} renderings are in {OUTPUT}")


if __name__ == "__main__":
    main()
