"""AVIF: boxes that lie, items that add up, grids, and sizes in the AV1 stream that differ from those of the container."""

import struct

from building import Cases, pack_high_first, patched

# A frame of 16×16 and one of 64×64 by libaom: temporal delimiter, sequence header, frame.
SEQUENCE = bytes.fromhex("180cffd92021a0d080")
FRAME = bytes.fromhex("32131b400000400031af70af6b9b83b4377a80e080")
TILE = bytes.fromhex("12000a0918157ffd92021a0d08320e1b40000040000a05f053b06fddb8")
ALPHA_KIND = b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0"


def unit(kind: int, content: bytes) -> bytes:
    """An OBU with its length in two bytes."""
    return bytes([kind << 3 | 2, len(content) & 0x7F | 0x80, len(content) >> 7]) + content


def sequence(width: int, height: int) -> bytes:
    """The sequence header with another size."""
    tail = int.from_bytes(SEQUENCE, "big") & (1 << (8 * len(SEQUENCE) - 26)) - 1
    sizes = [(0, 3), (1, 1), (1, 1), (0, 5), (15, 4), (15, 4), (width - 1, 16), (height - 1, 16)]
    return pack_high_first(sizes + [(tail, 8 * len(SEQUENCE) - 26)])


def stream(width: int = 16, height: int = 16, frames: int = 1) -> bytes:
    header = SEQUENCE if (width, height) == (16, 16) else sequence(width, height)
    return b"\x12\0" + unit(1, header) + FRAME * frames


def box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I", 8 + len(body)) + kind + body


def full(kind: bytes, *content: bytes, version: int = 0) -> bytes:
    return box(kind, struct.pack(">I", version << 24), *content)


def size(width: int = 16, height: int = 16) -> bytes:
    return full(b"ispe", struct.pack(">II", width, height))


def item(number: int, kind: bytes = b"av01") -> bytes:
    return full(b"infe", struct.pack(">HH", number, 0), kind, b"\0", version=2)


def location(number: int, extents: list, method: int = 1) -> bytes:
    head = struct.pack(">HHHIH", number, method, 0, 0, len(extents))
    return head + b"".join(struct.pack(">II", *extent) for extent in extents)


CODEC = box(b"av1C", b"\x81\0\x0c\0")
TYPE = box(b"ftyp", b"avif", bytes(4), b"avifmif1miaf")


def avif_parts(
    data: bytes | None = None,
    properties: tuple = (size(), CODEC),
    items: tuple = ((1, b"av01", (1, 2)),),
    extents: dict | None = None,
    references: bytes = b"",
    more: bytes = b"",
) -> list:
    """A file whose items are stored in `idat`: (number, kind, numbers of properties)."""
    data = stream() if data is None else data
    extents = extents or {1: [(0, len(data))]}
    info = full(b"iinf", struct.pack(">H", len(items)), *(item(number, kind) for number, kind, _ in items))
    places = b"".join(location(number, list_) for number, list_ in extents.items())
    locations = full(b"iloc", b"\x44\x40", struct.pack(">H", len(extents)), places, version=1)
    links = b"".join(struct.pack(">HB", number, len(list_)) + bytes(list_) for number, _, list_ in items)
    associations = full(b"ipma", struct.pack(">I", len(items)), links)
    description = box(b"iprp", box(b"ipco", *properties), associations)
    handler = full(b"hdlr", bytes(4), b"pict", bytes(13))
    links_of_items = full(b"iref", references) if references else b""
    primary = full(b"pitm", struct.pack(">H", 1))
    meta = full(b"meta", handler, primary, locations, info, links_of_items, description, more, box(b"idat", data))
    return [TYPE, meta]


def avif(*arguments, **options) -> bytes:
    return b"".join(avif_parts(*arguments, **options))


def reference(kind: bytes, source: int, *targets: int) -> bytes:
    return box(kind, struct.pack(">HH", source, len(targets)), *(struct.pack(">H", one) for one in targets))


def grid_file(columns: int, rows: int, width: int, height: int, *targets: int) -> bytes:
    """A grid of tiles of 64×64: items with the same contents, or those given."""
    grid = bytes([0, 1, rows - 1, columns - 1]) + struct.pack(">II", width, height)
    tiles = range(2, 2 + min(columns * rows, 4))
    return avif(
        grid + TILE,
        properties=(size(width, height), size(64, 64), CODEC),
        items=((1, b"grid", (1,)), *((tile, b"av01", (2, 3)) for tile in tiles)),
        extents={1: [(0, len(grid))]} | {tile: [(len(grid), len(TILE))] for tile in tiles},
        references=reference(b"dimg", 1, *(targets or (2 + one % 4 for one in range(columns * rows)))),
    )


def with_alpha(alpha: bytes, sides: tuple = (16, 16), kind: bytes = ALPHA_KIND) -> bytes:
    data = stream()
    return avif(
        data + alpha,
        properties=(size(), CODEC, size(*sides), full(b"auxC", kind)),
        items=((1, b"av01", (1, 2)), (2, b"av01", (3, 2, 4))),
        extents={1: [(0, len(data))], 2: [(len(data), len(alpha))]},
        references=reference(b"auxl", 2, 1) + reference(b"prem", 1, 2),
    )


VALID_AVIF = [avif_parts(), [with_alpha(stream())], [grid_file(2, 2, 100, 128)]]


def avif_bombs() -> Cases:
    for width, height in [(65535, 65535), (7071, 7071), (65535, 1), (1, 65535)]:
        name = f"{width}x{height}"
        yield f"stream-of-{name}-in-16x16", avif(stream(width, height))
        yield f"stream-and-item-of-{name}", avif(stream(width, height), properties=(size(width, height), CODEC))
        yield f"item-of-{name}-around-16x16", avif(properties=(size(width, height), CODEC))
    for frames in (2, 8, 9, 1000):
        yield f"{frames}-frames", avif(stream(frames=frames))
    yield "second-sequence-of-another-size", avif(stream() + unit(1, sequence(65535, 65535)) + FRAME)
    yield "grid-of-256x256-tiles", grid_file(256, 256, 16_384, 16_384, *(2,) * 65_535)
    yield "grid-of-60x60-tiles", grid_file(60, 60, 3840, 3840)
    yield "grid-of-itself", grid_file(2, 2, 128, 128, 1, 1, 1, 1)
    yield "grid-of-one-row-too-few", grid_file(2, 1, 128, 128)
    yield "grid-smaller-than-its-tiles", grid_file(3, 3, 64, 64)
    yield "grid-of-nothing", grid_file(1, 1, 64, 64, 77)
    many = [(0, 16_000)] * 5_000
    yield "extents-over-each-other", avif(stream() + bytes(16_000), extents={1: many})
    nested = b""
    for _ in range(3_000):
        nested = full(b"meta", full(b"hdlr", bytes(4), b"pict", bytes(13)), nested)
    yield "boxes-in-boxes", avif(more=nested)
    yield "properties-in-boxes", avif(properties=(size(), nested[: len(nested) // 8]))
    yield "3000-items", avif(items=((1, b"av01", (1, 2)),) + tuple((n, b"av01", (1,)) for n in range(2, 3000)))


def avif_overlaps() -> Cases:
    """Few bytes that many items refer to, and few bytes that state many."""
    side = 64 * 31
    grid = bytes([0, 1, 30, 30]) + struct.pack(">II", side, side)

    def tiles(tile: bytes, extents: list | None = None, more: bytes = b"") -> bytes:
        """961 tiles, all of which are one item."""
        return avif(
            grid + tile,
            properties=(size(side, side), size(64, 64), CODEC),
            items=((1, b"grid", (1,)), (2, b"av01", (2, 3))),
            extents={1: [(0, len(grid))], 2: extents or [(len(grid), len(tile))]},
            references=reference(b"dimg", 1, *(2,) * 961) + more,
        )

    for name, padding in [("no-padding", 0), ("3-kb", 3_000), ("100-kb", 100_000)]:
        # An OBU that the decoder leaves out.
        length = bytes([padding & 0x7F | 0x80, padding >> 7 & 0x7F | 0x80, padding >> 14])
        yield f"961-tiles-at-one-place-with-{name}", tiles(TILE + b"\x7a" + length + bytes(padding))
    yield "961-tiles-of-20000-extents", tiles(TILE, [(len(grid), 1)] * 20_000)
    yield "alpha-of-all-items", tiles(TILE, more=reference(b"auxl", 9, *range(10_000, 65_000)) * 2)
    # No extent takes a byte.
    places = b"".join(struct.pack(">HHH", number, 0, 0xFFFF) for number in range(1, 30_000))
    locations = full(b"iloc", b"\0\0", struct.pack(">H", 29_999), places)
    yield "65535-extents-of-29999-items", avif(more=locations).replace(b"iloc", b"free", 1)


def avif_lies() -> Cases:
    base, data = avif(), stream()
    yield "no-primary-item", base.replace(b"pitm", b"free")
    yield "no-location", base.replace(b"iloc", b"free")
    yield "no-size", avif(properties=(CODEC,), items=((1, b"av01", (1,)),))
    yield "property-that-is-not-there", avif(items=((1, b"av01", (1, 2, 99)),))
    yield "unknown-essential-property", avif(properties=(size(), box(b"what")), items=((1, b"av01", (1, 0x82)),))
    yield "item-of-another-type", avif(items=((1, b"hvc1", (1, 2)),))
    yield "another-codec-inside", avif(b"\0\0\0\1\x67" + bytes(100))
    yield "sequence-of-images-alone", TYPE.replace(b"avif", b"avis") + box(b"moov")
    yield "no-boxes", TYPE
    for offset, length in [(0, 0), (0, len(data) - 1), (5, len(data)), (0xFFFFFFFF, 1), (0, 0xFFFFFFFF), (1 << 31, 1 << 31)]:
        yield f"extent-at-{offset}-of-{length}", avif(extents={1: [(offset, length)]})
    yield "alpha-of-another-size", with_alpha(data, (8, 8))
    yield "alpha-that-is-noise", with_alpha(bytes(range(200)))
    yield "alpha-of-unknown-kind", with_alpha(data, kind=b"\xff\xff")
    for angle in (1, 2, 3, 255):
        turned = (size(), CODEC, box(b"irot", bytes([angle])), box(b"imir", bytes([angle])))
        yield f"turned-{angle}", avif(properties=turned, items=((1, b"av01", (1, 2, 0x83, 0x84)),))
    for matrix in (0, 3, 8, 10, 14, 99, 65_535):
        color = box(b"colr", b"nclx", struct.pack(">HHHB", 1, 13, matrix, 128))
        yield f"matrix-{matrix}", avif(properties=(size(), CODEC, color), items=((1, b"av01", (1, 2, 3)),))
    for kind in (b"ftyp", b"meta", b"iloc", b"iinf", b"infe", b"iprp", b"ipco", b"ipma", b"ispe", b"idat"):
        yield from patched(f"box-{kind.decode()}", base, base.index(kind), "big", length=(-4, 4), first_word=(4, 4))
    start = base.index(data)
    for at in range(len(data)):
        for bit in (0, 3, 7):
            changed = bytes([data[at] ^ 1 << bit])
            yield "stream-with-a-flipped-bit", base[: start + at] + changed + base[start + at + 1 :]
