#!/usr/bin/env python3
"""Draws PCA maps of a video's frames in one basis, so that each part keeps its color.

    ffmpeg -i clip.mp4 -vf fps=5 frames/%04d.jpg
    pca_frames.py frames/ maps/
    ffmpeg -framerate 5 -i maps/%04d.png maps.mp4

The server must store galleries (`--gallery DIR`), because it stores the basis there.
"""

import os
import sys
from pathlib import Path

import requests

SERVER = os.environ.get("DINOSERVE_URL", "http://127.0.0.1:8080")
NAME = "frames"


def main() -> None:
    frames, maps = sorted(Path(sys.argv[1]).iterdir()), Path(sys.argv[2])
    maps.mkdir(exist_ok=True)
    # The basis is fitted on a sample of frames from the whole video.
    sample = frames[:: max(1, len(frames) // 16)]
    files = [("image", (frame.name, frame.read_bytes())) for frame in sample]
    requests.put(f"{SERVER}/v1/bases/{NAME}", files=files, timeout=600).raise_for_status()
    for frame in frames:
        response = requests.post(
            f"{SERVER}/v1/pca",
            params={"basis": NAME, "upscale": "bicubic"},
            data=frame.read_bytes(),
            headers={"Content-Type": "application/octet-stream", "Accept": "image/png"},
            timeout=120,
        )
        response.raise_for_status()
        (maps / frame.with_suffix(".png").name).write_bytes(response.content)
    print(f"{len(frames)} maps in {maps}, in a basis of {len(sample)} frames")


if __name__ == "__main__":
    main()
