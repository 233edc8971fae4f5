"""Makes HEIC files and the hashes of their pixels, by pillow-heif 1.8 (libheif 1.23, libde265).

    python -m venv v && v/bin/pip install pillow-heif==1.8.1 pillow==13.0.0 numpy
    cd tests/golden/formats/heic && ../../../../v/bin/python make.py
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image, ImageOps

HERE = Path(__file__).parent
PHOTO = HERE / "../../../../src/http/page/assets/coffee.jpg"

pillow_heif.register_heif_opener()
photo = Image.open(PHOTO).convert("RGB").resize((97, 55), Image.Resampling.BICUBIC)
pixels = np.asarray(photo)


def save(name: str, image: Image.Image, **options) -> None:
    image.save(HERE / f"{name}.heic", format="HEIF", **options)


save("rgb420", photo, quality=60)
save("rgb422", photo, quality=80, chroma="422")
save("rgb444", photo, quality=80, chroma="444")
save("gray", photo.convert("L"), quality=70)
save("large", photo.resize((700, 420), Image.Resampling.BICUBIC), quality=30)
transparent = photo.copy()
transparent.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 97).astype(np.uint8), (55, 1))))
save("alpha", transparent, quality=80)
# The orientation becomes a rotation and a mirror of the container. The sides are even: with odd ones
# two versions of libheif differ.
exif = Image.Exif()
for orientation in (3, 5, 6, 8):
    exif[0x0112] = orientation
    even = photo.crop((0, 0, 96, 54))
    save(f"exif{orientation}", even, quality=60, exif=exif.tobytes())
for bits in (10, 12):
    pillow_heif.options.SAVE_HDR_TO_12_BIT = bits == 12
    deep = pillow_heif.from_bytes("RGB;16", photo.size, (pixels.astype(np.uint16) * 257).tobytes())
    deep.save(HERE / f"bits{bits}.heic", quality=80)

expected = []
for path in sorted(HERE.glob("*.heic")):
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    image = image.convert("RGB")
    digest = hashlib.sha256(image.tobytes()).hexdigest()
    expected.append({"name": path.name, "width": image.width, "height": image.height, "sha256": digest})
lines = ",\n".join(json.dumps(case) for case in expected)
(HERE / "expected.json").write_text(f"[\n{lines}\n]\n")
