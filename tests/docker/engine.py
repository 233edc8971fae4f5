"""What the checks share: running programs, asking a server, saying what failed or cannot be tried."""

import json
import os
import re
import shlex
import socket
import struct
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent
GOLDEN = ROOT / "tests/golden/dinov2-small-focus"
PHOTOGRAPH = (GOLDEN / "chelsea.png").read_bytes()
PNG = {"Content-Type": "image/png"}

# The images of this test. The stages are named, so that their layers stay when older ones are cleared.
IMAGE, SMALL, OPENVINO = "dinoserve-test", "dinoserve-test:no-model", "dinoserve-test:openvino"
STAGES = {IMAGE: "dinoserve-test:files", SMALL: "dinoserve-test:files-no-model", OPENVINO: "dinoserve-test:files-openvino"}
LABEL = "dinoserve.test=true"
# A process may run this test beside another.
NAME = f"dinoserve-test-{os.getpid()}"
GALLERY = "/var/lib/dinoserve/gallery"
LARGEST_WITHOUT_MODEL = 160e6
USER = 65532


def skip(what: str) -> None:
    """Says that something cannot be tried here, to whoever reads the output and to `make test`."""
    print(f"SKIPPED docker: {what}", flush=True)
    if file := os.environ.get("DINOSERVE_SKIPPED"):
        with open(file, "a") as lines:
            lines.write(f"  docker: {what}\n")


def fail(what: str) -> None:
    raise SystemExit(f"docker: FAILED: {what}")


def check(condition: bool, what: str) -> None:
    if not condition:
        fail(what)


def run(*command: str, **options) -> str:
    """Runs a program that must succeed, and gives what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode != 0:
        fail(f"{shlex.join(command)}: exit code {done.returncode}\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout.strip()


def docker(*arguments: str) -> str:
    return run("docker", *arguments)


def works(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def wait(what: str, seconds: float, done) -> None:
    """Asks twice a second until `done` gives something true."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            fail(f"{what} did not come within {seconds:.0f} s")
        time.sleep(0.5)


def say(what: str, since: float | None = None) -> None:
    print(f"docker: {what}" + (f" ({time.monotonic() - since:.1f} s)" if since is not None else ""), flush=True)


def default_of(argument: str) -> str:
    return re.search(rf"^ARG {argument}=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[1]


def ask(address: str, path: str, body: bytes | None = None, method: str | None = None, **headers: str) -> bytes:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(address + path, body, {**(PNG if body else {}), **headers}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        fail(f"{method or ''} {path}: {error.code} {error.read().decode(errors='replace')}")


def picture_size(png: bytes) -> tuple[int, int]:
    check(png[:8] == b"\x89PNG\r\n\x1a\n", "the map is no PNG")
    return struct.unpack(">II", png[16:24])


def golden_embedding() -> list[float]:
    """The CLS token of the photograph at 224, by the reference."""
    data = (GOLDEN / "chelsea_crop224.safetensors").read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    begin, end = json.loads(data[8:start])["cls"]["data_offsets"]
    return list(struct.unpack(f"<{(end - begin) // 4}f", data[start + begin : start + end]))


def metric(text: str, name: str) -> float:
    """The sum of a metric's series."""
    values = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
    check(bool(values), f"there is no metric {name}")
    return sum(map(float, values))


def free_port(wanted: int = 0) -> int:
    """The port that is wanted if it is free, else any."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", wanted))
        except OSError:
            return free_port()
        return listener.getsockname()[1]
