#!/usr/bin/env python3
"""Publishes the images of a folder to a stream of NATS JetStream, for `dinoserve gallery ingest`.

    publish.py FOLDER STREAM [--servers nats://127.0.0.1:4222] [--replicas 1]

The stream is made if it does not exist, with the subject STREAM. The id of an image is its path below FOLDER, its label
the first of several parts of that path. An image that is larger than a message may be is reported and left out.

Needs `pip install nats-py`.
"""

import argparse
import asyncio
import sys
from pathlib import Path

import nats
from nats.js.errors import NotFoundError

EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}


async def publish(folder: Path, stream: str, servers: list[str], replicas: int) -> int:
    client = await nats.connect(servers)
    jetstream = client.jetstream()
    try:
        await jetstream.stream_info(stream)
    except NotFoundError:
        await jetstream.add_stream(name=stream, subjects=[stream], num_replicas=replicas)
    sent = failed = 0
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in EXTENSIONS:
            continue
        image = path.read_bytes()
        if len(image) > client.max_payload:
            print(f"{path}: {len(image)} bytes are more than the limit of {client.max_payload}", file=sys.stderr)
            failed += 1
            continue
        name = path.relative_to(folder)
        headers = {"Dinoserve-Id": name.as_posix()}
        if len(name.parts) > 1:
            headers["Dinoserve-Label"] = name.parts[0]
        # Returns when the stream has stored the message.
        await jetstream.publish(stream, image, headers=headers)
        sent += 1
    await client.close()
    print(f"{sent} images published")
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("stream")
    parser.add_argument("--servers", default="nats://127.0.0.1:4222", help="addresses with commas between them")
    parser.add_argument("--replicas", type=int, default=1, help="nodes of the cluster that have a new stream")
    options = parser.parse_args()
    work = publish(options.folder, options.stream, options.servers.split(","), options.replicas)
    sys.exit(asyncio.run(work))
