"""What all peers do before the model: an encoded photograph to the pixels of DINOv2, with Pillow and NumPy."""

import io

import numpy as np
from PIL import Image

RESIZE = 256
CROP = 224
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
SCALE = 1 / (255 * STD)
OFFSET = MEAN / STD


def preprocess(photo: bytes) -> np.ndarray:
    """Shorter side to 256 (bicubic, antialiased), center crop of 224, ImageNet's mean and deviation: [3, 224, 224]."""
    image = Image.open(io.BytesIO(photo)).convert("RGB")
    width, height = image.size
    short = min(width, height)
    image = image.resize((RESIZE * width // short, RESIZE * height // short), Image.Resampling.BICUBIC)
    left, top = round((image.width - CROP) / 2), round((image.height - CROP) / 2)
    image = image.crop((left, top, left + CROP, top + CROP))
    pixels = np.asarray(image, np.float32) * SCALE - OFFSET
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def normalize(cls: np.ndarray) -> np.ndarray:
    """To length 1."""
    return cls / np.linalg.norm(cls, axis=-1, keepdims=True)
