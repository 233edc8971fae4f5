#!/usr/bin/env python3
"""Installs the newest wheel of a folder into a new virtual environment, and uses the program as a user would.

    test.py FOLDER          needs a package index, for ONNX Runtime and the embedded model

The PATH has the environment alone, so no Rust, and the cache folder is empty. The program must find ONNX Runtime and
the model's weights in the environment.
"""

import json
import os
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
IMAGE = ROOT / "tests/golden/dinov2-small-focus/chelsea.png"
MODEL = "dinov2-small-focus"


def fail(reason: str) -> None:
    sys.exit(f"wheel: {reason}")


def post(address: str, path: str, accept: str) -> bytes:
    headers = {"Content-Type": "image/png", "Accept": accept}
    request = urllib.request.Request(address + path, IMAGE.read_bytes(), headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return answer.read()


def wait_until_ready(address: str) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(address + "/readyz", timeout=30):
                return
        except urllib.error.HTTPError:
            time.sleep(0.1)
    fail("the server was not ready within a minute")


def try_server(program: Path, environment: dict[str, str]) -> None:
    command = [program, "serve", "--model", MODEL, "--port", "0", "--log", "warn"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        if not line.startswith("listening on "):
            fail(f"the server did not start (exit code {process.wait()})")
        address = line.split()[-1]
        wait_until_ready(address)
        embedding = json.loads(post(address, "/v1/embed", "application/json"))["data"][0]["embedding"]
        length = sum(value * value for value in embedding)
        if len(embedding) != 384 or abs(length - 1) > 1e-4:
            fail(f"the embedding has {len(embedding)} values and a squared length of {length}")
        png = post(address, "/v1/pca", "image/png")
        if png[:8] != b"\x89PNG\r\n\x1a\n" or struct.unpack(">I", png[16:20])[0] < 300:
            fail("the PCA map is no PNG of at least 300 pixels")
        client = f"from dinoserve import Client; print(Client({address!r}).pca_image({str(IMAGE)!r}).width)"
        python = [program.parent / "python", "-c", client]
        width = subprocess.run(python, env=environment, capture_output=True, text=True, check=True).stdout
        if int(width) < 300:
            fail(f"the client draws a map of {width} pixels")
    finally:
        process.terminate()
        process.wait(timeout=30)
    if process.returncode != 0:
        fail(f"the server did not stop cleanly (exit code {process.returncode})")


def main() -> None:
    wheels = sorted(Path(sys.argv[1]).glob("dinoserve-*.whl"), key=lambda wheel: wheel.stat().st_mtime)
    if not wheels:
        fail(f"{sys.argv[1]} has no wheel")
    wheel = wheels[-1].resolve()
    print(f"wheel: {wheel.name}, {wheel.stat().st_size / 1e6:.1f} MB")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "venv"
        venv.create(folder, with_pip=True)
        bin_folder = folder / "bin"
        started = time.monotonic()
        install = [bin_folder / "pip", "install", "--quiet", "--disable-pip-version-check", f"{wheel}[focus]"]
        subprocess.run(install, check=True)
        print(f"wheel: installed with its dependencies in {time.monotonic() - started:.0f} s")
        program = bin_folder / "dinoserve"
        environment = {"PATH": str(bin_folder), "HOME": scratch, "DINOSERVE_HOME": f"{scratch}/home"}
        started = time.monotonic()
        version = subprocess.run([program, "--version"], env=environment, capture_output=True, text=True, check=True)
        doctor = subprocess.run([program, "doctor", "--model", MODEL], env=environment, capture_output=True, text=True)
        if str(folder) not in doctor.stdout:
            fail(f"`doctor` does not name a library in the environment:\n{doctor.stdout}{doctor.stderr}")
        try_server(program, environment)
        pictures = Path(scratch) / "pictures"
        subprocess.run([program, "demo", "-o", pictures], env=environment, check=True)
        if len(list(pictures.glob("*.png"))) != 28 or not (pictures / "index.html").exists():
            fail("`demo` draws no 28 pictures and a page")
        print(f"wheel: {version.stdout.strip()} embedded an image {time.monotonic() - started:.1f} s after its first start")


if __name__ == "__main__":
    main()
