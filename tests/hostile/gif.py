"""GIF. With 128 colours a code is 8 bits until the table grows, so that each pixel's code is its own byte."""

import random
import struct

from building import GREY, MIB, SIDE, SQUARE, Cases, lzw_zeros, pack_low_first, patched

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
