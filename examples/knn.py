#!/usr/bin/env python3
"""Fills a gallery from a folder per label, and classifies other images by their nearest neighbors.

    knn.py LABELED/ NEW_IMAGE...

The server must store galleries (`--gallery DIR`).
"""

import os
import sys
from pathlib import Path
from urllib.parse import quote

import requests

SERVER = os.environ.get("DINOSERVE_URL", "http://127.0.0.1:8080")
GALLERY = "example"
HEADERS = {"Content-Type": "application/octet-stream"}


def store(path: Path, label: str) -> None:
    item_id = quote(f"{label}/{path.name}", safe="")
    response = requests.put(
        f"{SERVER}/v1/gallery/{item_id}",
        params={"gallery": GALLERY, "label": label},
        data=path.read_bytes(),
        headers=HEADERS,
        timeout=120,
    )
    response.raise_for_status()


def main() -> None:
    labeled, *new = map(Path, sys.argv[1:])
    for folder in sorted(folder for folder in labeled.iterdir() if folder.is_dir()):
        for path in sorted(folder.iterdir()):
            store(path, folder.name)
    for path in new:
        response = requests.post(
            f"{SERVER}/v1/classify",
            params={"gallery": GALLERY, "k": 5},
            data=path.read_bytes(),
            headers=HEADERS,
            timeout=120,
        )
        response.raise_for_status()
        found = response.json()
        best = found["probabilities"][0]["probability"]
        nearest = [f"{item['id']} {item['score']:.3f}" for item in found["neighbors"][:3]]
        print(f"{path.name}: {found['label']} ({best:.0%}); nearest are {', '.join(nearest)}")


if __name__ == "__main__":
    main()
