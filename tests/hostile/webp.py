"""WebP: bombs, what the lossless coding allows, chunks that lie."""

import random
import struct

from building import GREY, MIB, SIDE, SQUARE, Cases, pack_low_first, patched
from exif import exif_blocks


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
    # Larger inside than the file states.
    inside = lossy(16383, 16383, (500_000, 900_000))
    yield "lossy-16383x16383-on-16x16", webp(canvas(0), inside)
    yield "lossy-16383x16383-in-a-frame-of-16x16", webp(canvas(2), ANIMATION, frame(inside))
    yield "lossless-16383x16383-on-16x16", webp(canvas(0), lossless(16383, 16383, FLAT))
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
        "frame-with-larger-picture": [canvas(18), ANIMATION, frame(ALPHA + lossy(64, 64))],
        "frame-with-exif-of-4-gib": [canvas(10), ANIMATION, frame(b"EXIF\xff\xff\xff\xff"), lossless()],
        "frame-in-frame": [canvas(2), ANIMATION, frame(frame(frame(lossless())))],
    }.items():  # fmt: skip
        yield name, webp(*chunks)
    for name, block in exif_blocks():
        yield f"exif-{name}", webp(canvas(8), lossless(), webp_chunk(b"EXIF", block))
