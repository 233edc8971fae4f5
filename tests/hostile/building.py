"""What the formats share: the usual picture, packing of bits, runs of zeros, and ways to break a file."""

import functools
import random
import struct
import zlib
from collections.abc import Iterable, Iterator

MIB = 1 << 20
# The side of the largest square below 50 million pixels, a usual limit: only the data can be a reason to refuse it.
SIDE = 7071
SQUARE = f"{SIDE}x{SIDE}"
EXTENSIONS = {"png": "png", "jpeg": "jpg", "gif": "gif", "bmp": "bmp", "tiff": "tif", "webp": "webp",
              "avif": "avif", "other": "bin"}
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
