"""The structure of a TIFF, and EXIF, which is a TIFF without a picture and may be in a PNG, a JPEG or a WebP."""

from __future__ import annotations

import struct
from typing import NamedTuple

from building import Cases


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
    "format": 339, "jpeg_tables": 347, "subsampling": 530, "exif": 34665, "maker": 37500, "fill_order": 266,
    "t4_options": 292, "t6_options": 293, "extra": 338, "coefficients": 529, "black_white": 532,
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
