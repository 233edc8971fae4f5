"""Makes the image-format and resampling reference data in this folder.

Made with Pillow 13.0.0 (manylinux x86-64 wheel) and numpy 2.4; needs nothing
else.  Run it from this folder:  python make.py [--source PHOTO.png]
odd.py and tiff.py write the files that Pillow does not write.

What it writes, deterministically:

* small image files (97x55, those with an EXIF orientation in JPEG 33x20), one
  per case, from a downscaled crop of the source photo;

* refused.json, the files that are not decoded, with a part of the error;

* expected.json, a list with one object per file:
    name, width, height    of the stored image, before any EXIF rotation
    mode                   as Image.open reports it
    orientation            EXIF orientation, 1 where there is none
    rgb_sha256             Image.open(f).convert("RGB").tobytes(): first frame,
                           alpha dropped, no EXIF rotation
    upright_sha256         the same after ImageOps.exif_transpose
    white_sha256           (files with alpha only) convert("RGBA") over white,
                           out = (c*a + 255*(255-a) + 127) // 255 per channel,
                           no EXIF rotation
    exact                  false where a correct decoder may differ by a little
                           from the bundled one (JPEG, lossy WebP)
    expected_png, upright_png, white_png
                           the pixels behind those three hashes, as PNG, to
                           measure a difference against: the first for every
                           file with "exact" false, the others where they differ
                           from the first
    note                   anything unusual
  16-bit greyscale: Pillow's own I;16 -> RGB clips at 255, so there the hashes
  are of the high byte (value >> 8) in all three channels.

* resample.json, a list of cases for a bit-exact copy of Pillow's 8-bit
  resampling: sha256 of Image.resize((out_width, out_height), filter).tobytes()
  of an RGB input, plain resize (box = whole image, reducing_gap None).
  vertical_first says which pass Pillow runs first when it needs both:
  dh > 0 and dh > 2*dw, with dh = height - out_height, dw = width - out_width.
  The input is (x, y from 0, channel c in 0..2, all mod 256):
    "wave"   7x + 13y + 29c + (x*y mod 97) + ((x div 14)*(y div 14)*31 mod 61)
    "noise"  state s = seed; for every byte in row-major order (y, x, c):
             s = (s*1664525 + 1013904223) mod 2^32, then the byte is s >> 24
"""

import argparse
import hashlib
import io
import json
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageOps

# No folder of compiled modules in the source.
sys.dont_write_bytecode = True

from odd import bmp_files, gif_files, jpeg_tiff_files, other_tiff_files, refused_files, tiff_files, turned_tiff_files

HERE = Path(__file__).resolve().parent
ORIENTATION = 0x0112  # EXIF and TIFF tag
PREDICTOR = 317  # TIFF tag


# ---------------------------------------------------------------- helpers


def sha(pixels):
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def exif_with(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def marked_exif(orientation):
    """An EXIF block with the marker of JPEG files, which does not belong there in others, and is there."""
    return b"Exif\0\0" + exif_with(orientation).tobytes().removeprefix(b"Exif\0\0")


def png_with_marker(photo):
    file = io.BytesIO()
    photo.save(file, "PNG")
    data, block = file.getvalue(), marked_exif(6)
    chunk = struct.pack(">I", len(block)) + b"eXIf" + block + struct.pack(">I", zlib.crc32(b"eXIf" + block))
    return data[:33] + chunk + data[33:]  # behind the header


def webp_with_marker(photo):
    file = io.BytesIO()
    photo.save(file, "WEBP", lossless=True)
    block = marked_exif(6)
    block += b"\0" * (len(block) % 2)
    sides = b"".join(struct.pack("<I", side - 1)[:3] for side in photo.size)
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes([8, 0, 0, 0]) + sides
    chunks = canvas + file.getvalue()[12:] + b"EXIF" + struct.pack("<I", len(block)) + block
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def png_bytes(array, colour_type, bit_depth, interlaced=False):
    """A PNG made by hand: what Pillow cannot write (16-bit RGB, Adam7)."""

    def chunk(kind, data):
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    def rows(a):  # all with filter 1, Sub
        a = a.astype(">u2" if bit_depth == 16 else "u1")
        a = a.view("u1").reshape(*a.shape[:2], -1)
        a = np.diff(a, axis=1, prepend=np.zeros_like(a[:, :1]))
        return b"".join(b"\1" + row.tobytes() for row in a)

    height, width = array.shape[:2]
    if interlaced:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)]
        passes += [(2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
        data = b"".join(rows(array[y::dy, x::dx]) for y, x, dy, dx in passes)
    else:
        data = rows(array)
    header = struct.pack(
        ">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, interlaced
    )
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(data, 9))
        + chunk(b"IEND", b"")
    )


def to_cmyk(rgb):
    """A CMYK separation of an RGB image that has real black in it."""
    a = np.asarray(rgb).astype(int)
    k = (255 - a.max(axis=2)) * 3 // 4
    nk = (255 - k)[..., None]
    cmy = np.clip(255 - (a * 255 + nk // 2) // nk, 0, 255)
    return Image.fromarray(np.dstack([cmy, k]).astype("u1"), "CMYK")


def save_ycck(cmyk, path, **options):
    """An Adobe YCCK JPEG, which Pillow reads but cannot write.

    Stored CMYK is inverted, and YCCK holds the YCbCr of the inverse of that.
    Pillow's encoder inverts what it is given, so hand it the inverse of the
    planes wanted, and set the colour transform of the Adobe marker to 2.
    """
    c, m, y, k = cmyk.split()
    planes = Image.merge("RGB", (c, m, y)).convert("YCbCr").split()
    inverse = [ImageOps.invert(plane) for plane in planes]
    Image.merge("CMYK", (*inverse, k)).save(path, **options)
    data = bytearray(path.read_bytes())
    marker = data.index(b"Adobe")
    assert data[marker + 11] == 0
    data[marker + 11] = 2
    path.write_bytes(data)


# ------------------------------------------------------------ image files


def write_images(source, out):
    """Writes every image file; returns [(name, exact, note, like)]."""
    photo = Image.open(source).convert("RGB").crop((90, 15, 381, 180)).reduce(3)
    tiny = photo.resize((33, 20), Image.Resampling.BOX)
    width, height = photo.size
    made = []

    def add(name, image=None, exact=True, note=None, data=None, like=None, **options):
        if data is not None:
            (out / name).write_bytes(data)
        elif image is not None:
            image.save(out / name, **options)
        made.append((name, exact, note, like))

    # Shared inputs.
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    rgb = np.asarray(photo).astype(int)
    grey = photo.convert("L")
    palette = photo.quantize(200, dither=Image.Dither.NONE)
    few = photo.quantize(32, dither=Image.Dither.NONE)
    mirrored = ImageOps.mirror(photo)
    # Fully clear on the left, fully opaque on the right.
    alpha = np.clip(x * 320 // width - 32 + y // 4, 0, 255).astype("u1")
    rgba = photo.copy()
    rgba.putalpha(Image.fromarray(alpha))
    la = grey.copy()
    la.putalpha(Image.fromarray(alpha))
    low = (37 * (x // 8) + 11 * (y // 8)) % 256
    grey16 = (np.asarray(grey).astype(int) * 256 + low).astype("u2")
    rgb16 = rgb * 256 + (low[..., None] + [0, 85, 170]) % 256
    cmyk = to_cmyk(photo)
    high_byte = "16-bit grey: hashes are of the high byte, not of Pillow's RGB"

    def jpeg(name, image=photo, note=None, **options):
        options = {"quality": 85, "subsampling": "4:2:0"} | options
        add(f"jpeg_{name}.jpg", image, exact=False, note=note, **options)

    jpeg("420")
    jpeg("422", subsampling="4:2:2")
    jpeg("444", subsampling="4:4:4")
    jpeg("420_progressive", progressive=True)
    jpeg("420_restart", restart_marker_blocks=3)
    jpeg("420_q30", quality=30)
    jpeg("420_optimize", optimize=True)
    jpeg("grey", grey)
    jpeg("cmyk", cmyk, note="Adobe, inverted, transform 0", subsampling="4:4:4")
    save_ycck(cmyk, out / "jpeg_ycck.jpg", quality=85, subsampling="4:4:4")
    jpeg("ycck", None, note="Adobe, inverted, transform 2")
    for n in range(1, 9):
        jpeg(f"orientation_{n}", tiny, exif=exif_with(n))

    add("png_rgb8.png", photo)
    add("png_rgb8_interlaced.png", data=png_bytes(rgb, 2, 8, interlaced=True))
    add("png_rgb8_trns.png", photo, transparency=photo.getpixel((40, 30)))
    add("png_rgb16.png", data=png_bytes(rgb16, 2, 16), note="Pillow: high bytes")
    add("png_palette.png", palette)
    add("png_palette_4bit.png", photo.quantize(16, dither=Image.Dither.NONE))
    clear = bytes(i * 255 // 199 for i in range(200))
    add("png_palette_trns.png", palette, transparency=clear)
    add("png_grey8.png", grey)
    add("png_grey1.png", grey.convert("1"))
    add("png_grey16.png", Image.fromarray(grey16), note=high_byte)
    add("png_rgba.png", rgba)
    add("png_la.png", la)
    add("png_orientation_6.png", photo, exif=exif_with(6))
    add("png_exif_marker.png", data=png_with_marker(photo), note="Exif\\0\\0 in front of the block")

    add("webp_lossy.webp", photo, exact=False, quality=80)
    add("webp_lossless.webp", photo, lossless=True)
    add("webp_lossy_alpha.webp", rgba, exact=False, quality=80)
    add("webp_exif_marker.webp", data=webp_with_marker(photo), note="Exif\\0\\0 in front of the block")
    two = {"save_all": True, "duration": 100}
    add(
        "webp_animated.webp",
        photo,
        append_images=[mirrored],
        lossless=True,
        method=6,
        note="2 lossless frames, the second a mirror image",
        **two,
    )

    add("gif_plain.gif", palette)
    add(
        "gif_animated.gif",
        few,
        append_images=[mirrored.quantize(32, dither=Image.Dither.NONE)],
        note="2 frames, the second a mirror image",
        **two,
    )
    add("gif_transparent.gif", few, transparency=few.getpixel((40, 30)))

    add("bmp_24.bmp", photo)
    add("bmp_palette8.bmp", palette)
    add("bmp_32.bmp", rgba, note="BI_RGB: the 4th byte is unused, not alpha")

    deflate = {"compression": "tiff_adobe_deflate"}
    predicted = deflate | {"tiffinfo": {PREDICTOR: 2}}
    add("tiff_raw.tif", photo)
    add("tiff_lzw.tif", photo, compression="tiff_lzw")
    add("tiff_deflate.tif", photo, note="horizontal predictor", **predicted)
    add("tiff_grey8.tif", grey, **deflate)
    add("tiff_grey16.tif", Image.fromarray(grey16), note=high_byte, **deflate)
    add("tiff_palette.tif", palette, **deflate)
    add("tiff_cmyk.tif", cmyk, note="horizontal predictor", **predicted)
    add("tiff_rgba.tif", rgba, note="horizontal predictor", **predicted)
    turned = deflate | {"tiffinfo": {ORIENTATION: 6}}
    add("tiff_orientation_6.tif", photo, note="Pillow turns it when it loads it", **turned)
    small = [*tiff_files(tiny, to_cmyk), *turned_tiff_files(tiny), *jpeg_tiff_files(tiny)]
    small += [*bmp_files(tiny), *gif_files(tiny)]
    for name, data, note in small:
        add(name, data=data, note=note)
    for name, data, like in other_tiff_files(tiny):
        add(name, data=data, note=f"the pixels are those of {like}", like=like)
    refused = []
    for name, reason, data in refused_files(tiny):
        (out / name).write_bytes(data)
        refused.append({"name": name, "reason": reason})
    write_list(out / "refused.json", refused)
    return made


def to_rgb(image):
    """convert("RGB"), except that 16-bit grey keeps its high byte."""
    if image.mode == "La":
        image = image.convert("LA")  # the only conversion that Pillow has
    if image.mode.startswith("I;16"):
        high = (np.asarray(image) >> 8).astype("u1")
        return Image.fromarray(np.dstack([high] * 3))
    if "transparency" in image.info and image.mode == "P":
        image = image.convert("RGBA")  # same colours, without Pillow's warning
    return image.convert("RGB")


def over_white(image):
    image = image.convert("LA") if image.mode == "La" else image
    a = np.asarray(image.convert("RGBA")).astype(int)
    alpha = a[..., 3:]
    white = (a[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
    return Image.fromarray(white.astype("u1"))


def describe(out, name, exact, note, like):
    """The expected.json entry of one file; writes its reference PNGs. Of a file that Pillow does
    not read the reference is another file with the same picture."""
    image = Image.open(out / (like or name))
    width, height = image.size
    orientation = image.getexif().get(ORIENTATION, 1)
    entry = {
        "name": name,
        "width": width,
        "height": height,
        "mode": image.mode,
        "orientation": int(orientation) if orientation in range(1, 9) else 1,
        "exact": exact,
    }
    rgb = to_rgb(image)
    # An orientation in XMP is seen when the pixels are loaded.
    entry["width"], entry["height"] = rgb.size
    upright = to_rgb(ImageOps.exif_transpose(image))
    white = over_white(image) if image.has_transparency_data else None
    entry["rgb_sha256"] = sha(rgb)
    entry["upright_sha256"] = sha(upright)
    if white:
        entry["white_sha256"] = sha(white)

    def store(field, kind, pixels):
        entry[field] = f"{name}.{kind}.png"
        pixels.save(out / entry[field], optimize=True)

    if not exact:
        store("expected_png", "expected", rgb)
        if entry["orientation"] != 1:
            store("upright_png", "upright", upright)
        if white:
            store("white_png", "white", white)
    if note:
        entry["note"] = note
    return entry


# -------------------------------------------------------------- resampling


def wave(width, height):
    y, x, c = np.ogrid[:height, :width, :3]
    u = 7 * x + 13 * y + 29 * c + x * y % 97 + (x // 14) * (y // 14) * 31 % 61
    return (u % 256).astype("u1")


def noise(width, height, seed):
    state, data = seed, bytearray(width * height * 3)
    for i in range(len(data)):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        data[i] = state >> 24
    return np.frombuffer(data, "u1").reshape(height, width, 3)


# (width, height), (out_width, out_height)
SIZES = [
    # Photo shrinks.
    ((640, 427), (384, 256)),
    ((427, 640), (256, 384)),
    ((451, 300), (337, 224)),
    ((320, 240), (299, 224)),
    # Upscaling, by whole and by odd factors.
    ((40, 30), (224, 168)),
    ((16, 16), (64, 64)),
    # Tiny inputs and outputs.
    ((1, 1), (1, 1)),
    ((1, 1), (7, 5)),
    ((1, 37), (1, 11)),
    ((1, 37), (9, 50)),
    ((37, 1), (11, 1)),
    ((37, 1), (50, 9)),
    ((2, 3), (1, 1)),
    ((2, 3), (3, 2)),
    ((2, 3), (14, 14)),
    ((97, 61), (1, 1)),
    # Extreme aspect ratios.
    ((1200, 4), (224, 2)),
    ((4, 1200), (2, 224)),
    ((700, 3), (14, 224)),
    ((3, 700), (224, 14)),
    # One side or both unchanged.
    ((97, 61), (97, 40)),
    ((97, 61), (97, 80)),
    ((97, 61), (40, 61)),
    ((97, 61), (120, 61)),
    ((97, 61), (97, 61)),
    # One side grows and the other shrinks.
    ((60, 90), (75, 41)),
    ((90, 60), (41, 75)),
    # The edge of the pass-order rule: dh = 2*dw - 1, 2*dw and 2*dw + 1, with
    # dw = 20; then dw = 0 and dw < 0 with the least dh > 0, and with dh = 0.
    ((100, 120), (80, 81)),
    ((100, 120), (80, 80)),
    ((100, 120), (80, 79)),
    ((100, 400), (99, 50)),
    ((100, 120), (101, 119)),
    ((100, 120), (101, 120)),
    ((100, 120), (101, 121)),
]


def resample_cases():
    filters = {
        "bicubic": Image.Resampling.BICUBIC,
        "bilinear": Image.Resampling.BILINEAR,
    }
    cases = []
    # Every size twice: the second time with the other pattern and filter.
    for i, ((w, h), (ow, oh)) in enumerate(SIZES + SIZES):
        again, j = divmod(i, len(SIZES))
        noisy = j % 2 != again
        name = "bilinear" if j // 2 % 2 != again else "bicubic"
        seed = 1000 + i if noisy else 0
        pixels = noise(w, h, seed) if noisy else wave(w, h)
        dh, dw = h - oh, w - ow
        resized = Image.fromarray(pixels).resize((ow, oh), filters[name])
        cases.append(
            {
                "pattern": "noise" if noisy else "wave",
                "seed": seed,
                "width": w,
                "height": h,
                "out_width": ow,
                "out_height": oh,
                "filter": name,
                "vertical_first": dh > 0 and dh > 2 * dw,
                "sha256": sha(resized),
            }
        )
    return cases


# -------------------------------------------------------------------- main


def write_list(path, items):
    lines = ",\n".join(json.dumps(item) for item in items)
    path.write_text(f"[\n{lines}\n]\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--source",
        type=Path,
        default=HERE / "../dinov2-small-focus/chelsea.png",
        help="the photo the image files are cut from (%(default)s)",
    )
    source = parser.parse_args().source
    if PIL.__version__ != "13.0.0":
        print(f"warning: made with Pillow 13.0.0, this is {PIL.__version__}")
    made = write_images(source, HERE)
    write_list(HERE / "expected.json", [describe(HERE, *item) for item in made])
    write_list(HERE / "resample.json", resample_cases())


if __name__ == "__main__":
    main()
