#!/usr/bin/env python3
"""Embeds all images of a folder: FEATURES.npy gets a row per image, FEATURES.txt their paths.

    embed_folder.py FOLDER FEATURES.npy
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import requests

SERVER = os.environ.get("DINOSERVE_URL", "http://127.0.0.1:8080")
EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}


def embed(path: Path) -> np.ndarray | None:
    """Returns the image's embedding, of length 1; `None` for a file that is not an image."""
    response = requests.post(
        f"{SERVER}/v1/embed",
        data=path.read_bytes(),
        headers={"Content-Type": "application/octet-stream", "Accept": "application/octet-stream"},
        timeout=120,
    )
    if response.status_code == 422:
        print(f"{path}: {response.json()['detail']}", file=sys.stderr)
        return None
    response.raise_for_status()
    return np.frombuffer(response.content, dtype="<f4")


def main() -> None:
    folder, output = Path(sys.argv[1]), Path(sys.argv[2])
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)
    # A few at a time keep all cores busy; many more would be rejected with 503.
    with ThreadPoolExecutor(max_workers=8) as pool:
        vectors = list(pool.map(embed, paths))
    found = [(path, vector) for path, vector in zip(paths, vectors) if vector is not None]
    np.save(output, np.stack([vector for _, vector in found]))
    names = [f"{path.relative_to(folder)}\n" for path, _ in found]
    output.with_suffix(".txt").write_text("".join(names))
    print(f"{len(found)} of {len(paths)} images in {output}")


if __name__ == "__main__":
    main()
