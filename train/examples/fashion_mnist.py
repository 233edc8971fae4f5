#!/usr/bin/env python3
"""Unpacks Fashion-MNIST, images of clothes, as folders of PNG files for the example of README.md.

    apt-get download dataset-fashion-mnist && dpkg-deb -x dataset-fashion-mnist_*.deb unpacked
    pip install pillow
    train/examples/fashion_mnist.py unpacked/usr/share/datasets/fashion-mnist OUT

OUT/train gets the first 10,000 images of the training set, OUT/val the first 2,000 of the test
set. The name of a subfolder is the class of its images. The originals are all centered, have the
same size, and face the same way, unlike real images, so comparing their pixels works
unrealistically well. Each image is therefore placed on a black canvas of twice its side with a
random position, size and orientation (with a fixed seed).
"""

import gzip
import pathlib
import random
import struct
import sys

from PIL import Image, ImageOps

CLASSES = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot"]
# Sides in pixels.
CANVAS = 56
CLOTHES = (24, 48)


def placed(image, rng):
    """Returns the image at a random position on the canvas."""
    side = rng.randint(*CLOTHES)
    image = image.resize((side, side), Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        image = ImageOps.mirror(image)
    canvas = Image.new("L", (CANVAS, CANVAS))
    canvas.paste(image, (rng.randint(0, CANVAS - side), rng.randint(0, CANVAS - side)))
    return canvas


def unpack(source, name, count, to):
    rng = random.Random(name)
    images = gzip.open(source / f"{name}-images-idx3-ubyte.gz").read()
    labels = gzip.open(source / f"{name}-labels-idx1-ubyte.gz").read()[8:]
    _, _, height, width = struct.unpack(">IIII", images[:16])
    for label in CLASSES:
        (to / label).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        start = 16 + index * width * height
        image = Image.frombytes("L", (width, height), images[start : start + width * height])
        placed(image, rng).save(to / CLASSES[labels[index]] / f"{index:05}.png")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, to = map(pathlib.Path, sys.argv[1:])
    unpack(source, "train", 10000, to / "train")
    unpack(source, "t10k", 2000, to / "val")
    print(f"{to}/train: 10,000 images, {to}/val: 2,000")
