#!/usr/bin/env python3
"""Runs examples/daft_embed.py, kills the server in the middle, and compares with `dinoserve embed`.

    daft_test.py PROGRAM FOLDER         with the packages of requirements.txt, and the client of `python/`

The server listens on 127.0.0.1. It is killed with SIGKILL when it has answered a third of the images, and started again
at the same address some seconds later. Each image must be in the output once, and each embedding must be that of
`dinoserve embed` on the same folder.
"""

import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from comparison import Failed, compare, copy_images, local_run, run, start_server

ROOT = Path(__file__).resolve().parent.parent.parent
# Seconds until a run has failed.
PATIENCE = 900


def answered(address: str) -> int:
    """Returns the number of embeddings that the server has computed."""
    with urllib.request.urlopen(f"{address}/metrics", timeout=10) as response:
        text = response.read().decode()
    return sum(int(count) for count in re.findall(r'^dinoserve_images_total\{.*outcome="ok".*\} (\d+)$', text, re.M))


def check(program: Path, source: Path, model: str, folder: Path) -> None:
    images, output, log = folder / "images", folder / "output", folder / "daft.log"
    copy_images(source, images)
    expected, seconds = local_run(program, images, model, folder)
    count = len(expected)
    print(f"dinoserve embed: {count} images in {seconds:.1f} s, {count / seconds:.1f} images/s")

    server, address = start_server(program, model)
    example = [sys.executable, str(ROOT / "examples/daft_embed.py"), str(images), str(output), "--server", address]
    path = os.pathsep.join([str(ROOT / "python"), os.environ.get("PYTHONPATH", "")])
    started = time.monotonic()
    with open(log, "w") as file:
        daft = subprocess.Popen(
            example,
            env={**os.environ, "PYTHONPATH": path},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        while (done := answered(address)) < count // 3:
            if daft.poll() is not None or time.monotonic() - started > PATIENCE:
                raise Failed(f"{done} of {count} images were embedded\n{log.read_text()[-3000:]}")
            time.sleep(0.1)
        if done >= count:
            raise Failed("all was embedded before the server was killed; give more images")
        server.kill()
        server.wait()
        print(f"server killed, {done} of {count} images embedded")
        time.sleep(3)
        server, _ = start_server(program, model, int(address.rsplit(":", 1)[1]))
        code = daft.wait(PATIENCE)
        seconds = time.monotonic() - started
        # The broken image is an error.
        if code != 1:
            raise Failed(f"daft_embed.py ended with {code}\n{log.read_text()[-3000:]}")
    finally:
        daft.kill()
        server.terminate()
        server.wait()
    print(f"{count} images in {seconds:.1f} s, {count / seconds:.1f} images/s, with the start of Daft and both servers")
    print(compare(output, expected))


if __name__ == "__main__":
    run(check, __doc__)
