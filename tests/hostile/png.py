"""PNG: bombs, colour types and palettes, chunks and streams that lie, metadata."""

from __future__ import annotations

import random
import struct
import zlib

from building import MIB, RGB, SIDE, SQUARE, Cases, mutated, pack_low_first, zlib_zeros
from exif import exif_blocks

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
        yield f"exif-behind-pixels-{name}", png()[:-12] + png_chunk(b"eXIf", block) + png_chunk(b"IEND")
        digits = b"\nexif\n%8d\n%s\n" % (len(block), block.hex().encode())
        yield f"exif-as-text-{name}", png(png_chunk(b"tEXt", b"Raw profile type exif\0" + digits))
    key, xmp = b"Raw profile type exif\0", b"XML:com.adobe.xmp\0"
    packed = png_chunk(b"zTXt", key + b"\0" + zlib_zeros(64 * MIB))
    yield "exif-in-64-mib-of-text", png(packed)
    yield "exif-in-1-mib-of-text-200-times", png(png_chunk(b"zTXt", key + b"\0" + zlib_zeros(MIB)) * 200)
    yield "exif-in-256-kib-of-digits", png(png_chunk(b"tEXt", key + b"\n\n\n" + b"a" * (MIB // 4)))
    yield "exif-in-no-digits", png(png_chunk(b"tEXt", key + b"\n\n\nxyz"))
    yield "exif-in-odd-digits", png(png_chunk(b"tEXt", key + b"\n\n\n4d4"))
    yield "xmp-64-mib", png(png_chunk(b"iTXt", xmp + b"\1\0\0\0" + zlib_zeros(64 * MIB)))
    yield "xmp-of-names", png(png_chunk(b"tEXt", xmp + b"tiff:Orientation" * 16_000))
    yield "xmp-orientation-9", png(png_chunk(b"tEXt", xmp + b'tiff:Orientation="9"'))


def png_defects() -> Cases:
    """Files with a wrong checksum of pixels, or without an end, which are read if the pixels are whole."""
    signature, header, pixels, end = png_parts()
    wrong = pixels[:-4] + b"abcd"
    yield "wrong-checksum-whole", signature + header + wrong + end
    yield "wrong-checksum-damaged", signature + header + wrong[:20] + b"\xff" + wrong[21:] + end
    bomb = png_chunk(b"IDAT", zlib_zeros(256 * MIB))
    yield "wrong-checksum-256-mib", signature + header + bomb[:-4] + b"abcd" + end
    yield "wrong-checksum-20000-times", signature + header + (png_chunk(b"IDAT")[:-4] + b"abcd") * 20_000 + pixels + end
    giant = png_header(0x7FFFFFFF, 0x7FFFFFFF, 16, 6)
    yield "wrong-checksum-of-a-giant", signature + giant + bomb[:-4] + b"abcd" + end
    for cut in (1, 4, 8, 12, 40):
        yield f"without-end-and-{cut}-bytes", (signature + header + pixels)[:-cut]
    yield "chunk-of-2-gib-behind-pixels", signature + header + pixels + b"\x7f\xff\xff\xffeXIfII"
    yield "interrupted-pixels", signature + header + pixels + png_chunk(b"tEXt", b"a\0b") + pixels + end
