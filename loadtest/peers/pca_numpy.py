#!/usr/bin/env python3
"""Times the usual PCA of patch tokens with numpy.linalg.svd, and prints the median as JSON.

    pca_numpy.py TOKENS.npy [--runs 20]
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np


def pca_map(tokens: np.ndarray) -> np.ndarray:
    """Returns the first three principal components of `tokens` [N, 384] in 0..255: [N, 3] uint8."""
    centered = tokens - tokens.mean(axis=0)
    _, _, vectors = np.linalg.svd(centered, full_matrices=False)
    components = centered @ vectors[:3].T
    low, high = components.min(axis=0), components.max(axis=0)
    return ((components - low) / (high - low) * 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tokens", type=Path)
    parser.add_argument("--runs", type=int, default=20)
    arguments = parser.parse_args()
    tokens = np.load(arguments.tokens)
    if tokens.ndim == 3:
        # The server's response has an axis for the images.
        tokens = tokens[0]
    if len(tokens) < 2 or not np.isfinite(tokens).all() or not tokens.std(axis=0).all():
        parser.error(f"{arguments.tokens} needs several tokens with finite, varying features")
    pca_map(tokens)
    times = []
    for _ in range(arguments.runs):
        start = time.perf_counter()
        pca_map(tokens)
        times.append(time.perf_counter() - start)
    print(json.dumps({"ms": round(statistics.median(times) * 1000, 3)}))


if __name__ == "__main__":
    main()
