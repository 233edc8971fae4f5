#!/usr/bin/env python3
"""Embeds a folder or a list of images with Ray Data, and writes Parquet files with `id`, `embedding` and `error`.

    ray_embed.py SOURCE OUTPUT [--actors 4] [--cpus 2] [--model NAME]     a server for each actor
    ray_embed.py SOURCE OUTPUT --server http://10.0.0.5:8080              one service for all

SOURCE is a folder, a prefix such as s3://bucket/images/, or a file that ends in .txt with a path a line. OUTPUT is a
new folder. The id of an image is its path below SOURCE, or the line of the list. An image that cannot be read has an
`error` instead of an `embedding`, and the exit code is then 1.

Needs Ray (`pip install 'ray[data]'`) and the wheel of dinoserve on all nodes. RAY_ADDRESS names the cluster; without
it, Ray starts on this machine.
"""

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import ray
from dinoserve import Client, Problem

EXTENSIONS = ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "heic", "pnm", "ppm", "pgm", "qoi"]
# Requests of an actor at the same time: more than the workers of a server, so that none of them waits.
CONCURRENT = 8
# Seconds for which a service may be unreachable, as while it restarts.
PATIENCE = 120


class LocalServer:
    """A server on a free port of 127.0.0.1, for the process that started it."""

    def __init__(self, program: str, model: str, cpus: int) -> None:
        # The pipe closes when this process ends, even if it is killed. A shell reads from it, and then ends the server.
        script = 'exec 3<&0; (exec >&-; read -r _ <&3; kill $$) & exec "$@" 3<&- </dev/null'
        serve = [program, "serve", "--host", "127.0.0.1", "--port", "0", "--model", model, "--log", "warn"]
        self.process = subprocess.Popen(
            ["sh", "-c", script, "sh", *serve, "--workers", str(cpus), "--intra-threads", "1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            raise RuntimeError(f"{program} did not start; the log of the actor says why")
        self.url = line.removeprefix("listening on ").strip()


class Embedder:
    """An actor: it keeps its connections, and its server if it has one, from batch to batch."""

    def __init__(self, prefix: str, server: str | None, model: str | None, program: str, cpus: int) -> None:
        self.prefix = prefix
        self.local = None if server else LocalServer(program, model, cpus)
        self.client = Client(server or self.local.url)
        self.options = {"model": model} if model else {}
        self.pool = ThreadPoolExecutor(CONCURRENT)

    def __call__(self, batch: pa.Table) -> pa.Table:
        results = list(self.pool.map(self.embed, batch["bytes"].to_pylist()))
        # No fixed-size list: Arrow before 26 cannot read one from Parquet that is null in some rows.
        vectors = pa.array([vector for vector, _ in results], pa.list_(pa.float32()))
        errors = pa.array([error for _, error in results], pa.string())
        ids = pa.array([path.removeprefix(self.prefix) for path in batch["path"].to_pylist()], pa.string())
        return pa.table({"id": ids, "embedding": vectors, "error": errors})

    def embed(self, image: bytes) -> tuple[np.ndarray | None, str | None]:
        """Returns the embedding of an image, or what is wrong with it."""
        try:
            return self.retried(lambda: self.client.embed(image, **self.options)), None
        except Problem as problem:
            # The client itself waits for a busy server. Others of these are about the service, not the image.
            if problem.status not in (400, 413, 415, 422):
                raise
            return None, problem.detail

    def retried(self, call):
        """Calls a server that may be restarting."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return call()
            except httpx.TransportError:
                if self.local or time.monotonic() > end:
                    raise
                time.sleep(1)


def read(source: str, blocks: int | None) -> tuple[ray.data.Dataset, str]:
    """Reads images as `path` and `bytes`. Returns also what the paths have before the ids."""
    options = {"include_paths": True, "override_num_blocks": blocks}
    if source.endswith(".txt"):
        with open(source) as lines:
            paths = [line.strip() for line in lines if line.strip()]
        return ray.data.read_binary_files(paths, **options), ""
    if "://" not in source:
        source = os.path.abspath(source)
    # The paths of a store have no scheme.
    prefix = source.split("://")[-1].rstrip("/") + "/"
    return ray.data.read_binary_files(source, file_extensions=EXTENSIONS, **options), prefix


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("output")
    parser.add_argument("--server", help="address of a running service")
    parser.add_argument("--model", help="default: that of the service, or dinov2-small-focus")
    parser.add_argument("--program", default="dinoserve", help="the program, without a service")
    parser.add_argument("--actors", type=int, default=2, help="at most so many actors")
    parser.add_argument("--cpus", type=int, default=2, help="cores for the server of an actor")
    parser.add_argument("--blocks", type=int, help="number of parts, of which a lost one is repeated; default: by size")
    arguments = parser.parse_args()
    ray.init(log_to_driver=True)

    images, prefix = read(arguments.source, arguments.blocks)
    settings = {
        "prefix": prefix,
        "server": arguments.server,
        "model": arguments.model or (None if arguments.server else "dinov2-small-focus"),
        "program": arguments.program,
        "cpus": arguments.cpus,
    }
    embedded = images.map_batches(
        Embedder,
        fn_constructor_kwargs=settings,
        batch_size=64,
        batch_format="pyarrow",
        # One is enough to go on with when nodes are lost.
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=arguments.actors),
        # An actor without a server of its own mostly waits.
        num_cpus=0.25 if arguments.server else arguments.cpus,
    )
    embedded.write_parquet(arguments.output, mode="error")

    written = pyarrow.dataset.dataset(arguments.output, format="parquet")
    count = written.count_rows()
    failed = written.to_table(columns=["id", "error"], filter=pc.field("error").is_valid()).to_pylist()
    for row in failed:
        print(f"{row['id']}: {row['error']}", file=sys.stderr)
    print(f"{count - len(failed)} of {count} images in {arguments.output}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
