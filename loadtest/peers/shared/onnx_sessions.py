"""ONNX Runtime's sessions of the ordinary exports of Dinov2Model, one for each size."""

import threading
from pathlib import Path

import onnxruntime as ort
from app import SIZES
from preprocess import normalize, preprocess


class Embedder:
    """The sessions. Images are decoded and resized in parallel, and run one at a time."""

    def __init__(self, models: Path, options: ort.SessionOptions, providers: list) -> None:
        self.sessions = {
            size: ort.InferenceSession(models / f"model-{size}.onnx", options, providers)
            for size in SIZES
        }
        for session in self.sessions.values():
            running = session.get_providers()[0]
            wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
            if running != wanted:
                raise SystemExit(f"{wanted} does not run here, but {running} does")
        self.turn = threading.Lock()

    def embed(self, file: bytes, size: int) -> list[float]:
        pixels = preprocess(file, size)[None]
        with self.turn:
            (cls,) = self.sessions[size].run(["cls"], {"pixel_values": pixels})
        return normalize(cls[0]).tolist()
