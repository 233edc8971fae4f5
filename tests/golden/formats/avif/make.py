"""Makes the AVIF files in this folder, and expected.json with their pixels by Pillow.

Needs Pillow 13.0.0, numpy 2.4, and the program avifenc 0.11.1 of Debian 12 (libavif-bin), which
writes what Pillow cannot: 10 and 12 bits, other matrices, tiles, rotations.

expected.json has an object per file: its name, mode and size as Pillow reports them, and the
SHA-256 of the RGB pixels: turned upright, transparent pixels over white with
(c*a + 255*(255-a) + 127) // 255.
"""

import hashlib
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent
PHOTO = HERE / "../../dinov2-small-focus/chelsea.png"


def pictures(folder):
    """PNG files to encode: small with odd sides, the same with alpha, and one for tiles."""
    photo = Image.open(PHOTO).convert("RGB").crop((90, 15, 381, 180))
    small = photo.resize((33, 21), Image.Resampling.BOX)
    # Strong colors, which the range of a matrix cuts off.
    strong = np.asarray(small).astype(int)
    strong[:, 20:] = np.clip((strong[:, 20:] - 128) * 4 + 128, 0, 255)
    strong[14:, 2:14] = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]] * 3
    small = Image.fromarray(strong.astype("u1"))
    x, y = np.meshgrid(np.arange(33), np.arange(21))
    transparent = small.copy()
    transparent.putalpha(Image.fromarray(np.clip(x * 10 - 30 + y * 2, 0, 255).astype("u1")))
    for name, image in {"opaque": small, "alpha": transparent, "tiles": photo.resize((128, 192))}.items():
        image.save(folder / f"{name}.png")
    return photo.resize((97, 55), Image.Resampling.BOX)


def cases():
    """(Name, picture, options of avifenc) of the files that avifenc makes."""
    for sampling in (400, 420, 422, 444):
        for depth in (8, 10, 12):
            for picture in ("opaque", "alpha"):
                for colors in ("limited", "full"):
                    name = f"{sampling}_{depth}_{picture}_{colors}"
                    yield name, picture, ["-y", sampling, "-d", depth, "-r", colors]
    for matrix in (1, 2, 4, 5, 7, 9):
        for colors in ("limited", "full"):
            yield f"matrix_{matrix}_{colors}", "opaque", ["-y", 420, "-r", colors, "--cicp", f"1/13/{matrix}"]
    yield "matrix_0", "opaque", ["-y", 444, "--cicp", "1/13/0"]
    yield "matrix_8", "opaque", ["-y", 444, "--cicp", "1/13/8"]
    yield "matrix_12", "opaque", ["-y", 444, "--cicp", "9/13/12"]
    for sampling in (420, 444):
        for depth in (8, 10, 12):
            yield f"premultiplied_{sampling}_{depth}", "alpha", ["-p", "-y", sampling, "-d", depth]
    for angle in range(4):
        for mirror in (None, 0, 1):
            turn = ["--irot", angle] + (["--imir", mirror] if mirror is not None else [])
            yield f"turned_{angle}_{mirror}", "opaque", ["-y", 420, *turn]
    yield "grid", "tiles", ["-g", "2x3", "-y", 420]
    yield "clap", "opaque", ["--crop", "0,0,16,16"]


def write_files():
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        photo = pictures(folder)
        for name, picture, options in cases():
            quality = ["--min", 20, "--max", 30, "--minalpha", 0, "--maxalpha", 10, "-s", 6, "-c", "aom"]
            command = ["avifenc", *quality, *options, folder / f"{picture}.png", HERE / f"{name}.avif"]
            subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    photo.save(HERE / "pillow.avif", quality=50)
    exif = Image.Exif()
    exif[0x0112] = 6
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
    photo.save(HERE / "pillow_metadata.avif", quality=50, exif=exif, xmp=xmp, icc_profile=b"\0" * 132)
    photo.save(HERE / "pillow_animated.avif", quality=50, save_all=True, append_images=[ImageOps.mirror(photo)])


def describe(path):
    image = Image.open(path)
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        a = np.asarray(upright.convert("RGBA")).astype(int)
        rgb = ((a[..., :3] * a[..., 3:] + 255 * (255 - a[..., 3:]) + 127) // 255).astype("u1")
    else:
        rgb = np.asarray(upright.convert("RGB"))
    return {
        "name": path.name,
        "mode": image.mode,
        "width": rgb.shape[1],
        "height": rgb.shape[0],
        "sha256": hashlib.sha256(rgb.tobytes()).hexdigest(),
    }


if __name__ == "__main__":
    if PIL.__version__ != "13.0.0":
        print(f"warning: made with Pillow 13.0.0, this is {PIL.__version__}")
    write_files()
    lines = ",\n".join(json.dumps(describe(path)) for path in sorted(HERE.glob("*.avif")))
    (HERE / "expected.json").write_text(f"[\n{lines}\n]\n")
