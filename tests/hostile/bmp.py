"""BMP: bombs, depths and masks, headers that lie."""

import struct

from building import RGB, SIDE, SQUARE, Cases, patched
from jpeg import jpeg
from png import png


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
