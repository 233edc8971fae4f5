"""Preprocessing of all peers: an image file to the input of DINOv2, with Pillow and NumPy."""

import io

import numpy as np
from PIL import Image

RESIZE = 256
CROP = 224
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
SCALE = 1 / (255 * STD)
OFFSET = MEAN / STD


def preprocess(file: bytes) -> np.ndarray:
    """Scales the shorter side to 256, crops the center of 224, and normalizes: [3, 224, 224]."""
    image = Image.open(io.BytesIO(file)).convert("RGB")
    width, height = image.size
    short = min(width, height)
    size = (RESIZE * width // short, RESIZE * height // short)
    image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = round((image.width - CROP) / 2), round((image.height - CROP) / 2)
    image = image.crop((left, top, left + CROP, top + CROP))
    pixels = np.asarray(image, np.float32) * SCALE - OFFSET
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def normalize(cls: np.ndarray) -> np.ndarray:
    """Scales a vector to length 1."""
    return cls / np.linalg.norm(cls, axis=-1, keepdims=True)
