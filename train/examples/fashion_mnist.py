#!/usr/bin/env python3
"""Unpacks Fashion-MNIST, photographs of clothes, as folders of PNG files for the worked example of README.md.

    apt-get download dataset-fashion-mnist && dpkg-deb -x dataset-fashion-mnist_*.deb unpacked
    train/examples/fashion_mnist.py unpacked/usr/share/datasets/fashion-mnist OUT

OUT/train gets the first 10,000 pictures of the training set, OUT/val the first 2,000 of the test set; the name of a
subfolder is the class of its pictures. The originals are all centred and of one size, which no folder of photographs is,
and which makes comparing pixels work better than it ever does; so each is put somewhere on a black canvas of half again
its side, by chance (with a fixed seed). Needs nothing but Python.
"""

import gzip
import pathlib
import random
import struct
import sys
import zlib

CLASSES = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot"]


def png(pixels, width, height):
    """A grey PNG file."""
    rows = b"".join(b"\0" + pixels[y * width : (y + 1) * width] for y in range(height))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


CANVAS = 42


def placed(pixels, width, height, chance):
    """The picture somewhere on the canvas."""
    left, top = chance.randint(0, CANVAS - width), chance.randint(0, CANVAS - height)
    canvas = bytearray(CANVAS * CANVAS)
    for y in range(height):
        start = (top + y) * CANVAS + left
        canvas[start : start + width] = pixels[y * width : (y + 1) * width]
    return bytes(canvas)


def unpack(source, name, count, to):
    chance = random.Random(name)
    images = gzip.open(source / f"{name}-images-idx3-ubyte.gz").read()
    labels = gzip.open(source / f"{name}-labels-idx1-ubyte.gz").read()[8:]
    _, _, height, width = struct.unpack(">IIII", images[:16])
    for label in CLASSES:
        (to / label).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        start = 16 + index * width * height
        picture = png(placed(images[start : start + width * height], width, height, chance), CANVAS, CANVAS)
        (to / CLASSES[labels[index]] / f"{index:05}.png").write_bytes(picture)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, to = map(pathlib.Path, sys.argv[1:])
    unpack(source, "train", 10000, to / "train")
    unpack(source, "t10k", 2000, to / "val")
    print(f"{to}/train: 10,000 pictures, {to}/val: 2,000")
