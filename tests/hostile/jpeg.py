"""JPEG: bombs, segments that lie, tables and data, metadata."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable

from building import MIB, SIDE, SQUARE, Cases, pack_high_first, patched
from exif import exif_blocks

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
    yield "70000-empty-comments", jpeg(application=jpeg_segment(COM) * 70_000)
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
    exif = next(block for name, block in exif_blocks() if name == "orientation-5")
    pieces = [jpeg_segment(APP1, b"Exif\0\0" + bytes([byte])) for byte in exif]
    yield "exif-in-a-segment-for-each-byte", jpeg(32, 16, application=b"".join(pieces))
    yield "exif-in-12-segments-of-64-kib", jpeg(32, 16, application=jpeg_segment(APP1, b"Exif\0\0" + bytes(65000)) * 12)
    name = b"http://ns.adobe.com/xap/1.0/\0"
    yield "xmp-of-names", jpeg(32, 16, application=jpeg_segment(APP1, name + b"tiff:Orientation" * 4000) * 4)
    yield "xmp-orientation-8", jpeg(32, 16, application=jpeg_segment(APP1, name + b'tiff:Orientation="8"'))
    yield "junk-of-256-kib-in-the-header", jpeg(application=b"\0\xff\0" * (MIB // 12))
    yield "junk-of-ff-in-the-header", jpeg(application=b"\xff" * (MIB // 4))
    yield "junk-and-wrong-icc", jpeg(application=b"junk" + jpeg_segment(APP2, b"ICC_PROFILE\0\1\1"))
    for precision in (1, 2, 7, 9, 12, 16, 17, 255):
        yield f"lossless-of-{precision}-bits", jpeg(sof=SOF3, precision=precision)
