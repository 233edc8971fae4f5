"""Images in all forms that programs have them in, as files for a request."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

Image = str | os.PathLike[str] | bytes | bytearray | memoryview | PIL.Image.Image | npt.NDArray[np.uint8]
"""An image: the path of a file, the bytes of one, a Pillow image, or an array of bytes `[height, width, 3]`, also
`[height, width]` in gray or `[height, width, 4]` with alpha. A Pillow image keeps its EXIF orientation."""
Images = Image | Iterable[Image]
"""An image, or several."""

MAX_IMAGES = 64
"""Images of a request, as the server's default of `--max-images`."""
MAX_BYTES = 24 << 20
"""Bytes of a request, below the server's default of `--max-body-bytes`."""

# Modes that PNG does not have, and those that take their place.
_MODES = {"CMYK": "RGB", "YCbCr": "RGB", "HSV": "RGB", "LAB": "RGB", "RGBX": "RGB", "PA": "RGBA", "RGBa": "RGBA"}


def is_one(images: Any) -> bool:
    """Returns whether this is one image, or something that is none."""
    if isinstance(images, str | os.PathLike | bytes | bytearray | memoryview | PIL.Image.Image):
        return True
    if isinstance(images, np.ndarray):
        return images.ndim != 4
    return not isinstance(images, Iterable)


def several(images: Images) -> list[bytes]:
    """Returns one image or several as files."""
    files = [encoded(images)] if is_one(images) else [encoded(image) for image in images]  # type: ignore[arg-type, union-attr]
    if not files:
        raise ValueError("there are no images")
    return files


def encoded(image: Image) -> bytes:
    """Returns an image as a file. Pixels become PNG, without loss."""
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        with open(image, "rb") as file:
            return file.read()
    if isinstance(image, np.ndarray):
        image = PIL.Image.fromarray(_checked(image))
    if not isinstance(image, PIL.Image.Image):
        kind = type(image).__name__
        raise TypeError(
            f"{kind} is not an image; give a path, the bytes of a file, a Pillow image or an array of bytes"
        )
    exif = image.getexif()
    if image.mode in _MODES:
        image = image.convert(_MODES[image.mode])
    if image.mode == "F":
        raise TypeError("an image of floats; convert it to bytes, as by `image.convert('L')`")
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1, **({"exif": exif} if exif else {}))
    return buffer.getvalue()


def _checked(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    shape = "×".join(map(str, array.shape))
    if np.issubdtype(array.dtype, np.floating):
        advice = (
            "`vector=` takes vectors" if array.ndim == 1 else "for values of 0 to 1: (a * 255).round().astype(np.uint8)"
        )
        raise TypeError(f"an array of {array.dtype} is not an image; {advice}")
    if array.dtype == np.uint16 and array.ndim == 2:
        return array
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise TypeError(f"an array {shape} of {array.dtype} is not an image; it must be [height, width, 3] of uint8")
    return np.ascontiguousarray(array)


def requests_of(files: list[bytes]) -> Iterator[slice]:
    """Splits files into as many requests as they need."""
    sizes = [len(file) for file in files]
    start, total = 0, 0
    for index, size in enumerate(sizes):
        if index > start and (index - start == MAX_IMAGES or total + size > MAX_BYTES):
            yield slice(start, index)
            start, total = index, 0
        total += size
    if start < len(sizes):
        yield slice(start, len(sizes))
