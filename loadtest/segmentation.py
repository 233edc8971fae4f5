"""Makes pictures with masks of their classes, to train and test segmenters on.

    pip install numpy==2.4.6 scipy==1.17.1 pillow==13.0.0 scikit-image==0.26.0 scikit-learn==1.9.1
    python segmentation.py --out train --count 5 --classes 3
    python segmentation.py --out test --count 20 --classes 3 --held-out

Writes OUT/images/NNN.jpg and OUT/masks/NNN.png, 448x448 by default. The pixels of a mask are classes: 0 the background,
1 an astronaut, 2 a cup on its saucer, 3 the head of a cat. 255 is a border of 2 pixels between classes.
The objects are cut out of photographs, then scaled, turned, mirrored, colored, and pasted with soft edges into other
photographs. With --held-out, the photographs around the objects differ from those without it. With --others,
things of no class are pasted, too: a flower, and the objects of classes that are left out. They make it much
harder: a segmenter that never saw a thing often takes it for an object.
"""

import argparse
from pathlib import Path

import numpy as np
import skimage
import sklearn
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage

SIZE = 448
IGNORED = 255
GOLDEN = Path(__file__).resolve().parent.parent / "tests/golden"
PHOTOS = GOLDEN / "dinov2-small-focus"
SKIMAGE = Path(skimage.__file__).parent / "data"
SKLEARN = Path(sklearn.__file__).parent / "datasets/images"

BACKGROUNDS = {
    False: [SKLEARN / "china.jpg", SKIMAGE / "motorcycle_left.png", SKIMAGE / "brick.png", SKIMAGE / "gravel.png"],
    True: [SKLEARN / "flower.jpg", PHOTOS / "rocket.jpg", SKIMAGE / "grass.png", SKIMAGE / "hubble_deep_field.jpg"],
}
# Outline of the cat's head in chelsea.png, of 451x300 pixels.
CAT = [
    (42, 0), (36, 30), (32, 55), (34, 100), (32, 125), (38, 150), (45, 170), (65, 195), (100, 225), (140, 250),
    (175, 268), (215, 280), (255, 280), (290, 275), (312, 260), (320, 215), (340, 195), (355, 165), (362, 130),
    (361, 100), (357, 75), (370, 55), (380, 30), (400, 0),
]  # fmt: skip
PALETTE = [40, 40, 40, 230, 80, 60, 60, 150, 230, 90, 200, 90]


def cut_outs():
    """Photographs with an alpha channel, cropped to the object: the classes from 1, then the flower."""
    cat = Image.new("L", (451, 300))
    ImageDraw.Draw(cat).polygon(CAT, fill=255)
    flower = Image.new("L", (640, 427))
    ImageDraw.Draw(flower).ellipse((172, 90, 442, 357), fill=255)
    objects = []
    for path, mask in (
        (PHOTOS / "astronaut.png", Image.open(GOLDEN / "objects/astronaut_drawn.png").convert("L")),
        (PHOTOS / "coffee.png", Image.open(GOLDEN / "objects/coffee_drawn.png").convert("L")),
        (PHOTOS / "chelsea.png", cat),
        (SKLEARN / "flower.jpg", flower),
    ):
        photo = Image.open(path).convert("RGB")
        mask = mask.resize(photo.size, Image.Resampling.BILINEAR)
        photo.putalpha(mask)
        objects.append(photo.crop(mask.getbbox()))
    return objects


def colored(image, random, low, high):
    """Changes the brightness and the balance of the colors; keeps an alpha channel."""
    gain = random.uniform(low, high) * random.uniform(0.88, 1.12, 3)
    values = np.asarray(image).astype(np.float64)
    values[..., :3] = np.clip(values[..., :3] * gain, 0, 255)
    return Image.fromarray(values.round().astype(np.uint8))


def background(path, random):
    photo = Image.open(path).convert("RGB")
    side = random.uniform(0.55, 1) * min(photo.size)
    width, height = round(side), round(side * random.uniform(0.8, 1))
    left, top = random.integers(photo.width - width + 1), random.integers(photo.height - height + 1)
    part = photo.crop((left, top, left + width, top + height)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    if random.random() < 0.5:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return colored(part, random, 0.7, 1.3)


def pasted(image, mask, cut_out, number, random):
    """Pastes an object at random into the image, and its class into the mask."""
    factor = SIZE * random.uniform(0.45, 0.9) / max(cut_out.size)
    width, height = (max(round(length * factor), 1) for length in cut_out.size)
    # Premultiplied, so that the edges have no color of the photograph behind them.
    small = cut_out.convert("RGBa").resize((width, height), Image.Resampling.BILINEAR)
    if random.random() < 0.5:
        small = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    turned = small.rotate(random.uniform(-35, 35), Image.Resampling.BILINEAR, expand=True)
    turned = colored(turned.convert("RGBA"), random, 0.65, 1.35)
    turned.putalpha(turned.getchannel("A").filter(ImageFilter.GaussianBlur(1)))
    x, y = random.uniform(0.15, 0.85, 2) * SIZE
    corner = round(x - turned.width / 2), round(y - turned.height / 2)
    image.paste(turned, corner, turned)
    inside = Image.new("L", (SIZE, SIZE))
    inside.paste(turned.getchannel("A"), corner)
    mask[np.asarray(inside) >= 128] = number


def picture(index, classes, held_out, seed, others, size, objects):
    """The picture of this number, its mask [size, size], and a quality of JPEG. Other numbers do not change it."""
    random = np.random.default_rng([seed, held_out, index])
    paths = BACKGROUNDS[held_out]
    image = background(paths[index % len(paths)], random)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    # One class in turn is always there, so that a few pictures have all of them.
    present = [number == 1 + index % (classes - 1) or random.random() < 0.6 for number in range(1, classes)]
    chosen = [(objects[number - 1], number) for number in range(1, classes) if present[number - 1]]
    chosen += [(other, 0) for other in objects[classes - 1 :] if random.random() < others]
    for at in random.permutation(len(chosen)):
        pasted(image, mask, *chosen[at], random)
    image = image.filter(ImageFilter.GaussianBlur(random.uniform(0, 1)))
    noisy = np.asarray(image) + random.normal(scale=random.uniform(0, 8), size=(SIZE, SIZE, 3))
    image = Image.fromarray(np.clip(noisy, 0, 255).round().astype(np.uint8))
    image = image.resize((size, size), Image.Resampling.BICUBIC)
    mask = np.array(Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST))
    mask[ndimage.maximum_filter(mask, 3) != ndimage.minimum_filter(mask, 3)] = IGNORED
    return image, mask, int(random.integers(60, 96))


def palette_image(mask):
    image = Image.fromarray(mask)
    image.putpalette(PALETTE + [0] * (3 * 255 - len(PALETTE)) + [255] * 3)
    return image


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--classes", type=int, choices=(2, 3, 4), default=2, help="with the background")
    parser.add_argument("--size", type=int, default=SIZE, help="width and height in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-out", action="store_true", help="other photographs around the objects")
    parser.add_argument("--others", type=float, default=0, help="share of pictures with each thing of no class")
    arguments = parser.parse_args()
    for folder in ("images", "masks"):
        (arguments.out / folder).mkdir(parents=True, exist_ok=True)
    objects = cut_outs()
    for index in range(arguments.count):
        options = arguments.classes, arguments.held_out, arguments.seed, arguments.others, arguments.size
        image, mask, quality = picture(index, *options, objects)
        image.save(arguments.out / f"images/{index:03}.jpg", quality=quality)
        palette_image(mask).save(arguments.out / f"masks/{index:03}.png")


if __name__ == "__main__":
    main()
