#!/usr/bin/env python3
"""Measures the map of a gallery: its time and quality, against umap-learn on the same vectors.

    pip install numpy umap-learn
    python3 loadtest/map.py PROGRAM [--items 100000] [--classes 50] [--arguments='--model NAME']

Takes the vectors of `audit.py`, and lets a server map them while one client searches. Trustworthiness says how many of
the 15 nearest on a map are not among the 15 nearest in truth, weighted by how far they are (Venna and Kaski, 2001); it
is computed for 2,000 items. Prints JSON. umap-learn is left out with `--items` above what its memory allows, or where
it is not installed.
"""

import argparse
import json
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np

from audit import Planted, Server, fill, measured

NEAREST = 15


def trustworthiness(vectors: np.ndarray, points: np.ndarray, rows: np.ndarray) -> float:
    """Of the places of `rows`, 1 for a map whose neighbors are all true."""
    count, penalty = len(vectors), 0
    for row in rows:
        scores = vectors @ vectors[row]
        scores[row] = np.inf
        rank = np.empty(count, dtype=np.int64)
        rank[np.argsort(-scores, kind="stable")] = np.arange(count)
        squares = ((points - points[row]) ** 2).sum(axis=1)
        squares[row] = np.inf
        near = np.argpartition(squares, NEAREST)[:NEAREST]
        penalty += np.maximum(rank[near] - NEAREST, 0).sum()
    return 1 - 2 * penalty / (len(rows) * NEAREST * (2 * count - 3 * NEAREST - 1))


def get(server: Server, path: str) -> dict:
    with urllib.request.urlopen(server.url + path, timeout=60) as answer:
        return json.load(answer)


def map_by(server: Server) -> tuple[float, np.ndarray]:
    """Returns the seconds, and the place of each item."""
    path = "/v1/galleries/default/map"
    began = time.perf_counter()
    server.send("POST", path + "?again=true", {})
    while (found := get(server, path))["state"] == "running":
        time.sleep(0.2)
    seconds = time.perf_counter() - began
    if found["state"] != "ready":
        sys.exit(f"the map failed: {found}")
    points = np.empty((len(found["map"]["ids"]), 2))
    for item, point in zip(found["map"]["ids"], found["map"]["points"], strict=True):
        points[int(item)] = point
    return seconds, points


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("program")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--arguments", default="", help="of the server, such as --model and --device")
    options = parser.parse_args()
    planted = Planted(options.items, options.classes)
    rows = np.random.default_rng(0).choice(options.items, min(options.items, 2000), replace=False)
    with tempfile.TemporaryDirectory() as folder:
        server = Server(options.program, Path(folder) / "gallery", options.arguments.split())
        try:
            fill(server, planted)
            alone, _ = measured(server, planted, lambda: time.sleep(5))
            busy, (seconds, points) = measured(server, planted, lambda: map_by(server))
            quiet, _ = map_by(server)
        finally:
            server.stop()
    result = {
        "items": options.items,
        "seconds": round(quiet, 1),
        "seconds with searches": round(seconds, 1),
        "trustworthiness": round(trustworthiness(planted.vectors, points, rows), 4),
        "search alone, ms": round(alone, 2),
        "search meanwhile, ms": round(busy, 2),
    }
    try:
        import umap
    except ImportError:
        print("umap-learn is not installed, and is left out", file=sys.stderr)
    else:
        umap.UMAP(metric="cosine").fit(planted.vectors[:1000])  # compiles
        began = time.perf_counter()
        peer = umap.UMAP(n_neighbors=NEAREST, metric="cosine").fit_transform(planted.vectors)
        result["umap-learn: seconds"] = round(time.perf_counter() - began, 1)
        result["umap-learn: trustworthiness"] = round(trustworthiness(planted.vectors, peer, rows), 4)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
