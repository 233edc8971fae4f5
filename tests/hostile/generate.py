#!/usr/bin/env python3
"""Writes a corpus of hostile image files: each is a reason for a decoder to crash, to hang or to take all memory.

    generate.py OUT_DIR         needs only Python's standard library

Files are named `<format>-<what>-<n>.<extension>` and OUT_DIR/index.json lists them; the bytes are the same on each run.
Most files are broken. Some are in order and only large or odd, and `<format>-valid-<n>` are plain pictures: whatever
takes these files may show a picture or refuse one, but it must answer, and live on.
"""

from __future__ import annotations

import functools
import json
import random
import re
import struct
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

MIB = 1 << 20
# The side of the largest square below 50 million pixels, a usual limit: only the data can be a reason to refuse it.
SIDE = 7071
SQUARE = f"{SIDE}x{SIDE}"
EXTENSIONS = {"png": "png", "jpeg": "jpg", "gif": "gif", "bmp": "bmp", "tiff": "tif", "webp": "webp", "other": "bin"}
# The picture in the valid files: 16×16 with a gradient each way, as RGB and as grey.
RGB = bytes(value for y in range(16) for x in range(16) for value in (x * 16, y * 16, 128))
GREY = bytes(x * 4 + y * 4 for y in range(16) for x in range(16))
# What (a part of the name) and the bytes, and the extension where it is not the format's own.
Cases = Iterator[tuple]


def pack_low_first(fields: Iterable[tuple]) -> bytes:
    """(Value, bits) pairs one after the other, the first in the lowest bits, as GIF and WebP have it."""
    total = position = 0
    for value, bits in fields:
        total |= value << position
        position += bits
    return total.to_bytes((position + 7) // 8, "little")


def pack_high_first(fields: Iterable[tuple], fill: str = "0") -> bytes:
    """(Value, bits) pairs one after the other, the first in the highest bits, as JPEG and TIFF have it."""
    text = "".join(f"{value:0{bits}b}" for value, bits in fields)
    text += fill * (-len(text) % 8)
    return int(text or "0", 2).to_bytes(len(text) // 8, "big")


@functools.cache
def deflated_block(count: int) -> bytes:
    """`count` zeros, ending on a whole byte, so that blocks can be joined."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return compressor.compress(bytes(count)) + compressor.flush(zlib.Z_FULL_FLUSH)


def zlib_zeros(count: int) -> bytes:
    """A zlib stream of `count` zeros, a thousand times smaller, made without compressing all of them."""
    blocks = deflated_block(MIB) * (count // MIB) + deflated_block(count % MIB)
    return b"\x78\xda" + blocks + b"\x03\x00" + struct.pack(">I", (count % 65521) << 16 | 1)


def lzw_zeros(clear: int, early: int, count: int = 1 << 30) -> list:
    """(Code, bits) pairs for a table full of zeros, or `count`: each code is the entry that it makes, one zero longer.

    TIFF changes to more bits one code `early`, and has one more code at the end, which ends the data.
    """
    codes, done, code = [(clear, clear.bit_length()), (0, clear.bit_length())], 1, clear + 2
    while done < count and code < 4096 - 2 * early:
        length = min(code - clear, count - done)
        codes.append((clear + length if length > 1 else 0, (code + early).bit_length()))
        done, code = done + length, code + 1
    return codes + [(clear + 1, (code + early).bit_length())] * early


def truncated(parts: list) -> Cases:
    """The file cut after each of its parts, in the middle of each, and close to both of its ends."""
    whole = b"".join(parts)
    ends = [len(b"".join(parts[: number + 1])) for number in range(len(parts))]
    middles = [end - len(part) // 2 for end, part in zip(ends, parts)]
    for cut in sorted({0, 1, 2, 3, 4, 8, 12, 20, len(whole) - 1, len(whole) - 2, *ends, *middles} - {len(whole)}):
        yield f"truncated-to-{cut}-of-{len(whole)}-bytes", whole[:cut]


# Numbers that programs are surprised by; of those that do not fit, their lowest bytes are taken.
SURPRISES = (0, 1, 15, 255, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def patched(prefix: str, base: bytes, origin: int, order: str, **fields: tuple) -> Cases:
    """One number at a time is replaced. Each field is (offset from the origin, bytes)."""
    for name, (offset, size) in fields.items():
        at = origin + offset
        for value in sorted({value % (1 << 8 * size) for value in SURPRISES}):
            changed = base[:at] + value.to_bytes(size, order) + base[at + size :]
            if changed != base:
                yield f"{prefix}-{name.replace('_', '-')}-{value}", changed


def mutated(bases: list, count: int, dice: random.Random) -> Cases:
    """Copies of valid files with up to eight stretches changed, doubled, left out or replaced."""
    for number in range(count):
        data = bytearray(bases[number % len(bases)])
        for _ in range(dice.randint(1, 8)):
            at = dice.randrange(len(data))
            old = data[at : at + dice.randint(1, 16)]
            flipped = bytes([old[0] ^ 1 << dice.randrange(8)]) + old[1:]
            data[at : at + len(old)] = dice.choice((flipped, flipped, old * 2, b"\xff", dice.randbytes(len(old))))
        yield "mutated", bytes(data)


# TIFF, and EXIF, which is a TIFF without a picture


class Entry(NamedTuple):
    """One tag's type and numbers and, where it is to lie, the count that it states."""

    kind: int
    numbers: list
    count: int | None = None


ASCII, SHORT, LONG, RATIONAL, UNDEFINED, SLONG, SRATIONAL, DOUBLE, LONG8 = 2, 3, 4, 5, 7, 9, 10, 12, 16
LETTERS = {ASCII: "B", SHORT: "H", UNDEFINED: "B", SLONG: "i", SRATIONAL: "i", DOUBLE: "d", LONG8: "Q"}
TAGS = {
    "width": 256, "height": 257, "bits": 258, "compression": 259, "photometric": 262, "offsets": 273, "rows": 278,
    "orientation": 274, "samples": 277, "counts": 279, "resolution": 282, "planar": 284, "predictor": 317,
    "palette": 320, "tile_width": 322, "tile_height": 323, "tile_offsets": 324, "tile_counts": 325, "sub_ifds": 330,
    "format": 339, "jpeg_tables": 347, "subsampling": 530, "exif": 34665, "maker": 37500,
}  # fmt: skip


def tiff_entries(**tags) -> list:
    """(Tag, entry) pairs in order, from names and numbers; a name with None is left out."""
    entries = []
    for name, value in tags.items():
        if value is not None and not isinstance(value, Entry):
            numbers = value if isinstance(value, list) else [value]
            value = Entry(SHORT if max(numbers) < 1 << 16 else LONG, numbers)
        if value is not None:
            entries.append((TAGS[name], value))
    return sorted(entries, key=lambda pair: pair[0])


def tiff_directory(entries: list, at: int, following: int, order: str, big: bool) -> bytes:
    """A directory for the offset `at`, with the values that do not fit into its entries behind it."""
    many, long, cell = ("Q", "Q", 8) if big else ("H", "I", 4)
    values_at = at + struct.calcsize("<" + many) + len(entries) * (4 + 2 * cell) + cell
    rows, values = b"", b""
    for tag, (kind, numbers, count) in entries:
        packed = struct.pack(order + LETTERS.get(kind, "I") * len(numbers), *numbers)
        if count is None:
            count = len(numbers) // 2 if kind in (RATIONAL, SRATIONAL) else len(numbers)
        fits = len(packed) <= cell
        place = packed.ljust(cell, b"\0") if fits else struct.pack(order + long, values_at + len(values))
        values += b"" if fits else packed
        rows += struct.pack(order + "HH" + long, tag, kind, count) + place
    return struct.pack(order + many, len(entries)) + rows + struct.pack(order + long, following) + values


def tiff_parts(directories: list, data: bytes = b"", order: str = "<", big: bool = False, last: int = 0) -> list:
    """Header, data (so at offset 8, in a BigTIFF 16) and the directories; `last` is where the last of them leads."""
    at = (16 if big else 8) + len(data)
    header = struct.pack(order + "HHHQ", 43, 8, 0, at) if big else struct.pack(order + "HI", 42, at)
    parts = [(b"II" if order == "<" else b"MM") + header, data]
    for number, entries in enumerate(directories):
        after = at + len(tiff_directory(entries, at, 0, order, big))
        parts.append(tiff_directory(entries, at, last if number == len(directories) - 1 else after, order, big))
        at = after
    return parts


def tiff(data: bytes = RGB, order: str = "<", big: bool = False, last: int = 0, **tags) -> bytes:
    """A TIFF of one picture, 16×16 RGB in one strip where `tags` do not say otherwise."""
    usual = {"width": 16, "height": 16, "bits": [8, 8, 8], "compression": 1, "photometric": 2, "samples": 3, "rows": 16}
    entries = tiff_entries(**{**usual, "offsets": 16 if big else 8, "counts": len(data), **tags})
    return b"".join(tiff_parts([entries], data, order, big, last))


def exif_blocks() -> Cases:
    """Contents of an EXIF block, in whatever file."""

    def block(last: int = 0, **tags) -> bytes:
        return b"".join(tiff_parts([tiff_entries(**{"orientation": 6, **tags})], last=last))

    for orientation in (0, 5, 9, 65535):
        yield f"orientation-{orientation}", block(orientation=orientation)
    for kind, numbers, count in [(ASCII, [54, 0], 2), (RATIONAL, [6, 0], 1), (255, [6], 1), (SHORT, [6], 0),
                                 (SHORT, [26, 0], 0xFFFFFFFF), (LONG, [0xFFFFFFF0], 100)]:  # fmt: skip
        yield f"orientation-of-type-{kind}-counts-{count}", block(orientation=Entry(kind, numbers, count))
    yield "circular", block(last=8)
    yield "circular-sub-ifds", block(exif=8, sub_ifds=[8] * 100)
    yield "maker-note-beyond-the-end", block(maker=Entry(UNDEFINED, [0xFF] * 4, 0x7FFFFFFF))
    yield "ifd-beyond-the-end", b"II*\0\xf0\xff\xff\xff"
    yield "ifd-of-65535-entries", b"II*\0\x08\0\0\0\xff\xff" + bytes(24)
    yield "wrong-byte-order", b"MM" + block()[2:]
    yield "cut", block()[:14]
    yield "empty", b""


def tiff_bombs() -> Cases:
    square = {"width": SIDE, "height": SIDE}
    for width, height in [(65535, 65535), (0xFFFFFFFF, 0xFFFFFFFF), (1 << 31, 2), (50_000_000, 1), (1, 50_000_000)]:
        claim = {"width": width, "height": height, "rows": height}
        yield f"claims-{width}x{height}", tiff(**claim)
        yield f"deflate-claims-{width}x{height}", tiff(zlib_zeros(MIB), compression=8, **claim)
    # The pixels are within the limit, and each has many bytes.
    for name, samples, bits, numbers in [("rgba16", 4, 16, 1), ("rgba-float32", 4, 32, 3), ("rgb-float64", 3, 64, 3)]:
        shape = {"samples": samples, "bits": [bits] * samples, "format": [numbers] * samples, "rows": SIDE}
        data = zlib_zeros(SIDE * SIDE * samples * bits // 8)
        yield f"deflate-{name}-{SQUARE}", tiff(data, compression=8, **square, **shape)
    yield "deflate-1x1-holds-512-mib", tiff(zlib_zeros(512 * MIB), width=1, height=1, rows=1, compression=8)
    grey = {**square, "samples": 1, "photometric": 1, "bits": 8}
    yield f"packbits-{SQUARE}", tiff(b"\x81\0" * (SIDE * SIDE // 128 + 1), compression=32773, rows=SIDE, **grey)
    strip = pack_high_first(lzw_zeros(256, 1, SIDE * 1000))
    # All strips are the same bytes of the file.
    yield f"lzw-{SQUARE}", tiff(strip, compression=5, offsets=[8] * 8, counts=[len(strip)] * 8, rows=1000, **grey)
    row = zlib_zeros(SIDE * 3)
    many = {"offsets": [8] * SIDE, "counts": [len(row)] * SIDE, "rows": 1, "compression": 8}
    yield f"{SIDE}-strips-at-one-place", tiff(row, **square, **many)
    many = {"offsets": [8] * 50_000, "counts": [1 << 30] * 50_000, "rows": 1}
    yield "50000-strips-of-a-claimed-gib", tiff(height=50_000, **many)
    for side in (0, 1, 15, 65520, 0x7FFFFFF0, 0xFFFFFFFF):
        tile = {"tile_width": side, "tile_height": side, "tile_offsets": 8, "tile_counts": 768}
        yield f"tile-of-{side}", tiff(offsets=None, counts=None, rows=None, **tile)


def tiff_kinds() -> Cases:
    for bits in (0, 1, 2, 3, 4, 7, 12, 16, 24, 32, 64, 128, 65535):
        yield f"grey-of-{bits}-bits", tiff(bytes(range(256)) * 16, bits=bits, samples=1, photometric=1)
        yield f"rgb-of-{bits}-bits", tiff(bytes(range(256)) * 48, bits=[bits] * 3)
    for samples in (2, 4, 5, 255):
        yield f"{samples}-samples", tiff(RGB * 8, samples=samples, bits=[8] * samples)
    for numbers in (0, 2, 3, 4, 6, 65535):
        for bits in (8, 16, 32, 64):
            yield f"format-{numbers}-of-{bits}-bits", tiff(RGB * 8, bits=[bits] * 3, format=[numbers] * 3)
    odd = struct.pack("<4f", float("nan"), float("inf"), float("-inf"), 3e38)
    yield "floats-that-are-no-numbers", tiff(odd * 192, bits=[32] * 3, format=[3] * 3)
    for photometric in (0, 1, 3, 4, 5, 6, 8, 9, 10, 32803, 32844, 34892, 65535):
        yield f"photometric-{photometric}-of-3", tiff(photometric=photometric)
        yield f"photometric-{photometric}-of-4", tiff(RGB * 2, photometric=photometric, samples=4, bits=[8] * 4)
    for compression in (0, 2, 3, 4, 5, 6, 7, 8, 9, 32773, 32946, 34712, 34887, 34925, 50000, 50001, 65535):
        yield f"compression-{compression}-of-raw-data", tiff(compression=compression)
    for size in (0, 1, 3, 767, 768, 769):
        palette = Entry(SHORT, [9] * size)
        yield f"palette-of-{size}", tiff(b"\xff" * 256, samples=1, bits=8, photometric=3, palette=palette)
    for across, down in [(0, 0), (2, 2), (3, 1), (255, 255)]:
        yield f"subsampling-{across}-{down}", tiff(photometric=6, subsampling=[across, down])
    for predictor, bits in [(0, 8), (2, 1), (2, 64), (3, 8), (3, 32), (99, 8)]:
        data = zlib.compress(RGB * 8)
        yield f"predictor-{predictor}-of-{bits}", tiff(data, compression=8, predictor=predictor, bits=[bits] * 3)
    yield "jpeg-tables-broken", tiff(jpeg(), compression=7, jpeg_tables=Entry(UNDEFINED, list(b"\xff\xd8\xff\xdb\xff")))
    claim = jpeg(65535, 65535, blocks=b"")
    yield "jpeg-claims-65535x65535", tiff(claim, compression=7, samples=1, bits=8, photometric=1)
    yield "planar", tiff(planar=2, offsets=[8, 264, 520], counts=[256] * 3)
    yield "planar-with-one-strip", tiff(planar=2)
    yield "bigtiff-big-endian", tiff(big=True, order=">")


def tiff_lies() -> Cases:
    yield "says-0x0", tiff(width=0, height=0)
    for tag in ("width", "height", "bits", "compression", "photometric", "samples", "rows", "offsets", "counts"):
        yield f"without-{tag}", tiff(**{tag: None})
        for number in SURPRISES:
            yield f"{tag}-{number}", tiff(**{tag: number})
    for tag in ("width", "offsets", "counts", "bits"):
        for count in (0, 2, 0x40000001, 0xFFFFFFFF):
            yield f"{tag}-counts-{count}", tiff(**{tag: Entry(LONG, [16], count)})
        for kind, numbers in [(ASCII, [49, 54]), (SRATIONAL, [-16, -1]), (SLONG, [-16]), (DOUBLE, [16.0]), (0, [16])]:
            yield f"{tag}-of-type-{kind}", tiff(**{tag: Entry(kind, numbers)})
    for ratio in ([0, 0], [1, 0], [-72, 1], [-(1 << 31), -1]):
        yield "resolution-odd", tiff(resolution=Entry(SRATIONAL, ratio))
    for orientation in (0, 5, 9, 65535):
        yield f"orientation-{orientation}", tiff(orientation=orientation, height=8, rows=8)
    start = 8 + len(RGB)
    usual = tiff_entries(width=16, height=16, bits=[8] * 3, photometric=2, offsets=8, samples=3, rows=16, counts=768)
    unknown = [(40000 + number, Entry(DOUBLE, [0.0])) for number in range(5000)]
    for name, directories, last in [
        ("tags-backwards", [usual[::-1]], 0), ("tags-twice", [usual + tiff_entries(width=9999, height=9999)], 0),
        ("5000-unknown-tags", [usual + unknown], 0), ("without-tags", [[]], 0), ("ifd-circular", [usual], start),
        ("ifd-circular-of-two", [usual] * 2, start), ("ifd-next-beyond-the-end", [usual], 0xFFFFFFFF),
        ("900-ifds", [usual] * 900, 0), ("900-ifds-empty", [[]] * 900 + [usual], 0),
        ("sub-ifds-circular", [usual + tiff_entries(sub_ifds=[start] * 4, exif=start)], 0),
    ]:  # fmt: skip
        yield name, b"".join(tiff_parts(directories, RGB, last=last))
    for at in (0, 4, 9, 0xFFFFFFFF):
        yield f"first-ifd-at-{at}", b"II*\0" + struct.pack("<I", at) + RGB
    yield "ifd-of-65535-entries", b"II*\0\x08\0\0\0\xff\xff" + bytes(100)
    for count in (0, 1 << 32, 1 << 63, (1 << 64) - 1):
        yield f"bigtiff-width-counts-{count}", tiff(big=True, width=Entry(LONG8, [16], count))
        yield f"bigtiff-strip-at-{count}", tiff(big=True, offsets=Entry(LONG8, [count]))
        yield f"bigtiff-first-ifd-at-{count}", b"II\x2b\0\x08\0\0\0" + struct.pack("<Q", count)
        yield f"bigtiff-of-{count}-entries", b"II\x2b\0\x08\0\0\0" + struct.pack("<QQ", 16, count) + bytes(100)


# PNG

PNG = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def png_chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int = 16, height: int = 16, depth: int = 8, colour: int = 2, rest: bytes = b"\0\0\0") -> bytes:
    """`rest` are the methods of compression, filter and interlace."""
    return png_chunk(b"IHDR", struct.pack(">IIBB", width, height, depth, colour) + rest)


def png_zeros(width: int, height: int, depth: int, colour: int, chunks: bytes = b"", interlaced: bool = False) -> bytes:
    """All pixels zero: valid where the colour type and the depth are."""
    size = 0
    for x, y, step_x, step_y in ADAM7 if interlaced else [(0, 0, 1, 1)]:
        bits = len(range(x, width, step_x)) * depth * CHANNELS.get(colour, 3)
        size += len(range(y, height, step_y)) * (1 + (bits + 7) // 8)
    header = png_header(width, height, depth, colour, bytes([0, 0, interlaced]))
    return PNG + header + chunks + png_chunk(b"IDAT", zlib_zeros(size)) + png_chunk(b"IEND")


def png_parts(*chunks: bytes, colour: int = 2, pixels: bytes | None = None, rest: bytes = b"\0\0\0") -> list:
    """The valid picture, with chunks between its header and its pixels."""
    row = 16 * CHANNELS[colour]
    rows = b"".join(b"\0" + (RGB * 2)[number * row : (number + 1) * row] for number in range(16))
    pixels = png_chunk(b"IDAT", zlib.compress(rows) if pixels is None else pixels)
    return [PNG, png_header(colour=colour, rest=rest), *chunks, pixels, png_chunk(b"IEND")]


def png(*chunks: bytes, **options) -> bytes:
    return b"".join(png_parts(*chunks, **options))


def png_bombs() -> Cases:
    yield "zeros-grey1-60000x60000", png_zeros(60000, 60000, 1, 0)
    yield "zeros-grey8-60000x60000", png_zeros(60000, 60000, 8, 0)
    yield "interlaced-grey1-60000x60000", png_zeros(60000, 60000, 1, 0, interlaced=True)
    yield f"zeros-rgba16-{SQUARE}", png_zeros(SIDE, SIDE, 16, 6)
    yield f"interlaced-rgba16-{SQUARE}", png_zeros(SIDE, SIDE, 16, 6, interlaced=True)
    for side in (65535, 65536, 50_000_000):
        yield f"one-row-{side}x1", png_zeros(side, 1, 8, 0)
        yield f"one-column-1x{side}", png_zeros(1, side, 8, 0)
    most = 0x7FFFFFFF
    for width, height in [(most, 1), (1, most), (most, most), (0xFFFFFFFF, 0xFFFFFFFF), (0x80000000, 1)]:
        header = png_header(width, height, 16, 6)
        yield f"claims-{width}x{height}", PNG + header + png_chunk(b"IDAT", zlib_zeros(64 * MIB)) + png_chunk(b"IEND")
    yield "16x16-holds-1-gib", png(pixels=zlib_zeros(1024 * MIB))
    yield "20000-empty-idat", png(png_chunk(b"IDAT") * 20_000)
    frame = struct.pack(">IIIIIHHBB", 0, most, most, 0, 0, 1, 0, 9, 9)
    yield "animation-of-giants", png(png_chunk(b"acTL", struct.pack(">II", most, 0)), png_chunk(b"fcTL", frame))


def png_colours() -> Cases:
    for colour in range(8):
        for depth in (1, 2, 4, 8, 16):
            palette = png_chunk(b"PLTE", bytes(range(96))) if colour == 3 else b""
            yield f"colour-type-{colour}-depth-{depth}", png_zeros(5, 3, depth, colour, palette)
    for depth in (0, 3, 7, 32, 255):
        yield f"depth-{depth}", png_zeros(16, 16, depth, 0)
    full = png_chunk(b"PLTE", bytes(768))
    yield "palette-missing", png(colour=3)
    for size in (0, 1, 3, 4, 30, 771, 60_000):  # The indices go up to 255.
        yield f"palette-of-{size}-bytes", png(png_chunk(b"PLTE", bytes(size)), colour=3)
    for colour in CHANNELS:
        for size in (0, 1, 2, 6, 7, 257):
            chunks = [full] if colour == 3 else []
            transparency = png_chunk(b"tRNS", bytes(size))
            yield f"transparency-of-{size}-bytes-colour-type-{colour}", png(*chunks, transparency, colour=colour)


def png_lies() -> Cases:
    signature, *chunks = png_parts(png_chunk(b"tEXt", b"Title\0plain"))
    for width, height in [(0, 0), (0, 16), (16, 0), (17, 16), (16, 17), (1, 1), (1000, 1000)]:
        yield f"says-{width}x{height}", signature + png_header(width, height) + b"".join(chunks[1:])
    for number, name in enumerate(("header", "text", "pixels", "end")):
        before, chunk, after = signature + b"".join(chunks[:number]), chunks[number], b"".join(chunks[number + 1 :])
        for length in (len(chunk) // 4 - 3, len(chunk) - 11, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
            yield f"length-of-{name}-{length}", before + struct.pack(">I", length) + chunk[4:] + after
        yield f"checksum-of-{name}", before + chunk[:-1] + bytes([chunk[-1] ^ 1]) + after
        yield f"without-{name}", before + after
        yield f"twice-{name}", before + chunk * 2 + after
    yield "chunks-backwards", signature + b"".join(chunks[::-1])
    yield "header-short", signature + png_chunk(b"IHDR", bytes(12)) + b"".join(chunks[1:])
    yield "signature-as-text", b"\x89PNG\n\x1a\n" + b"".join(chunks)
    yield "unknown-critical-chunk", png(png_chunk(b"HACK", b"x"))
    yield "chunk-name-not-letters", png(png_chunk(b"\0\xff\n ", b"x"))
    for rest in (b"\1\0\0", b"\0\1\0", b"\0\0\1", b"\0\0\2", b"\xff\xff\xff"):
        yield f"methods-{rest.hex()}", png(rest=rest)
    for kind in (1, 2, 3, 4, 5, 255):
        yield f"filter-{kind}", png(pixels=zlib.compress((bytes([kind]) + b"\xff" * 48) * 16))
    data = zlib.compress(bytes(49 * 16))
    for name, pixels in {
        "wrong-checksum": data[:-1] + b"\x99", "without-end": data[:-6], "wrong-header": b"\0\0" + data[2:],
        "dictionary": b"\x78\xbb\1\2\3\4" + data[2:], "block-of-type-3": b"\x78\xda\x07\0\0", "nothing": b"",
        "distance-too-far": b"\x78\xda" + pack_low_first([(1, 1), (1, 2), (0x40, 7), (0x1F, 5)]) + bytes(9),
        "then-garbage": data + bytes(range(256)) * 40, "stored": zlib.compress(bytes(49 * 16), 0),
    }.items():  # fmt: skip
        yield f"zlib-{name}", png(pixels=pixels)
    # Changed before the checksums are made, so that they do not give it away.
    dice, rows = random.Random("hostile png pixels"), (b"\1" + RGB[:48] + b"\4" + RGB[48:96]) * 8
    for what, pixels in mutated([zlib.compress(rows)], 30, dice):
        yield f"{what}-zlib", png(pixels=pixels)
    for what, changed in mutated([rows], 10, dice):
        yield f"{what}-rows", png(pixels=zlib.compress(changed))


def png_metadata() -> Cases:
    for kind, start in {b"zTXt": b"Comment\0\0", b"iTXt": b"Comment\0\1\0\0\0", b"iCCP": b"profile\0\0"}.items():
        name = kind.decode().lower()
        yield f"{name}-256-mib", png(png_chunk(kind, start + zlib_zeros(256 * MIB)))
        yield f"{name}-empty", png(png_chunk(kind))
        yield f"{name}-without-end-of-key", png(png_chunk(kind, b"k" * 200))
        yield f"{name}-zlib-broken", png(png_chunk(kind, start + b"\xff" * 9))
    yield "ztxt-16-mib-20-times", png(png_chunk(b"zTXt", b"Comment\0\0" + zlib_zeros(16 * MIB)) * 20)
    yield "text-of-2-mib", png(png_chunk(b"tEXt", b"Comment\0" + b"a" * 2 * MIB))
    yield "20000-texts", png(png_chunk(b"tEXt", b"Comment\0a") * 20_000)
    yield "20000-unknown-chunks", png(png_chunk(b"juNk", b"a") * 20_000)
    for kind in ("gAMA", "cHRM", "sRGB", "pHYs", "sBIT", "bKGD", "tIME", "hIST", "cICP", "sPLT"):
        yield f"{kind.lower()}-of-zeros", png(png_chunk(kind.encode(), bytes(32)))
        yield f"{kind.lower()}-empty", png(png_chunk(kind.encode()))
    for name, block in exif_blocks():
        yield f"exif-{name}", png(png_chunk(b"eXIf", block))


# JPEG

SOF0, SOF2, SOF3, SOF9, DHT, DAC, SOS, DQT, DNL, DRI = 0xC0, 0xC2, 0xC3, 0xC9, 0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD
APP0, APP1, APP2, APP14, COM = 0xE0, 0xE1, 0xE2, 0xEE, 0xFE
# The standard's tables for brightness (annex K): how many codes there are of each length, and what they stand for.
DC_CODES = bytes.fromhex("00010501010101010100000000000000 000102030405060708090a0b")
AC_CODES = bytes.fromhex(
    "0002010303020403050504040000017d"
    "01020300041105122131410613516107227114328191a1082342b1c11552d1f02433627282090a161718191a25262728292a34353637"
    "38393a434445464748494a535455565758595a636465666768696a737475767778797a838485868788898a92939495969798999aa2a3"
    "a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2e3e4e5e6e7e8e9eaf1f2f3f4f5f6f7f8f9fa"
)
FLAT_BLOCK = (0b001010, 6)  # No change of brightness, and the end of the block.


def jpeg_segment(marker: int, content: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2 if length is None else length) + content


def jpeg_scan(ids: Iterable[int] = (1,), rest: bytes = b"\0\x3f\0") -> bytes:
    """`rest` are the first and the last coefficient and the bits of their precision."""
    pairs = [bytes([number, 0]) for number in ids]
    return jpeg_segment(SOS, bytes([len(pairs)]) + b"".join(pairs) + rest)


def jpeg_bits(fields: list) -> bytes:
    return pack_high_first(fields, fill="1").replace(b"\xff", b"\xff\0")


def jpeg_parts(width=16, height=16, factors: tuple = (0x11,), sof: int = SOF0, precision: int = 8, **parts) -> dict:
    """A flat picture with a component for each of the sampling factors; `parts` replaces some of it."""
    ids = [(number + 1) % 256 for number in range(len(factors))]
    components = b"".join(bytes([number, factor, 0]) for number, factor in zip(ids, factors))
    columns = -(-width // (8 * max([1, *(factor >> 4 for factor in factors)])))
    rows = -(-height // (8 * max([1, *(factor & 15 for factor in factors)])))
    blocks = columns * rows * sum((factor >> 4) * (factor & 15) for factor in factors)
    usual = {
        "start": b"\xff\xd8",
        "application": b"" if len(factors) == 4 else jpeg_segment(APP0, b"JFIF\0\1\1\0\0\1\0\1\0\0"),
        "quantisation": jpeg_segment(DQT, b"\0" + bytes([16] * 64)),
        "frame": jpeg_segment(sof, struct.pack(">BHHB", precision, height, width, len(factors)) + components),
        "huffman": jpeg_segment(DHT, b"\x00" + DC_CODES) + jpeg_segment(DHT, b"\x10" + AC_CODES),
        "scan": jpeg_scan(ids),
        # Four flat blocks fill three bytes. The data may be given, and then the size may be any.
        "blocks": b"" if "blocks" in parts else jpeg_bits([FLAT_BLOCK] * 4) * (blocks // 4),
        "end": b"\xff\xd9",
    }
    usual["blocks"] += jpeg_bits([FLAT_BLOCK] * (blocks % 4))
    return {**usual, **parts}


def jpeg(*args, **parts) -> bytes:
    return b"".join(jpeg_parts(*args, **parts).values())


def jpeg_progressive(width: int, height: int, scans: int) -> bytes:
    """A progressive picture whose scans pass over all of its blocks again and again, in some bytes each."""
    blocks = -(-width // 8) * -(-height // 8)
    # The only code is one bit, and the 14 bits behind it make it a run of up to 32767 empty blocks.
    one_code = jpeg_segment(DHT, b"\x00" + DC_CODES) + jpeg_segment(DHT, b"\x10\1" + bytes(15) + b"\xe0")
    again = jpeg_scan(rest=b"\1\x3f\0") + jpeg_bits([((1 << 14) - 1, 15)] * (blocks // 32767 + 1))
    data = bytes(-(-blocks // 4)) + again * (scans - 1)
    return jpeg(width, height, sof=SOF2, huffman=one_code, scan=jpeg_scan(rest=b"\0\0\0"), blocks=data)


def jpeg_bombs() -> Cases:
    # 0xC0 baseline, 0xC1 with 12 bits, 0xC2 progressive, 0xC3 lossless, 0xC9 to 0xCF arithmetic.
    for sof in sorted(set(range(0xC0, 0xD0)) - {DHT, 0xC8, DAC}):
        yield f"sof-{sof:x}-claims-65535x65535", jpeg(65535, 65535, (0x11,) * 3, sof, blocks=bytes(99))
        yield f"sof-{sof:x}", jpeg(sof=sof)
        yield f"sof-{sof:x}-of-12-bits", jpeg(sof=sof, precision=12)
    for width, height in [(65500, 1), (1, 65500), (65500, 763), (65535, 762)]:
        yield f"flat-grey-{width}x{height}", jpeg(width, height)
    yield f"flat-colour-{SQUARE}", jpeg(SIDE, SIDE, (0x22, 0x11, 0x11))
    # Some hundred bytes and a proper end: a decoder that only warns of missing data fills 50 million pixels.
    for name, factors in {"grey": (0x11,), "colour": (0x22, 0x11, 0x11), "cmyk": (0x11,) * 4}.items():
        progressive = {"sof": SOF2, "scan": jpeg_scan(rest=b"\0\0\0")}
        yield f"no-data-{name}-{SQUARE}", jpeg(SIDE, SIDE, factors, blocks=b"")
        yield f"no-data-progressive-{name}-{SQUARE}", jpeg(SIDE, SIDE, factors, blocks=b"", **progressive)
        yield f"no-data-arithmetic-{name}-{SQUARE}", jpeg(SIDE, SIDE, factors, SOF9, blocks=b"")
    for scans in (100, 101, 5000):
        yield f"progressive-{scans}-scans-16x16", jpeg_progressive(16, 16, scans)
        yield f"progressive-{scans}-scans-{SQUARE}", jpeg_progressive(SIDE, SIDE, scans)
    yield "baseline-2000-scans", jpeg(blocks=(jpeg_bits([FLAT_BLOCK] * 4) + jpeg_scan()) * 2000)
    yield "arithmetic-conditioning-odd", jpeg(sof=SOF9, huffman=jpeg_segment(DAC, bytes.fromhex("00ff10ff2000")))
    for precision in (1, 2, 7, 9, 16, 17):
        yield f"lossless-precision-{precision}", jpeg(sof=SOF3, precision=precision, scan=jpeg_scan(rest=b"\1\0\0"))


def jpeg_lies() -> Cases:
    parts = jpeg_parts()
    for sof, rest in [(SOF0, b"\0\x3f\0"), (SOF2, b"\0\0\0")]:
        base = jpeg(16, 16, (0x22, 0x11, 0x11), sof, scan=jpeg_scan([1, 2, 3], rest))
        for name, marker, fields in [
            ("application", APP0, {}), ("quantisation", DQT, {"table": (4, 1)}),
            ("huffman", DHT, {"table": (4, 1), "codes": (5, 1)}),
            ("frame", sof, {"precision": (4, 1), "height": (5, 2), "width": (7, 2), "components": (9, 1), "id": (10, 1),
                            "sampling": (11, 1), "table": (12, 1)}),
            ("scan", SOS, {"components": (4, 1), "id": (5, 1), "table": (6, 1), "first": (11, 1), "last": (12, 1),
                           "bits": (13, 1)}),
        ]:  # fmt: skip
            at = base.index(bytes([0xFF, marker]))
            yield from patched(f"sof-{sof:x}-{name}", base, at, "big", length=(2, 2), **fields)
    for name in ("application", "quantisation", "frame", "huffman", "scan"):
        yield f"without-{name}", jpeg(**{name: b""})
        yield f"twice-{name}", jpeg(**{name: parts[name] * 2})
        yield f"1000-times-{name}", jpeg(**{name: parts[name] * 1000})
    yield "says-0x0", jpeg(0, 0, blocks=parts["blocks"])
    for height in (0, 16, 65535):
        later = jpeg_segment(DNL, struct.pack(">H", height))
        yield f"says-{height}-rows-behind-the-scan", jpeg(16, 0, blocks=parts["blocks"] + later)
    for factors in ("00", "01", "10", "ff", "f1", "55", "444444", "112222", "311223", "411114", "220011", "ff11ff"):
        yield f"sampling-{factors}", jpeg(64, 64, tuple(bytes.fromhex(factors)))
    for count in (0, 2, 4, 5, 10, 11, 255):
        yield f"{count}-components", jpeg(64, 64, (0x11,) * count)
        yield f"{count}-components-in-scan", jpeg(scan=jpeg_scan(range(1, count + 1)))
    yield "component-thrice-in-scan", jpeg(16, 16, (0x11,) * 3, scan=jpeg_scan([1, 1, 1]))
    for interval in (0, 1, 3, 65535):
        restart = jpeg_segment(DRI, struct.pack(">H", interval))
        yield f"restart-{interval}-without-marks", jpeg(application=restart)
        yield f"restart-{interval}-out-of-order", jpeg(application=restart, blocks=b"\x2b\xff\xd5\x2b\xff\xd0\x2b")
        yield f"restart-{interval}-only-marks", jpeg(application=restart, blocks=b"\xff\xd0\xff\xd1" * 5000)


def jpeg_tables_and_data() -> Cases:
    for name, table in {"short": b"\0\1\1", "of-zeros": bytes(65), "of-16-bits": b"\x10" + bytes([1] * 128)}.items():
        yield f"quantisation-{name}", jpeg(quantisation=jpeg_segment(DQT, table))
    dc, ac = jpeg_segment(DHT, b"\0" + DC_CODES), jpeg_segment(DHT, b"\x10" + AC_CODES)
    for name, table in {
        "without-codes": bytes(16), "short": AC_CODES[:20], "too-many": b"\xff" * 16 + bytes(255), "empty": b"",
        "over-full": b"\3" + bytes(15) + b"\0\1\2", "all-ones": b"\2" + bytes(15) + b"\0\1",
        "symbols-of-255": b"\0\3" + bytes(14) + b"\xff" * 3, "of-16-bits": bytes(15) + b"\xff" + bytes(255),
    }.items():  # fmt: skip
        yield f"huffman-dc-{name}", jpeg(huffman=jpeg_segment(DHT, b"\x00" + table) + ac)
        yield f"huffman-ac-{name}", jpeg(huffman=dc + jpeg_segment(DHT, b"\x10" + table))
    noise = random.Random("hostile jpeg data").randbytes(5000).replace(b"\xff", b"\xfe")
    for name, blocks in {"of-zeros": bytes(5000), "of-ones": b"\xff\0" * 5000, "none": b"", "of-noise": noise,
                         "of-fill-bytes": b"\xff" * 5000, "with-start": b"\x28\xff\xd8\xff\xd8"}.items():  # fmt: skip
        yield f"data-{name}", jpeg(64, 64, (0x22, 0x11, 0x11), blocks=blocks)
        yield f"data-{name}-arithmetic", jpeg(64, 64, sof=SOF9, blocks=blocks)
        yield f"data-{name}-lossless", jpeg(64, 64, sof=SOF3, blocks=blocks, scan=jpeg_scan(rest=b"\1\0\0"))
        yield f"data-{name}-progressive", jpeg(64, 64, sof=SOF2, blocks=blocks, scan=jpeg_scan(rest=b"\0\0\0"))
        yield f"data-{name}-without-end", jpeg(64, 64, blocks=blocks, end=b"")
    yield "start-then-end", b"\xff\xd8\xff\xd9"
    yield "without-start", jpeg(start=b"")
    yield "fill-bytes-of-1-mib", jpeg(start=b"\xff\xd8" + b"\xff" * MIB)
    yield "garbage-between-segments", jpeg(application=bytes(range(200)) * 100)
    yield "scan-before-frame", jpeg(quantisation=jpeg_scan(), huffman=b"", scan=b"")


def jpeg_metadata() -> Cases:
    all_kinds = b"".join(jpeg_segment(APP0 + number, b"x") for number in range(16))
    yield "5120-application-segments", jpeg(application=all_kinds * 320)
    yield "20-comments-of-64-kib", jpeg(application=jpeg_segment(COM, b"x" * 65533) * 20)
    yield "20000-empty-comments", jpeg(application=jpeg_segment(COM) * 20_000)
    for name, pieces in {
        "0-of-0": [(0, 0)], "9-of-2": [(9, 2)], "1-of-255": [(1, 255)], "1-of-2-twice": [(1, 2)] * 2,
        "counts-disagree": [(1, 2), (2, 9)], "all-of-255": [(number, 255) for number in range(1, 256)],
    }.items():  # fmt: skip
        segments = [jpeg_segment(APP2, b"ICC_PROFILE\0" + bytes(piece) + bytes(500)) for piece in pieces]
        yield f"icc-{name}", jpeg(application=b"".join(segments))
    yield "icc-says-4-gib", jpeg(application=jpeg_segment(APP2, b"ICC_PROFILE\0\1\1\xff\xff\xff\xff" + bytes(124)))
    for name, block in exif_blocks():
        # Twice as wide as high, so that a turn shows.
        yield f"exif-{name}", jpeg(32, 16, application=jpeg_segment(APP1, b"Exif\0\0" + block))
    yield "exif-runs-past-the-end", jpeg(application=jpeg_segment(APP1, b"Exif\0\0II*\0", length=0xFFFF))
    for transform in (0, 1, 2, 255):
        adobe = jpeg_segment(APP14, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))
        for count in (1, 2, 3, 4):
            yield f"adobe-{transform}-of-{count}", jpeg(16, 16, (0x11,) * count, application=adobe)
    yield "adobe-cut", jpeg(16, 16, (0x11,) * 4, application=jpeg_segment(APP14, b"Adobe"))
    yield "jfif-thumbnail-255x255", jpeg(application=jpeg_segment(APP0, b"JFIF\0\1\2\0\0\0\0\0\xff\xff"))


# GIF. With 128 colours a code is 8 bits until the table grows, so that each pixel's code is its own byte.

GREYS = bytes(value for grey in range(128) for value in (grey * 2,) * 3)
GIF_CLEAR, GIF_END = b"\x80", b"\x81"


def gif_blocks(data: bytes) -> bytes:
    pieces = [data[at : at + 255] for at in range(0, len(data), 255)]
    return b"".join(bytes([len(piece)]) + piece for piece in pieces) + b"\0"


def gif_screen(width: int = 16, height: int = 16, table: bytes = GREYS, background: int = 0) -> bytes:
    flags = 0x80 | ((len(table) // 3).bit_length() - 2) if table else 0
    return b"GIF89a" + struct.pack("<HHBBB", width, height, flags, background, 0) + table


def gif_pixels(pixels: bytes) -> bytes:
    """Cleared every 100 pixels, before the codes become longer."""
    return b"".join(GIF_CLEAR + pixels[at : at + 100] for at in range(0, len(pixels), 100)) + GIF_END


def gif_frame(width=16, height=16, data=gif_pixels(GREY), left=0, top=0, flags=0, table=b"", code_size=7) -> bytes:
    place = struct.pack("<cHHHHB", b",", left, top, width, height, flags)
    return place + table + bytes([code_size]) + gif_blocks(data)


def gif(*parts: bytes, screen: bytes = gif_screen()) -> bytes:
    return screen + b"".join(parts) + b";"


def gif_zeros(pixels: int) -> bytes:
    """A full table, whose last code, 4095, is 3967 zeros in twelve bits of one: as many of them as are needed."""
    return pack_low_first(lzw_zeros(128, 0)) + b"\xff" * (pixels // 3967 * 3 // 2 + 3)


def gif_bombs() -> Cases:
    for width, height in [(65535, 65535), (SIDE, SIDE), (65535, 762), (65535, 1), (1, 65535)]:
        screen, dot = gif_screen(width, height), gif_frame(1, 1, gif_pixels(b"\0"))
        yield f"zeros-{width}x{height}", gif(gif_frame(width, height, gif_zeros(width * height)), screen=screen)
        yield f"screen-{width}x{height}-frame-1x1", gif(dot, screen=screen)
        frame = gif_frame(width, height, gif_zeros(MIB))
        yield f"screen-1x1-frame-{width}x{height}", gif(frame, screen=gif_screen(1, 1))
    lines = gif_frame(SIDE, SIDE, gif_zeros(SIDE * SIDE), flags=0x40)
    yield f"interlaced-{SQUARE}", gif(lines, screen=gif_screen(SIDE, SIDE))
    yield "16x16-holds-1-billion", gif(gif_frame(data=gif_zeros(10**9)))
    yield "5000-frames", gif(gif_frame(1, 1, gif_pixels(b"\1")) * 5000)
    yield "clear-codes-of-1-mib", gif(gif_frame(data=GIF_CLEAR * MIB))
    yield "comment-of-1-mib", gif(b"\x21\xfe" + gif_blocks(b"x" * MIB), gif_frame())
    yield "20000-extensions", gif(b"\x21\xfe\0" * 20_000, gif_frame())


def gif_lies() -> Cases:
    noise = random.Random("hostile gif data").randbytes(3000)
    control, plain = b"\x21\xf9\x04\0\x0a\0\0\0", gif_frame()
    start = 13 + len(GREYS)
    yield from patched("screen", gif(plain), 6, "little", width=(0, 2), height=(2, 2), flags=(4, 1), background=(5, 1))
    yield from patched("control", gif(control, plain), start, "little", size=(2, 1), flags=(3, 1), transparent=(6, 1))
    place = {"left": (1, 2), "top": (3, 2), "width": (5, 2), "height": (7, 2), "flags": (9, 1)}
    yield from patched("frame", gif(plain), start, "little", **place, code_size=(10, 1), block_size=(11, 1))
    for size in (2, 8, 9, 11, 12, 13):
        yield f"code-size-{size}", gif(gif_frame(code_size=size))
    yield "says-0x0", gif(gif_frame(0, 0), screen=gif_screen(0, 0))
    yield "without-tables", gif(plain, screen=gif_screen(table=b""))
    yield "index-beyond-table", gif(plain, screen=gif_screen(table=bytes(6), background=255))
    for name, data in {
        "none": b"", "end-at-once": GIF_CLEAR + GIF_END, "without-clear": GREY, "without-end": gif_pixels(GREY)[:-1],
        "code-beyond-table": GIF_CLEAR + b"\xff" * 300, "first-code-unknown": GIF_CLEAR + b"\xf0" * 9, "noise": noise,
    }.items():  # fmt: skip
        yield f"data-{name}", gif(gif_frame(data=data))
        yield f"data-{name}-interlaced", gif(gif_frame(data=data, flags=0x40))
    yield "version-88a", gif(plain).replace(b"89a", b"88a", 1)
    yield "without-frame", gif()
    yield "unknown-block", gif(b"\x99", plain)
    yield "unknown-extension", gif(b"\x21\x77" + gif_blocks(noise), plain)
    yield "extension-without-end", gif(b"\x21\xfe" + b"\xffx" * 3000)
    yield "only-controls", gif(control * 3000)
    yield "loop-cut", gif(b"\x21\xff\x0bNETSCAPE2.0\x03", plain)


# BMP


def bmp_info(width=16, height=16, bits=24, compression=0, size=40, colours=0, rest=b"") -> bytes:
    numbers = (size, width, height, 1, bits, compression, 0, 2835, 2835, colours, 0)
    return struct.pack("<IiiHHIIiiII", *numbers) + rest


def bmp(info: bytes = bmp_info(), pixels: bytes = RGB, palette: bytes = b"") -> bytes:
    offset = 14 + len(info) + len(palette)
    return struct.pack("<2sIHHI", b"BM", offset + len(pixels), 0, 0, offset) + info + palette + pixels


def bmp_bombs() -> Cases:
    most, least = (1 << 31) - 1, -(1 << 31)
    for width, height in [(65535, 65535), (SIDE, SIDE), (most, 1), (1, most), (most, most), (least, 1), (1, least)]:
        yield f"claims-{width}x{height}".replace("-2", "minus-2"), bmp(bmp_info(width, height))
    for bits, compression in [(8, 1), (4, 2)]:
        palette, rle = bytes(4 << bits), {"bits": bits, "compression": compression}
        row = b"\xff\0" * (SIDE // 255) + bytes([SIDE % 255, 0]) + b"\0\0"
        yield f"rle{bits}-{SQUARE}", bmp(bmp_info(SIDE, SIDE, **rle), row * SIDE + b"\0\1", palette)
        # All pixels are left out.
        yield f"rle{bits}-ends-at-once-{SQUARE}", bmp(bmp_info(SIDE, SIDE, **rle), b"\0\1", palette)
        yield f"rle{bits}-claims-65535x65535", bmp(bmp_info(65535, 65535, **rle), b"\xff\0" * 9999, palette)
        yield f"rle{bits}-top-down", bmp(bmp_info(16, -16, **rle), b"\x10\0\0\0" * 16 + b"\0\1", palette)
        for name, data in {
            "without-end": b"\x10\0\0\0" * 16, "run-past-the-row": b"\xff\1" * 100, "rows-past-the-end": b"\0\0" * 5000,
            "jump-outside": b"\0\2\xff\xff" * 100 + b"\5\1\0\1", "jump-cut": b"\0\2\xff", "one-byte": b"\5",
            "literal-past-the-row": b"\0\xff" + bytes(256), "literal-cut": b"\0\xff\1\2", "run-of-0": b"\0\0\0\1",
            "index-255": b"\x10\xff" * 16, "jumps-on-the-spot": b"\0\2\0\0" * 99_999 + b"\0\1",
        }.items():  # fmt: skip
            yield f"rle{bits}-{name}", bmp(bmp_info(**rle), data, palette)


def bmp_kinds() -> Cases:
    for bits in (1, 2, 3, 4, 8, 12, 16, 24, 32, 48):
        palette = bytes(range(256)) * 4 if bits <= 8 else b""
        yield f"{bits}-bits", bmp(bmp_info(bits=bits), RGB * 3, palette)
        yield f"{bits}-bits-top-down", bmp(bmp_info(13, -15, bits=bits), RGB * 3, palette)
    for compression in (2, 4, 5, 6, 11, 12, 13):
        yield f"compression-{compression}-of-24-bits", bmp(bmp_info(compression=compression))
    yield "jpeg-inside", bmp(bmp_info(bits=0, compression=4), jpeg())
    yield "png-inside", bmp(bmp_info(bits=0, compression=5), png())
    for name, masks in {
        "usual": (0xF800, 0x7E0, 0x1F, 0), "zero": (0, 0, 0, 0), "all-ones": (0xFFFFFFFF,) * 4, "one-bit": (1, 2, 4, 8),
        "with-holes": (0xA0A0A0A0, 0x5050505, 0x11, 0x8), "overlapping": (0xFF00, 0xFF0, 0xFF, 0xF),
        "high-bit": (1 << 31,) * 4, "of-31-bits": (0x7FFFFFFF, 1, 1, 1),
    }.items():  # fmt: skip
        for bits in (16, 24, 32):
            packed = struct.pack("<4I", *masks)
            yield f"masks-{name}-of-{bits}-bits", bmp(bmp_info(bits=bits, compression=3), RGB * 2, packed[:12])
            version4 = bmp_info(bits=bits, compression=3, size=108, rest=packed + bytes(52))
            yield f"masks-{name}-of-{bits}-bits-version-4", bmp(version4, RGB * 2)
    yield "masks-cut", bmp(bmp_info(bits=32, compression=3), b"\xff\xff")
    for bits in (1, 4, 8, 24):
        core = struct.pack("<IHHHH", 12, 16, 16, 1, bits)
        yield f"os2-of-{bits}-bits", bmp(core, RGB, bytes(3 << bits if bits < 24 else 0))
    yield "os2-claims-65535x65535", bmp(struct.pack("<IHHHH", 12, 65535, 65535, 1, 24))
    yield "os2-version-2", bmp(bmp_info(size=64, rest=bytes(24)))
    profile = struct.pack("<IIII", 0, 0xFFFFFFF0, 0xFFFFFFFF, 0)
    yield "version-5", bmp(bmp_info(size=124, rest=bytes(84)))
    yield "version-5-profile-beyond-the-end", bmp(bmp_info(size=124, rest=bytes(16) + b"DEBM" + bytes(48) + profile))


def bmp_lies() -> Cases:
    fields = {
        "file_size": (2, 4), "pixels_at": (10, 4), "header_size": (14, 4), "width": (18, 4), "height": (22, 4),
        "planes": (26, 2), "bits": (28, 2), "compression": (30, 4), "image_size": (34, 4), "colours": (46, 4),
    }  # fmt: skip
    yield from patched("rgb", bmp(), 0, "little", **fields)
    yield from patched("palette", bmp(bmp_info(bits=8), b"\xff" * 256, bytes(1024)), 0, "little", **fields)
    for size in (11, 12, 16, 39, 41, 52, 56, 107, 125):
        yield f"header-of-{size}-bytes", bmp(bmp_info(size=size))
    for width, height in [(0, 0), (0, 16), (16, 0), (-16, 16), (-16, -16), (1000, 16), (16, 1000)]:
        yield "says-" + f"{width}x{height}".replace("-", "minus-"), bmp(bmp_info(width, height))
    for colours in (0, 1, 2, 257):
        yield f"palette-of-4-says-{colours}", bmp(bmp_info(bits=8, colours=colours), b"\xff" * 256, bytes(16))
    yield "palette-past-the-end", bmp(bmp_info(bits=8, colours=256), b"", bytes(3))


# WebP


def webp_chunk(kind: bytes, data: bytes = b"") -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def webp_parts(*chunks: bytes) -> list:
    return [b"RIFF" + struct.pack("<I", 4 + sum(map(len, chunks))) + b"WEBP", *chunks]


def webp(*chunks: bytes) -> bytes:
    return b"".join(webp_parts(*chunks))


def three_bytes(*numbers: int) -> bytes:
    return b"".join(struct.pack("<I", number & 0xFFFFFF)[:3] for number in numbers)


def lossy(width: int = 16, height: int = 16, sizes: tuple = (300, 300)) -> bytes:
    """A key frame. Its data are zeros, which the decoder reads as the first choice everywhere: flat."""
    header = three_bytes(sizes[0] << 5 | 0x10) + b"\x9d\x01\x2a" + struct.pack("<HH", width, height)
    return webp_chunk(b"VP8 ", header + bytes(sum(sizes)))


def symbol(value: int) -> list:
    """A prefix code of one symbol, which then takes no bits at all."""
    return [(1, 1), (0, 1), (1, 1), (value, 8)]


NO = [(0, 1)]
ONE_COLOUR = symbol(128) + symbol(64) + symbol(32) + symbol(255) + symbol(0)
# No transform, no colour cache, one group of codes; the pixels take no bits.
FLAT = NO * 3 + ONE_COLOUR
# Two shades of green, one bit for each pixel.
CHECKED = NO * 3 + [(1, 1), (1, 1), (1, 1), (40, 8), (200, 8)] + ONE_COLOUR[4:] + [(0x0F0F00FF, 32)] * 8


def lossless(width: int = 16, height: int = 16, fields: list = CHECKED, tail: bytes = b"\0\0") -> bytes:
    header = [(0x2F, 8), (width - 1, 14), (height - 1, 14), (1, 1), (0, 3)]
    return webp_chunk(b"VP8L", pack_low_first(header + fields) + tail)


def canvas(flags: int = 0, width: int = 16, height: int = 16) -> bytes:
    """Flags: 2 animation, 4 XMP, 8 EXIF, 16 alpha, 32 ICC."""
    return webp_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + three_bytes(width - 1, height - 1))


def frame(picture: bytes, width: int = 16, height: int = 16, x: int = 0, y: int = 0) -> bytes:
    return webp_chunk(b"ANMF", three_bytes(x, y, width - 1, height - 1, 100) + b"\0" + picture)


ANIMATION, ALPHA = webp_chunk(b"ANIM", bytes(6)), webp_chunk(b"ALPH", b"\0" + GREY)


def webp_bombs() -> Cases:
    large = lossy(SIDE, SIDE, (200_000, 300_000))
    for width, height in [(16384, 16384), (SIDE, SIDE), (16384, 1), (1, 16384)]:
        yield f"lossless-flat-{width}x{height}", webp(lossless(width, height, FLAT))
    yield "lossy-16383x16383", webp(lossy(16383, 16383, (500_000, 900_000)))
    yield "lossy-16383x16383-of-nothing", webp(lossy(16383, 16383, (10, 10)))
    yield f"lossy-{SQUARE}", webp(large)
    alpha = webp_chunk(b"ALPH", b"\1" + pack_low_first(FLAT))
    yield f"alpha-compressed-{SQUARE}", webp(canvas(16, SIDE, SIDE), alpha, large)
    for width, height in [(1 << 24, 1 << 24), (65536, 65535), (1 << 24, 255), (SIDE, SIDE)]:
        yield f"canvas-{width}x{height}", webp(canvas(0, width, height), lossy())
        yield f"canvas-{width}x{height}-animated", webp(canvas(2, width, height), ANIMATION, frame(lossless()))
        giant = frame(lossless(), width, height)
        yield f"canvas-{width}x{height}-frame-too", webp(canvas(2, width, height), ANIMATION, giant)
    yield "5000-frames", webp(canvas(2), ANIMATION, frame(lossless()) * 5000)
    giant = frame(lossless(SIDE, SIDE, FLAT), SIDE, SIDE)
    yield f"1000-frames-of-{SQUARE}", webp(canvas(2, SIDE, SIDE), ANIMATION, giant * 1000)
    # All blocks name the last of 65536 groups of codes, so that there have to be as many.
    groups = NO * 2 + [(1, 1), (0, 3)] + NO + symbol(255) + symbol(255) + symbol(0) * 3
    yield "lossless-65536-groups-cut", webp(lossless(fields=groups + ONE_COLOUR))
    all_groups = int.from_bytes(pack_low_first(ONE_COLOUR * 8) * 8192, "little")
    yield "lossless-65536-groups", webp(lossless(fields=groups + [(all_groups, 55 * 65536)]))
    yield "20000-unknown-chunks", webp(canvas(), webp_chunk(b"junk") * 20_000, lossless())
    yield "profile-of-1-mib", webp(canvas(32), webp_chunk(b"ICCP", bytes(MIB)), lossless())


def webp_lossless() -> Cases:
    inner = NO + ONE_COLOUR  # A picture inside of the picture: no colour cache, five codes.
    predictor, colour, green, palette = ([(1, 1), (kind, 2)] for kind in range(4))
    cache = NO + [(1, 1)]
    lengths = NO * 4 + [(15, 4)]  # A code that is given by the lengths of its codes, by 19 lengths of codes again.
    for name, fields in {
        "predictor-blocks-512": predictor + [(7, 3)] + inner + FLAT, "green-1000-times": green * 1000,
        "predictor-mode-15": predictor + [(0, 3)] + NO + symbol(15) + symbol(0) * 4 + FLAT,
        "predictor-mode-255": predictor + [(0, 3)] + NO + symbol(255) + symbol(0) * 4 + FLAT,
        "predictor-twice": (predictor + [(0, 3)] + inner) * 2 + FLAT, "green-twice": green * 2 + FLAT,
        "colour-twice": (colour + [(0, 3)] + inner) * 2 + FLAT, "palette-of-1": palette + [(0, 8)] + inner + FLAT,
        "palette-of-3": palette + [(2, 8)] + inner + FLAT, "palette-of-256": palette + [(255, 8)] + inner + FLAT,
        "palette-twice": (palette + [(3, 8)] + inner) * 2 + FLAT, "cache-of-0-bits": cache + [(0, 4)] + inner,
        "cache-of-11-bits": cache + [(11, 4)] + inner, "cache-of-15-bits": cache + [(15, 4)] + inner,
        "lengths-all-zero": lengths + [(0, 3)] * 19, "lengths-over-full": lengths + [(1, 3)] * 19,
        "lengths-incomplete": lengths + [(7, 3)] * 19, "lengths-of-two": lengths + [(1, 3)] * 2 + [(0, 3)] * 17,
    }.items():  # fmt: skip
        yield f"lossless-{name}", webp(lossless(fields=fields, tail=bytes(40)))
        yield f"lossless-{name}-then-ones", webp(lossless(fields=fields, tail=b"\xff" * 400))
    dice = random.Random("hostile webp data")
    for _ in range(20):
        yield "lossless-of-noise", webp(lossless(fields=[], tail=dice.randbytes(500)))
        yield "lossy-of-noise", webp(webp_chunk(b"VP8 ", lossy()[8:18] + dice.randbytes(600)))


def webp_lies() -> Cases:
    riff = {"riff_size": (4, 4), "chunk_size": (16, 4)}
    yield from patched("lossless", webp(lossless()), 0, "little", **riff, signature=(20, 1), sides=(21, 4))
    # The two highest bits of the sides of a lossy picture are a scale.
    fields = {"tag": (20, 1), "first_part": (21, 2), "mark": (23, 3), "width": (26, 2), "height": (28, 2)}
    yield from patched("lossy", webp(lossy()), 0, "little", **riff, **fields)
    fields = {"flags": (20, 1), "width": (24, 3), "height": (27, 3), "alpha_size": (34, 4), "alpha_flags": (38, 1)}
    yield from patched("canvas", webp(canvas(16), ALPHA, lossy()), 0, "little", **riff, **fields)
    fields = {"x": (8, 3), "y": (11, 3), "width": (14, 3), "height": (17, 3), "flags": (23, 1), "picture_size": (28, 4)}
    for name, picture in {"lossless": lossless(), "lossy": lossy()}.items():
        base = webp(canvas(2), ANIMATION, frame(picture))
        yield from patched(f"frame-{name}", base, base.index(b"ANMF"), "little", size=(4, 4), **fields)
    for size in (0, 1, 20, 5000):
        yield f"alpha-of-{size}-bytes", webp(canvas(16), webp_chunk(b"ALPH", bytes(size)), lossy())
    for name, chunks in {
        "nothing": [], "canvas-disagrees": [canvas(0, 99, 3), lossy()], "canvas-only": [canvas()],
        "canvas-twice": [canvas() * 2, lossy()], "canvas-short": [webp_chunk(b"VP8X", b"\0\0"), lossy()],
        "canvas-all-flags": [canvas(255), lossy()], "alpha-not-there": [canvas(16), lossy()],
        "alpha-not-stated": [canvas(), ALPHA, lossy()], "alpha-of-lossless": [canvas(16), ALPHA, lossless()],
        "animation-not-there": [canvas(2), lossy()], "animation-without-frames": [canvas(2), ANIMATION],
        "animation-short": [canvas(2), webp_chunk(b"ANIM"), frame(lossless())],
        "frame-empty": [canvas(2), ANIMATION, webp_chunk(b"ANMF")], "frame-blank": [canvas(2), ANIMATION, frame(b"")],
        "frame-in-frame": [canvas(2), ANIMATION, frame(frame(frame(lossless())))],
    }.items():  # fmt: skip
        yield name, webp(*chunks)
    for name, block in exif_blocks():
        yield f"exif-{name}", webp(canvas(8), lossless(), webp_chunk(b"EXIF", block))


# What is no image, or more than one

VALID_PARTS = {
    "png": [png_parts(png_chunk(b"tEXt", b"Title\0plain"))],
    # The first of the four blocks is 5 steps brighter, and the others with it.
    "jpeg": [list(jpeg_parts(blocks=jpeg_bits([(0b100, 3), (5, 3), (0b1010, 4)] + [FLAT_BLOCK] * 3)).values()),
             list(jpeg_parts(24, 20, (0x22, 0x11, 0x11)).values()), [jpeg_progressive(16, 16, 3)]],
    "gif": [[b"GIF89a", gif_screen()[6:13], GREYS, b"\x21\xf9\x04\0\x0a\0\0\0", gif_frame(), b"\x21\xfe\1x\0;"]],
    "bmp": [[bmp()[:14], bmp_info(), RGB],
            [bmp(bmp_info(bits=8, compression=1), b"\x10\5\0\0" * 16 + b"\0\1", bytes(range(256)) * 4)]],
    "tiff": [[tiff()[:8], RGB, tiff()[776:]], [tiff(zlib.compress(RGB), compression=8, order=">")]],
    "webp": [webp_parts(lossless()), webp_parts(lossy()), webp_parts(canvas(16), ALPHA, lossy()),
             webp_parts(canvas(2), ANIMATION, frame(lossless()), frame(lossless()))],
}  # fmt: skip
VALID = {name: [b"".join(parts) for parts in all_parts] for name, all_parts in VALID_PARTS.items()}
MAGIC = {
    "png": PNG, "jpeg": b"\xff\xd8\xff\xe0", "gif": b"GIF89a", "bmp": b"BM", "tiff": b"II*\0",
    "webp": VALID["webp"][1][:16],
}  # fmt: skip
# Known to image libraries, but not what is asked for.
OTHER_MAGIC = {
    "avif": b"\0\0\0\x20ftypavif", "jxl": b"\0\0\0\x0cJXL \r\n\x87\n", "ico": b"\0\0\1\0\1\0\xff\xff",
    "psd": b"8BPS\0\1", "exr": b"v/1\1\2\0\0\0", "hdr": b"#?RADIANCE\n", "dds": b"DDS |\0\0\0",
    "ppm": b"P6 99999999 99999999 65535\n", "qoi": b"qoif" + b"\xff" * 8, "farbfeld": b"farbfeld" + b"\xff" * 8,
}  # fmt: skip
SCRIPT = b"<script>alert(document.domain)</script>"
ZIP = b"PK\5\6" + bytes(18)  # An archive of nothing: it may stand behind anything.


def other_files() -> Cases:
    laughs = "".join(f'<!ENTITY l{number} "{f"&l{number - 1};" * 10}">' for number in range(1, 10))
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    image = b'<image href="http://127.0.0.1/"/>'
    for name, content, extension in [
        ("html", b"<!DOCTYPE html><html><body>" + SCRIPT + b"</body></html>", "html"),
        ("svg", b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)">' + image + b"</svg>", "svg"),
        ("svg-entity", b'<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg><text>&x;</text></svg>', "svg"),
        ("xml-laughs", f'<!DOCTYPE l0 [<!ENTITY l0 "ha">{laughs}]><l0>&l9;</l0>'.encode(), "xml"),
        ("pdf", b"%PDF-1.4\n1 0 obj<</OpenAction<</S/JavaScript/JS(app.alert(1))>>>>endobj\n%%EOF", "pdf"),
        ("pdf-with-jpeg", b"%PDF-1.4\n1 0 obj<</Filter/DCTDecode>>stream\n" + jpeg() + b"\nendstream", "pdf"),
        ("zip", ZIP, "zip"),
        ("gzip-bomb", compressor.compress(bytes(64 * MIB)) + compressor.flush(), "gz"),
        ("antivirus-lookalike", b"X5O!P%@AP[4-this-only-looks-like-the-ANTIVIRUS-TEST-FILE!$H+H*", "com"),
        ("utf16-text", b"\xff\xfe" + "Text, with a mark of its byte order.".encode("utf-16-le"), "txt"),
        ("utf8-text", "Über 한국어 \u202etxt.exe \U0001f4a9".encode(), "txt"),
        ("control-characters", b"\x1b]0;title\x07\x1b[2J\r\n\0{}%s%n", "txt"),
        ("data-uri", b"data:image/png;base64,iVBORw0KGgo=", "txt"), ("empty", b"", "bin"), ("one-byte", b"\xff", "bin"),
        ("zeros", bytes(99_999), "bin"), ("ones", b"\xff" * 99_999, "bin"), ("line-of-1-mib", b"a" * MIB, "txt"),
        ("gif-and-script", b"GIF89a=1/*" + bytes(50) + b"*/;alert(1)", "gif"),
        ("jpeg-with-script", jpeg(application=jpeg_segment(COM, SCRIPT + b"<?php system($_GET[0]); ?>")), "jpg"),
        ("riff-wave", b"RIFF\x24\0\0\0WAVEfmt " + bytes(28), "webp"),
    ]:  # fmt: skip
        yield name, content, extension
    dice = random.Random("hostile other files")
    for size in (1, 16, 1000, 99_999):
        yield f"noise-of-{size}-bytes", dice.randbytes(size)
    for name, magic in {**OTHER_MAGIC, **MAGIC}.items():
        yield f"{name}-magic-then-noise", magic + dice.randbytes(2000), EXTENSIONS.get(name, name)
        yield f"{name}-magic-then-zeros", magic + bytes(2000), EXTENSIONS.get(name, name)
        yield f"{name}-magic-then-ones", magic + b"\xff" * 2000, EXTENSIONS.get(name, name)
    for name, (base, *_) in VALID.items():
        for second, magic in MAGIC.items():
            if second != name:
                yield f"{second}-magic-over-{name}", magic + base[len(magic) :], EXTENSIONS[second]
                yield f"{name}-named-{second}", base, EXTENSIONS[second]
        for what, content in {
            f"{name}-then-zip": base + ZIP, f"{name}-then-script": base + SCRIPT,
            f"{name}-twice": base * 2, f"newline-then-{name}": b"\r\n" + base,
            f"{name}-read-as-text": base.decode("latin-1").encode("utf-8"),
        }.items():  # fmt: skip
            yield what, content, EXTENSIONS[name]


FAMILIES = {
    "png": [png_bombs, png_colours, png_lies, png_metadata],
    "jpeg": [jpeg_bombs, jpeg_lies, jpeg_tables_and_data, jpeg_metadata],
    "gif": [gif_bombs, gif_lies],
    "bmp": [bmp_bombs, bmp_kinds, bmp_lies],
    "tiff": [tiff_bombs, tiff_kinds, tiff_lies],
    "webp": [webp_bombs, webp_lossless, webp_lies],
    "other": [other_files],
}


def corpus() -> Iterator[tuple]:
    """(Format, what, bytes, extension) of all files."""
    for name, families in FAMILIES.items():
        cases = [("valid", base) for base in VALID.get(name, [])]
        for family in families:
            cases += family()
        for parts in VALID_PARTS.get(name, []):
            cases += truncated(parts)
        if name in VALID:
            cases += mutated(VALID[name], 40, random.Random(f"hostile {name}"))
        for what, data, *extension in cases:
            yield (name, what, data, *(extension or [EXTENSIONS[name]]))


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    index, numbers, sizes = [], {}, {}
    for name, what, data, extension in corpus():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", what), what
        number = numbers[name, what] = numbers.get((name, what), 0) + 1
        file = f"{name}-{what}-{number}.{extension}"
        assert len(data) < 8 * MIB, f"{file} has {len(data)} bytes"
        (folder / file).write_bytes(data)
        index.append({"file": file, "format": name, "what": what})
        sizes.setdefault(name, []).append(len(data))
    (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n")
    for name, all_sizes in sizes.items():
        print(f"{name:6} {len(all_sizes):5} files {sum(all_sizes) / MIB:6.2f} MiB")
    total = sum(map(sum, sizes.values()))
    print(f"all    {len(index):5} files {total / MIB:6.2f} MiB")
    assert len(index) >= 250 and total < 40 * 1000 * 1000, "the corpus is not of the size that it is to have"


if __name__ == "__main__":
    main()
