#!/usr/bin/env python3
"""Runs examples/ray_embed.py on a Ray cluster of this machine, kills a raylet, and compares with `dinoserve embed`.

    ray_test.py PROGRAM FOLDER          with the packages of requirements.txt, and the client of `python/`

The cluster has three raylets on 127.0.0.1, one of them for the driver alone. The raylet of an actor is killed with
SIGKILL while the actor embeds. First each actor has a server of its own, then all share one. Each image must be in the
output once, and each embedding must be that of `dinoserve embed` on the same folder.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Without it, drivers look for a cluster of this machine at the address of another interface than 127.0.0.1.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
# A lost raylet is noticed after five seconds instead of half a minute.
os.environ["RAY_health_check_period_ms"] = "1000"
# The workers of Ray import the client, too.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "python"), os.environ.get("PYTHONPATH", "")])

import pyarrow.parquet as pq
from comparison import Failed, below, compare, copy_images, local_run, run, servers, service, title
from ray.cluster_utils import Cluster

ACTOR = "Embedder"
RAYLETS = 3
ACTORS = 2
# Seconds until a run has failed.
PATIENCE = 900


def rows(output: Path) -> int:
    """Returns the number of images that are written so far."""
    count = 0
    for file in output.glob("*.parquet"):
        # One that is being written has no footer yet.
        with suppress(Exception):
            count += pq.read_metadata(file).num_rows
    return count


def run_example(example: list[str], output: Path, log: Path, images: int) -> float:
    """Runs the example on a new cluster, kills the raylet of an actor, and returns the seconds."""
    cluster = Cluster()
    try:
        # The first runs the driver alone. One of the others must be enough for all actors and a task.
        nodes = [
            cluster.add_node(num_cpus=cpus, node_ip_address="127.0.0.1", include_dashboard=False)
            for cpus in [0] + (RAYLETS - 1) * [ACTORS + 1]
        ]
        raylets = [node.all_processes["raylet"][0].process.pid for node in nodes[1:]]
        started = time.monotonic()
        environment = {**os.environ, "RAY_ADDRESS": cluster.address}
        with open(log, "w") as file:
            driver = subprocess.Popen(example, env=environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            killed, written = None, 0
            while driver.poll() is None:
                if time.monotonic() - started > PATIENCE:
                    raise Failed(f"not within {PATIENCE} s\n{log.read_text()[-3000:]}")
                written = rows(output)
                busy = [raylet for raylet in raylets if any(ACTOR in title(worker) for worker in below(raylet))]
                if killed is None and busy and written >= images // 5:
                    killed = busy[0]
                    os.kill(killed, signal.SIGKILL)
                    print(f"  raylet {killed} with an actor killed, {written} of {images} images written")
                time.sleep(0.1)
            seconds = time.monotonic() - started
        finally:
            driver.kill()
            driver.wait()
        if killed is None:
            raise Failed("all ended before a raylet was killed; give more images")
        # The broken image is an error.
        if driver.returncode != 1:
            raise Failed(f"ray_embed.py ended with {driver.returncode}\n{log.read_text()[-3000:]}")
        alive = sum(node["Alive"] for node in cluster.global_state.node_table())
        if alive != RAYLETS - 1:
            raise Failed(f"{alive} of {RAYLETS} raylets are alive")
        return seconds
    finally:
        cluster.shutdown()


def check(program: Path, source: Path, model: str, folder: Path) -> None:
    images = folder / "images"
    copy_images(source, images)
    expected, seconds = local_run(program, images, model, folder)
    count = len(expected)
    print(f"dinoserve embed: {count} images in {seconds:.1f} s, {count / seconds:.1f} images/s")

    before = servers(program)
    example = [sys.executable, str(ROOT / "examples/ray_embed.py"), str(images)]
    with service(program, model) as address:
        ways = {
            "a server for each actor": ["--program", str(program), "--model", model, "--cpus", "1"],
            "one service": ["--server", address],
        }
        for index, (name, options) in enumerate(ways.items()):
            print(f"{name}:")
            output, log = folder / f"output-{index}", folder / f"{index}.log"
            blocks = ["--actors", str(ACTORS), "--blocks", str(max(count // 10, 1))]
            seconds = run_example([*example, str(output), *options, *blocks], output, log, count + 1)
            print(f"  {count} images in {seconds:.1f} s, {count / seconds:.1f} images/s, with the start of the actors")
            print(f"  {compare(output, expected)}")
    end = time.monotonic() + 60
    while left := servers(program) - before:
        if time.monotonic() > end:
            raise Failed(f"servers are left: {left}")
        time.sleep(0.2)
    print("no server is left")


if __name__ == "__main__":
    run(check, __doc__)
