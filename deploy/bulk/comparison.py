"""What the tests of the engines share: servers, a run of `dinoserve embed` without an engine, and how they compare."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

BROKEN = "broken.png"
# A name with what addresses and patterns treat in a special way.
ODD = "ä copy #1 50%.JPG"
# Largest difference of a number of the two embeddings of an image, of length 1.
TOLERANCE = 1e-5


class Failed(Exception):
    """What did not hold."""


def copy_images(source: Path, to: Path) -> None:
    """Copies a folder of images, and adds an image that is broken and one with an odd name."""
    shutil.copytree(source, to)
    some = min(file for file in to.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg"))
    shutil.copy(some, to / ODD)
    (to / BROKEN).write_text("no image")


def local_run(program: Path, images: Path, model: str, folder: Path) -> tuple[dict[str, np.ndarray], float]:
    """Returns the embeddings that `dinoserve embed` writes, and the seconds that it takes."""
    started = time.monotonic()
    output = folder / "local.npy"
    command = [program, "embed", images, "-o", output, "--model", model]
    done = subprocess.run(command, capture_output=True, text=True)
    if not output.exists():
        raise Failed(f"dinoserve embed: {done.stderr.strip()}")
    ids = output.with_suffix(".paths.txt").read_text().splitlines()
    return dict(zip(ids, np.load(output), strict=True)), time.monotonic() - started


def compare(output: Path, expected: dict[str, np.ndarray]) -> str:
    """Compares all rows of Parquet files, by id, with the embeddings of another run. Says how equal they are."""
    table = pq.read_table(output).sort_by("id").to_pylist()
    ids = [row["id"] for row in table]
    if ids != sorted([*expected, BROKEN]):
        twice = len(ids) - len(set(ids))
        strange = sorted(set(ids) ^ {*expected, BROKEN})[:3]
        raise Failed(f"{len(ids)} rows ({twice} of them twice) for {len(expected) + 1} images; not in both: {strange}")
    for row in table:
        if (row["error"] is None) != (row["id"] != BROKEN) or (row["embedding"] is None) != (row["id"] == BROKEN):
            raise Failed(f"{row['id']}: {row['error']}")
    own = np.array([row["embedding"] for row in table if row["id"] != BROKEN], np.float32)
    local = np.stack([expected[row["id"]] for row in table if row["id"] != BROKEN])
    if own.shape != local.shape:
        raise Failed(f"embeddings of shape {own.shape} instead of {local.shape}")
    difference = float(np.abs(own - local).max())
    if not difference <= TOLERANCE:
        raise Failed(f"the embeddings differ by up to {difference}")
    return "equal in every bit" if np.array_equal(own, local) else f"equal within {difference:.1e}"


def start_server(program: Path, model: str, port: int = 0) -> tuple[subprocess.Popen[str], str]:
    """Starts a server on 127.0.0.1, and returns its process and its address."""
    command = [program, "serve", "--host", "127.0.0.1", "--port", str(port), "--model", model, "--log", "warn"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    if not line.startswith("listening on "):
        process.kill()
        raise Failed(f"the server did not start: {process.wait()}")
    return process, line.removeprefix("listening on ").strip()


@contextmanager
def service(program: Path, model: str) -> Iterator[str]:
    """Runs a server, and returns its address."""
    process, address = start_server(program, model)
    with process:
        try:
            yield address
        finally:
            process.terminate()


def title(process: int) -> str:
    """Returns the command line of a process; empty if it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def parents() -> dict[int, int]:
    """Returns the parent of each process."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                # The name of the program may have spaces; it ends with the last parenthesis.
                found[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
    return found


def below(root: int) -> list[int]:
    """Returns all processes that a process started."""
    known = parents()

    def descends(process: int) -> bool:
        while process := known.get(process, 0):
            if process == root:
                return True
        return False

    return [process for process in known if descends(process)]


def servers(program: Path) -> set[int]:
    """Returns the running servers of the program."""
    found = set()
    for process in parents():
        with suppress(OSError):
            if os.path.samefile(f"/proc/{process}/exe", program) and " serve " in title(process):
                found.add(process)
    return found


def run(check: Callable[[Path, Path, str, Path], None], about: str) -> None:
    """Runs the check of a test by the arguments of its command line."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("program", type=Path, help="the program dinoserve")
    parser.add_argument("folder", type=Path, help="a folder of images, some hundreds")
    parser.add_argument("--model", default="dinov2-small-focus")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix=f"{Path(sys.argv[0]).stem}-"))
    try:
        check(arguments.program.resolve(), arguments.folder.resolve(), arguments.model, folder)
    except Failed as failed:
        sys.exit(f"{Path(sys.argv[0]).stem}: {failed}")
    finally:
        shutil.rmtree(folder)
