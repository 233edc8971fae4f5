#!/usr/bin/env python3
"""Embeds a folder or a list of images with Daft, and writes Parquet files with `id`, `embedding` and `error`.

    daft_embed.py SOURCE OUTPUT [--server http://127.0.0.1:8080] [--model NAME] [--concurrent 16]

SOURCE is a folder, a prefix such as s3://bucket/images/, or a file that ends in .txt with a path a line. OUTPUT is a
new folder. The id of an image is its path below SOURCE, or the line of the list. An image that cannot be read has an
`error` instead of an `embedding`, and the exit code is then 1.

Needs Daft (`pip install daft`), the wheel of dinoserve, and a running service. DINOSERVE_URL may have its address.
"""

import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Daft reports its use unless it is turned off before the import.
os.environ.setdefault("DO_NOT_TRACK", "true")

import daft
import httpx
import numpy as np
from daft import DataType, col
from daft.functions import download, regexp, substr
from dinoserve import Client, Problem

SERVER = os.environ.get("DINOSERVE_URL", "http://127.0.0.1:8080")
EXTENSIONS = "jpg jpeg png webp gif bmp tif tiff avif heic pnm ppm pgm qoi"
# Seconds for which the service may be unreachable, as while it restarts.
PATIENCE = 120


def retried(call):
    """Calls a service that may be restarting."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return call()
        except httpx.TransportError:
            if time.monotonic() > end:
                raise
            time.sleep(1)


@daft.cls(max_concurrency=1, use_process=False)
class Embedder:
    """Keeps its connections from batch to batch."""

    def __init__(self, server: str, model: str | None, concurrent: int) -> None:
        self.client = Client(server)
        self.options = {"model": model} if model else {}
        self.pool = ThreadPoolExecutor(concurrent)

    # No fixed-size list: Arrow before 26 cannot read one from Parquet that is null in some rows.
    @daft.method.batch(
        return_dtype=DataType.struct({"embedding": DataType.list(DataType.float32()), "error": DataType.string()}),
        unnest=True,
        batch_size=64,
    )
    def embed(self, images: daft.Series) -> list[dict]:
        return list(self.pool.map(self.embed_one, images.to_pylist()))

    def embed_one(self, image: bytes | None) -> dict[str, np.ndarray | str | None]:
        """Returns the embedding of an image, or what is wrong with it."""
        if image is None:
            return {"embedding": None, "error": "the file cannot be read"}
        try:
            vector = retried(lambda: self.client.embed(image, **self.options))
        except Problem as problem:
            # The client itself waits for a busy service. Others of these are about the service, not the image.
            if problem.status not in (400, 413, 415, 422):
                raise
            return {"embedding": None, "error": problem.detail}
        return {"embedding": vector, "error": None}


def read(source: str) -> daft.DataFrame:
    """Returns the images as `id` and `path`."""
    if source.endswith(".txt"):
        lines = [line.strip() for line in Path(source).read_text().splitlines()]
        return daft.from_pydict({"path": [line for line in lines if line]}).with_column("id", col("path"))
    prefix = (source if "://" in source else f"file://{os.path.abspath(source)}").rstrip("/") + "/"
    files = daft.from_glob_path(f"{prefix}**").where(regexp(col("path"), rf"(?i)\.({EXTENSIONS.replace(' ', '|')})$"))
    return files.with_column("id", substr(col("path"), len(prefix)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("output")
    parser.add_argument("--server", default=SERVER, help="address of the service")
    parser.add_argument("--model", help="default: that of the service")
    parser.add_argument("--concurrent", type=int, default=16, help="requests at the same time")
    arguments = parser.parse_args()
    if "://" not in arguments.output and os.path.exists(arguments.output):
        sys.exit(f"{arguments.output} exists; a second run would append to it")

    embedder = Embedder(arguments.server, arguments.model, arguments.concurrent)
    images = read(arguments.source).with_column("bytes", download(col("path"), on_error="null"))
    images.select(col("id"), embedder.embed(col("bytes"))).write_parquet(arguments.output)

    written = daft.read_parquet(arguments.output.rstrip("/") + "/*.parquet")
    count = written.count_rows()
    failed = written.where(col("error").not_null()).select("id", "error").to_pylist()
    for row in failed:
        print(f"{row['id']}: {row['error']}", file=sys.stderr)
    print(f"{count - len(failed)} of {count} images in {arguments.output}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
