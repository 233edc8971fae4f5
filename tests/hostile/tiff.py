"""TIFF: bombs, kinds of pixels, tags and directories that lie. How one is put together is in exif.py."""

import random
import struct
import zlib

from building import MIB, RGB, SIDE, SQUARE, SURPRISES, Cases, lzw_zeros, pack_high_first, zlib_zeros
from exif import ASCII, DOUBLE, LONG, LONG8, RATIONAL, SHORT, SLONG, SRATIONAL, UNDEFINED, Entry, tiff_entries, tiff_parts
from jpeg import jpeg


def tiff(data: bytes = RGB, order: str = "<", big: bool = False, last: int = 0, **tags) -> bytes:
    """A TIFF of one picture, 16×16 RGB in one strip where `tags` do not say otherwise."""
    usual = {"width": 16, "height": 16, "bits": [8, 8, 8], "compression": 1, "photometric": 2, "samples": 3, "rows": 16}
    entries = tiff_entries(**{**usual, "offsets": 16 if big else 8, "counts": len(data), **tags})
    return b"".join(tiff_parts([entries], data, order, big, last))


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
    # Far more than the strip that they are in, of which the decoder wants a few rows; in the second case time and again.
    one = jpeg(16000, 16000, blocks=b"")
    yield "jpeg-of-16000x16000-in-a-strip", tiff(one, compression=7, samples=1, bits=8, photometric=1)
    strips = {"width": 1, "height": 20_000, "rows": 1, "offsets": [8] * 20_000, "counts": [len(one)] * 20_000}
    yield "jpeg-of-16000x16000-in-20000-strips", tiff(one, compression=7, samples=1, bits=8, photometric=1, **strips)
    yield "planar", tiff(planar=2, offsets=[8, 264, 520], counts=[256] * 3)
    yield "planar-with-one-strip", tiff(planar=2)
    yield "bigtiff-big-endian", tiff(big=True, order=">")


def tiff_combinations() -> Cases:
    """Tags that must be read together."""
    four = {"samples": 4, "bits": [8] * 4}
    rgba = RGB + bytes(256)
    for kinds in ([0], [1], [2], [3], [999], [65535], [1, 1], [2] * 300, [0] * 5000):
        name = f"{len(kinds)}-extra-of-{kinds[0]}"
        yield name, tiff(rgba, extra=kinds, **four)
        yield f"{name}-predicted", tiff(zlib.compress(rgba), extra=kinds, compression=8, predictor=2, **four)
        yield f"{name}-planar", tiff(rgba, extra=kinds, planar=2, offsets=[8] * 4, counts=[256] * 4, **four)
    for samples in (0, 1, 6, 9, 65535):
        yield f"extra-with-{samples}-samples", tiff(RGB * 4, extra=[2], samples=samples, bits=8)
    for numbers in SURPRISES:
        yield f"fill-order-{numbers}", tiff(fill_order=numbers)
        yield f"planar-{numbers}", tiff(planar=numbers, offsets=[8, 264, 520], counts=[256] * 3)
        yield f"t4-options-{numbers}", tiff(compression=3, samples=1, bits=1, photometric=0, t4_options=numbers)
        yield f"t6-options-{numbers}", tiff(compression=4, samples=1, bits=1, photometric=0, t6_options=numbers)
    tiles = {"tile_width": 16, "tile_height": 16, "offsets": None, "counts": None, "rows": None}
    for count in (0, 1, 2, 3, 4, 5000):
        where = {"tile_offsets": [8] * count or None, "tile_counts": [256] * count or None}
        yield f"planar-of-{count}-tiles", tiff(planar=2, **tiles, **where)
        yield f"planar-of-{count}-tiles-100x100", tiff(RGB * 20, planar=2, width=100, height=100, **tiles, **where)
    # The picture is a pixel, and the tile takes 4 bytes of each pixel that the limit allows.
    for side in (2048, 4096):
        tile = {"tile_width": side, "tile_height": side, "tile_offsets": 8, "tile_counts": 1 << 20}
        data = zlib_zeros(side * side * 3)
        yield f"deflate-tile-of-{side}-in-1x1", tiff(data, compression=8, width=1, height=1, **{**tiles, **tile})
        narrow = {**tiles, **tile, "width": 1, "height": side}
        yield f"deflate-tile-of-{side}-in-1x{side}", tiff(data, compression=8, **narrow)
    # No strip ends before all of the file was read: the blocks are empty.
    empty = b"\x78\xda" + b"\0\0\0\xff\xff" * 20_000
    strips = {"height": 20_000, "rows": 1, "offsets": [8] * 20_000, "counts": [len(empty)] * 20_000}
    for order in (1, 2):
        yield "20000-strips-of-empty-blocks", tiff(empty, compression=8, fill_order=order, **strips)
    dice = random.Random("hostile fax")
    for compression in (2, 3, 4):
        fax = {"compression": compression, "samples": 1, "bits": 1, "photometric": 0}
        wide = {"width": 65535, "height": 700, "rows": 700, **fax}
        for name, data in {
            "noise": dice.randbytes(3000), "zeros": bytes(9_999), "ones": b"\xff" * 9_999, "nothing": b"",
            # The code of white 0 and of black 0, time and again: a line that does not grow.
            "empty-runs": pack_high_first([(0b00110101, 8), (0b0000110111, 10)] * 4_000),
            "longest-runs": pack_high_first([(0b000000011111, 12)] * 4_000),
        }.items():  # fmt: skip
            yield f"fax-{compression}-of-{name}", tiff(data, **fax)
            yield f"fax-{compression}-of-{name}-65535-wide", tiff(data, **wide)
            yield f"fax-{compression}-of-{name}-reversed", tiff(data, fill_order=2, **fax)
    gray = {"samples": 1, "bits": 8, "photometric": 1, "compression": 7}
    whole = jpeg()
    tables = Entry(UNDEFINED, list(whole))
    for name, tags in {
        "gray": gray, "as-rgb": {"compression": 7}, "as-ycbcr": {"compression": 7, "photometric": 6},
        "as-cmyk": {"compression": 7, "photometric": 5, **four}, "as-palette": {**gray, "photometric": 3},
        "with-itself-as-tables": {**gray, "jpeg_tables": tables}, "taller": {**gray, "height": 8, "rows": 8},
        "reversed": {**gray, "fill_order": 2}, "of-16-bits": {**gray, "bits": 16},
        "planar": {"compression": 7, "planar": 2, "offsets": [8] * 3, "counts": [len(whole)] * 3},
    }.items():  # fmt: skip
        yield f"jpeg-{name}", tiff(whole, **tags)
    yield "jpeg-cut", tiff(whole[: len(whole) // 2], **gray)
    yield "jpeg-of-nothing", tiff(b"", **gray)
    floats = struct.pack("<8f", *[float("nan"), float("inf"), -1.0, 0.5, 255.0, 3e38, 1e-38, -0.0]) * 32
    for bits, kind in [(8, 2), (16, 2), (16, 3), (32, 1), (32, 2), (32, 3), (64, 3)]:
        levels = {"samples": 1, "photometric": 1, "bits": bits, "format": kind}
        yield f"levels-of-{bits}-bits-{kind}", tiff(floats, **levels)
        for predictor in (2, 3):
            data = zlib.compress(floats)
            yield f"levels-of-{bits}-bits-{kind}-predicted", tiff(data, compression=8, predictor=predictor, **levels)
    for name in ("coefficients", "black_white"):
        for numbers in ([0] * 12, [1, 0] * 6, [299, 1000], [0xFFFFFFFF] * 12):
            tags = {name: Entry(RATIONAL, numbers), "subsampling": [1, 1], "photometric": 6}
            yield f"ycbcr-{name.replace('_', '-')}-{numbers[0]}", tiff(**tags)
    yield "lzw-of-old-kind", tiff(b"\0\1" + bytes(999), compression=5)


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
