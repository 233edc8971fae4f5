"""Makes PNG, JPEG and WebP files with defects and odd metadata, and what Pillow reads in them.

Made with Pillow 13.0.0 and numpy 2.4.  Run it from anywhere:  python make.py

It writes the files and expected.json, a list with one object per file:
    name
    refused         true where Pillow refuses the file
    rgb_sha256      Image.open(f).convert("RGB").tobytes()
    upright_sha256  the same after ImageOps.exif_transpose
16-bit grey keeps its high byte, as in ../formats.
"""

import hashlib
import io
import json
import struct
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE.parent / "formats"))
from make import to_rgb  # noqa: E402

PNG = b"\x89PNG\r\n\x1a\n"
ORIENTATION = 0x0112
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'


def exif_block(kind=3, count=1, value=b"\6\0\0\0", behind=b""):
    entry = struct.pack("<HHL", ORIENTATION, kind, count) + value
    return b"II*\0" + struct.pack("<LH", 8, 1) + entry + bytes(4) + behind


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


# -------------------------------------------------------------------- PNG


def chunk(kind, data, crc=None):
    crc = struct.pack(">I", zlib.crc32(kind + data)) if crc is None else crc
    return struct.pack(">I", len(data)) + kind + data + crc


def chunks_of(file):
    position, found = 8, []
    while position < len(file):
        (length,) = struct.unpack_from(">I", file, position)
        found.append((file[position + 4 : position + 8], file[position + 8 : position + 8 + length]))
        position += 12 + length
    return found


def raw_profile(block, name=b"exif"):
    digits = block.hex().encode()
    lines = [digits[at : at + 72] for at in range(0, len(digits), 72)]
    return b"\n%s\n%8d\n" % (name, len(block)) + b"\n".join(lines) + b"\n"


def png_files(photo):
    """(Name, bytes) of every PNG."""
    (_, header), (_, data), _ = chunks_of(encoded(photo, "PNG"))
    start, pixels, end = PNG + chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b"")
    block, turned = exif_block(), exif_block(value=b"\3\0\0\0")
    marked = b"Exif\0\0" + block
    key, other = b"Raw profile type exif\0", b"Raw profile type APP1\0"
    xmp = b"XML:com.adobe.xmp\0"

    def metadata(name, *added, before=False):
        added = b"".join(added)
        yield name, start + added + pixels + end if before else start + pixels + added + end

    yield from metadata("exif_after", chunk(b"eXIf", block))
    yield from metadata("exif_after_wrong_checksum", chunk(b"eXIf", block, b"abcd"))
    yield from metadata("exif_long", chunk(b"eXIf", exif_block(kind=4)), before=True)
    yield from metadata("exif_twice", chunk(b"eXIf", turned), chunk(b"eXIf", block))
    for where, before in [("before", True), ("after", False)]:
        profile = raw_profile(marked)
        yield from metadata(f"profile_text_{where}", chunk(b"tEXt", key + profile), before=before)
        packed = zlib.compress(profile)
        yield from metadata(f"profile_ztxt_{where}", chunk(b"zTXt", key + b"\0" + packed), before=before)
        plain = chunk(b"iTXt", key + b"\0\0en\0exif\0" + profile)
        yield from metadata(f"profile_itxt_{where}", plain, before=before)
        packed = chunk(b"iTXt", key + b"\1\0\0\0" + packed)
        yield from metadata(f"profile_itxt_packed_{where}", packed, before=before)
    yield from metadata("profile_without_marker", chunk(b"tEXt", key + raw_profile(block)))
    yield from metadata("profile_app1", chunk(b"tEXt", other + raw_profile(marked, b"APP1")))
    yield from metadata("profile_and_exif", chunk(b"tEXt", key + raw_profile(turned)), chunk(b"eXIf", block))
    yield from metadata("xmp_itxt", chunk(b"iTXt", xmp + b"\0\0\0\0" + XMP % 8))
    yield from metadata("xmp_itxt_packed", chunk(b"iTXt", xmp + b"\1\0\0\0" + zlib.compress(XMP % 8)))
    yield from metadata("xmp_text", chunk(b"tEXt", xmp + XMP % 8))
    yield from metadata("xmp_and_exif", chunk(b"iTXt", xmp + b"\0\0\0\0" + XMP % 8), chunk(b"eXIf", block))
    yield from metadata("xmp_and_empty_exif", chunk(b"iTXt", xmp + b"\0\0\0\0" + XMP % 8), chunk(b"eXIf", b""))

    # Checksums and ends.
    half = len(data) // 2
    yield "wrong_checksum", start + chunk(b"IDAT", data, b"abcd") + end
    parts = chunk(b"IDAT", data[:half], b"abcd") + chunk(b"IDAT", data[half:])
    yield "wrong_checksum_of_first", start + parts + end
    yield "wrong_checksum_of_header", PNG + chunk(b"IHDR", header, b"abcd") + pixels + end
    yield "wrong_checksum_of_end", start + pixels + chunk(b"IEND", b"", b"abcd")
    damaged = bytearray(data)
    damaged[half] ^= 1
    yield "damaged_pixels", start + chunk(b"IDAT", bytes(damaged), pixels[-4:]) + end
    yield "without_end", start + pixels
    yield "without_end_and_checksum", start + pixels[:-4]
    yield "without_adler", start + pixels[:-8]
    yield "cut_pixels", start + pixels[:-40]
    yield "cut_metadata", start + pixels + chunk(b"eXIf", block)[:-20]
    yield "empty_pieces", start + chunk(b"IDAT", b"") * 3 + pixels + chunk(b"IDAT", b"") + end
    yield "interrupted_pixels", start + chunk(b"IDAT", data[:half]) + chunk(b"tEXt", b"a\0b") + chunk(b"IDAT", data[half:]) + end
    yield "more_pixels_behind", start + pixels + chunk(b"tEXt", b"a\0b") + chunk(b"IDAT", b"other") + end
    raw = zlib.decompress(data)
    yield "too_many_rows", start + chunk(b"IDAT", zlib.compress(raw + bytes(500))) + end
    yield "trailing_bytes", start + pixels + end + b"trailing bytes"

    # Chunks that do not matter.
    for name, extra in [
        ("profile_damaged", chunk(b"iCCP", b"x\0\0abcd")),
        ("unknown_critical", chunk(b"ABCD", b"x")),
        ("palette_of_4_bytes", chunk(b"PLTE", b"abcd")),
        ("header_twice", chunk(b"IHDR", header)),
    ]:
        yield name, start + extra + pixels + end
    packed = photo.quantize(16, dither=Image.Dither.NONE)
    (_, header), (_, palette), (_, data), _ = chunks_of(encoded(packed, "PNG"))
    start, pixels = PNG + chunk(b"IHDR", header), chunk(b"IDAT", data)
    alpha = chunk(b"tRNS", bytes(range(0, 240, 16)))
    yield "transparency_before_palette", start + alpha + chunk(b"PLTE", palette) + pixels + end
    yield "palette_wrong_checksum", start + chunk(b"PLTE", palette, b"abcd") + pixels + end


# ------------------------------------------------------------------- JPEG


def segment(marker, data):
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def lossless(planes, components=None):
    """A lossless JPEG (predictor 1) with one Huffman table: all categories have codes of 5 bits."""
    height, width = planes[0].shape
    count = len(planes)
    ids = components or range(1, count + 1)
    lengths = bytes([0, 0, 0, 0, 17] + [0] * 11)
    bits = []
    differences = []
    for plane in planes:
        values = plane.astype(int)
        predicted = np.empty_like(values)
        predicted[0, 0] = 128
        predicted[0, 1:] = values[0, :-1]
        predicted[1:, 0] = values[:-1, 0]
        predicted[1:, 1:] = values[1:, :-1]
        differences.append((values - predicted).ravel())
    for group in zip(*differences):
        for difference in map(int, group):
            size = abs(difference).bit_length()
            bits.append(format(size, "05b"))
            if size:
                value = difference if difference > 0 else difference + (1 << size) - 1
                bits.append(format(value, f"0{size}b"))
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    data = bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8)).replace(b"\xff", b"\xff\0")
    frame = struct.pack(">BHHB", 8, height, width, count) + b"".join(bytes([i, 0x11, 0]) for i in ids)
    scan = bytes([count]) + b"".join(bytes([i, 0]) for i in ids) + b"\1\0\0"
    table = segment(0xC4, b"\0" + lengths + bytes(range(17)))
    return b"\xff\xd8" + segment(0xC3, frame) + table + segment(0xDA, scan) + data + b"\xff\xd9"


def jpeg_files(photo):
    """(Name, bytes) of every JPEG."""
    plain = encoded(photo, "JPEG", quality=90)
    cmyk = encoded(photo.convert("CMYK"), "JPEG", quality=90)
    # Behind the start and the JFIF segment.
    (length,) = struct.unpack_from(">H", plain, 4)
    head, rest = plain[: 4 + length], plain[4 + length :]

    def with_segments(*added):
        return head + b"".join(added) + rest

    def exif(*arguments, **options):
        return with_segments(segment(0xE1, b"Exif\0\0" + exif_block(*arguments, **options)))

    icc = b"ICC_PROFILE\0"
    yield "icc_empty", with_segments(segment(0xE2, icc + b"\1\1"))
    yield "icc_0_of_0", with_segments(segment(0xE2, icc + b"\0\0" + bytes(200)))
    yield "icc_9_of_2", with_segments(segment(0xE2, icc + b"\x09\2" + bytes(200)))
    yield "icc_1_of_2", with_segments(segment(0xE2, icc + b"\1\2" + bytes(200)))
    yield "junk_between_segments", with_segments(b"some junk", segment(0xFE, b"comment"), b"\0\0\xff\0\0")
    yield "junk_in_front_of_scan", plain.replace(b"\xff\xda", b"junk\xff\xff\xff\xda", 1)
    yield "jfif_version_9", plain[:11] + b"\x09" + plain[12:]
    yield "junk_in_front_of_exif", with_segments(b"junk", segment(0xE1, b"Exif\0\0" + exif_block()))
    without_jfif = b"\xff\xd8" + rest

    def adobe(transform):
        return segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))

    for transform in (0, 1, 2, 9):
        yield f"adobe_{transform}_of_3", b"\xff\xd8" + adobe(transform) + rest
        at = cmyk.index(b"Adobe") + 11
        yield f"adobe_{transform}_of_4", cmyk[:at] + bytes([transform]) + cmyk[at + 1 :]
    yield "without_jfif", without_jfif
    for name, options in {
        "long": {"kind": 4}, "signed": {"kind": 9}, "count_2": {"count": 2}, "count_0": {"count": 0},
        "count_3_outside": {"count": 3, "value": b"\x1a\0\0\0", "behind": struct.pack("<3H", 6, 1, 1)},
        "rational": {"kind": 5, "value": b"\x1a\0\0\0", "behind": struct.pack("<2L", 12, 2)},
        "float": {"kind": 11, "value": struct.pack("<f", 6)}, "byte": {"kind": 1}, "text": {"kind": 2, "value": b"6\0\0\0"},
        "9": {"value": b"\x09\0\0\0"},
    }.items():
        yield f"exif_{name}", exif(**options)
    block = exif_block(count=3, value=b"\x1a\0\0\0", behind=struct.pack("<3H", 6, 1, 1))
    pieces = [segment(0xE1, b"Exif\0\0" + piece) for piece in (block[:20], block[20:])]
    yield "exif_in_two_segments", with_segments(*pieces)
    xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP % 8)
    yield "xmp", with_segments(xmp)
    yield "xmp_and_exif", with_segments(xmp, segment(0xE1, b"Exif\0\0" + exif_block()))
    grey = np.asarray(photo.convert("L"))
    yield "lossless_grey", lossless([grey])
    yield "lossless_rgb", lossless(list(np.asarray(photo).transpose(2, 0, 1)), components=b"RGB")
    for cut in (3, 12, len(head) + 30, plain.index(b"\xff\xda"), plain.index(b"\xff\xda") + 6):
        yield f"cut_at_{cut}", plain[:cut]
    yield "without_scans", plain[: plain.index(b"\xff\xda")] + b"\xff\xd9"


# ------------------------------------------------------------------- WebP


def webp_files(photo):
    """(Name, bytes) of every WebP."""
    for name, options in {
        "exif_long": {"exif": exif_block(kind=4)},
        "xmp": {"xmp": XMP % 8},
        "xmp_and_exif": {"xmp": XMP % 8, "exif": exif_block()},
    }.items():
        yield name, encoded(photo, "WEBP", lossless=True, **options)


def describe(name, file):
    entry = {"name": name}
    try:
        image = Image.open(io.BytesIO(file))
        rgb, upright = to_rgb(image), to_rgb(ImageOps.exif_transpose(image))
    except Exception:
        return entry | {"refused": True}
    for field, pixels in [("rgb_sha256", rgb), ("upright_sha256", upright)]:
        entry[field] = hashlib.sha256(pixels.tobytes()).hexdigest()
    return entry


def main():
    warnings.simplefilter("ignore")
    source = HERE / "../dinov2-small-focus/chelsea.png"
    photo = Image.open(source).convert("RGB").crop((90, 15, 330, 175)).reduce(10)
    photo = Image.fromarray(np.asarray(photo))  # without metadata
    entries = []
    for extension, files in [("png", png_files), ("jpg", jpeg_files), ("webp", webp_files)]:
        for name, file in files(photo):
            name = f"{name}.{extension}"
            (HERE / name).write_bytes(file)
            entries.append(describe(name, file))
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    (HERE / "expected.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
