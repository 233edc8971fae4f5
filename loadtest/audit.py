#!/usr/bin/env python3
"""Measures `dinoserve gallery audit`: its time, and how much of what was planted it finds.

    pip install numpy
    python3 loadtest/audit.py PROGRAM [--items 100000] [--classes 50] [--home DIR --model NAME]

Makes vectors of width 384 in classes that overlap a little, stores them through a server, and audits the gallery.
Planted are copies (1 % of the items, each with a little noise, up to a cosine of 0.976) and wrong labels (5 %). Prints
JSON: seconds, precision and recall of duplicates (as pairs) and of wrong labels. While the audit runs, one client
searches; its median latency is compared with that before the audit.
"""

import argparse
import collections
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np

DIM = 384
INNER = 24
BATCH = 64


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Planted:
    """Vectors with labels, and what is wrong with them."""

    def __init__(self, items: int, classes: int):
        random = np.random.default_rng(7)
        centers = random.normal(size=(classes, INNER))
        self.truth = random.integers(classes, size=items)
        inner = centers[self.truth] + 0.55 * random.normal(size=(items, INNER))
        first, second = random.normal(size=(INNER, 2 * INNER)), random.normal(size=(2 * INNER, DIM))
        vectors = np.tanh(0.4 * inner @ first) @ second / 7 + 0.6 * random.normal(size=(items, DIM))
        self.vectors = unit(vectors.astype(np.float32))
        chosen = random.permutation(items)[: items // 50].reshape(-1, 2)
        noise = random.normal(size=(len(chosen), DIM)).astype(np.float32) / DIM**0.5
        strength = random.uniform(0.02, 0.22, size=(len(chosen), 1)).astype(np.float32)
        self.vectors[chosen[:, 1]] = unit(self.vectors[chosen[:, 0]] + strength * noise)
        self.truth[chosen[:, 1]] = self.truth[chosen[:, 0]]
        self.copies = {(min(a, b), max(a, b)) for a, b in chosen.tolist()}
        self.labels = self.truth.copy()
        self.wrong = set(random.permutation(items)[: items // 20].tolist())
        for item in self.wrong:
            self.labels[item] = (self.truth[item] + random.integers(1, classes)) % classes


class Server:
    """A server of galleries."""

    def __init__(self, program: str, folder: Path, arguments: list[str]):
        command = [program, "serve", "--port", "0", "--gallery", str(folder), "--log", "warn", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().split()[-1]
        while not self.is_ready():
            time.sleep(0.1)

    def is_ready(self) -> bool:
        try:
            return urllib.request.urlopen(self.url + "/readyz", timeout=5).status == 200
        except OSError:
            return False

    def send(self, method: str, path: str, body: object) -> object:
        data = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def fill(server: Server, planted: Planted) -> None:
    for start in range(0, len(planted.vectors), BATCH):
        items = [
            {"id": str(item), "label": f"c{planted.labels[item]:02}", "vector": planted.vectors[item].tolist()}
            for item in range(start, min(start + BATCH, len(planted.vectors)))
        ]
        server.send("POST", "/v1/gallery", {"items": items})


def search_while(server: Server, planted: Planted, stop: threading.Event, times: list[float]) -> None:
    for query in itertools.cycle(planted.vectors[:500]):
        if stop.is_set():
            return
        began = time.perf_counter()
        server.send("POST", "/v1/knn", {"vector": query.tolist(), "k": 10})
        times.append(time.perf_counter() - began)


def measured(server: Server, planted: Planted, work) -> tuple[float, object]:
    """Runs `work` while a client searches. Returns the median time of a search in ms, and the result."""
    stop, times = threading.Event(), []
    client = threading.Thread(target=search_while, args=(server, planted, stop, times))
    client.start()
    result = work()
    stop.set()
    client.join()
    return 1000 * statistics.median(times), result


def rates(found: set, planted: set) -> dict[str, float]:
    right = len(found & planted)
    return {"precision": round(right / max(1, len(found)), 4), "recall": round(right / len(planted), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("program")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--arguments", default="", help="of the server, such as --model and --device")
    options = parser.parse_args()
    planted = Planted(options.items, options.classes)
    with tempfile.TemporaryDirectory() as folder:
        gallery = Path(folder) / "gallery"
        server = Server(options.program, gallery, options.arguments.split())
        try:
            began = time.perf_counter()
            fill(server, planted)
            print(f"filled in {time.perf_counter() - began:.0f} s", file=sys.stderr)
            alone, _ = measured(server, planted, lambda: time.sleep(5))

            def audit() -> tuple[float, dict]:
                command = [options.program, "gallery", "audit", "--gallery", str(gallery), "--json"]
                began = time.perf_counter()
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
                return time.perf_counter() - began, json.loads(done.stdout)

            beside, (seconds, report) = measured(server, planted, audit)
        finally:
            server.stop()
    pairs = set()
    for group in report["duplicates"]:
        pairs |= {tuple(sorted(pair)) for pair in itertools.combinations(map(int, group["ids"]), 2)}
    mislabels = {int(found["id"]) for found in report["mislabels"]}
    suggested = [int(found["suggested"][1:]) == planted.truth[int(found["id"])] for found in report["mislabels"]]
    sizes = collections.Counter(len(cluster["ids"]) for cluster in report["clusters"])
    print(
        json.dumps(
            {
                "items": options.items,
                "seconds": round(seconds, 1),
                "duplicates": rates(pairs, planted.copies),
                "wrong labels": rates(mislabels, planted.wrong),
                "right suggestions": round(sum(suggested) / max(1, len(suggested)), 4),
                "outliers": len(report["outliers"]),
                "clusters": sum(sizes.values()),
                "silhouette": round(report["silhouette"], 3),
                "search alone, ms": round(alone, 2),
                "search during the audit, ms": round(beside, 2),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
