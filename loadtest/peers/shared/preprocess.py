"""Preprocessing of all peers: an image file to the input of DINOv2, with Pillow and NumPy."""

import io

import numpy as np
from PIL import Image

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
SCALE = 1 / (255 * STD)
OFFSET = MEAN / STD


def preprocess(file: bytes, size: int) -> np.ndarray:
    """Scales the shorter side to 8/7 of `size`, crops the center, normalizes: [3, size, size]."""
    image = Image.open(io.BytesIO(file)).convert("RGB")
    width, height = image.size
    short = min(width, height)
    scaled = size * 256 // 224
    sides = (scaled * width // short, scaled * height // short)
    image = image.resize(sides, Image.Resampling.BICUBIC)
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    image = image.crop((left, top, left + size, top + size))
    pixels = np.asarray(image, np.float32) * SCALE - OFFSET
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def normalize(cls: np.ndarray) -> np.ndarray:
    """Scales a vector to length 1."""
    return cls / np.linalg.norm(cls, axis=-1, keepdims=True)
