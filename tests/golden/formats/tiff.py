"""Writes TIFF files with any combination of tags, which Pillow does not."""

import struct
import zlib

import numpy as np

BYTE, ASCII, SHORT, LONG, RATIONAL, SBYTE, UNDEFINED = 1, 2, 3, 4, 5, 6, 7
SSHORT, SLONG, SRATIONAL, FLOAT, DOUBLE, IFD, LONG8 = 8, 9, 10, 11, 12, 13, 16
CODES = {
    BYTE: "B", ASCII: "B", SHORT: "H", LONG: "I", RATIONAL: "I", SBYTE: "b", UNDEFINED: "B", SSHORT: "h", SLONG: "i",
    SRATIONAL: "i", FLOAT: "f", DOUBLE: "d", IFD: "I", LONG8: "Q",
}  # fmt: skip
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def packbits(data):
    """Runs of three and more, and literals of up to 128 bytes."""
    out, literal, at = bytearray(), bytearray(), 0

    def flush():
        for start in range(0, len(literal), 128):
            part = literal[start : start + 128]
            out.extend(bytes([len(part) - 1]) + part)
        literal.clear()

    while at < len(data):
        run = 1
        while run < 128 and data[at : at + 1] == data[at + run : at + run + 1]:
            run += 1
        if run >= 3:
            flush()
            out.extend([257 - run, data[at]])
        else:
            literal.extend(data[at : at + run])
        at += run
    flush()
    return bytes(out)


ENCODERS = {1: bytes, 8: zlib.compress, 32946: zlib.compress, 32773: packbits}


def directory(order, tags, data, big):
    """A file of the data, which starts behind the header, and of a directory."""
    offset, count_code, header = ("Q", "Q", 16) if big else ("I", "H", 8)
    body, entries = bytearray(data), []
    for tag in sorted(tags):
        kind, values = tags[tag]
        value = struct.pack(f"{order}{len(values)}{CODES.get(kind, 'Q')}", *values)
        count = len(values) // 2 if kind in (RATIONAL, SRATIONAL) else len(values)
        size = struct.calcsize(f"={offset}")
        if len(value) > size:
            body += bytes(len(body) % 2)
            place = struct.pack(order + offset, header + len(body))
            body += value
        else:
            place = value.ljust(size, b"\0")
        entries.append(struct.pack(f"{order}HH{offset}", tag, kind, count) + place)
    body += bytes(len(body) % 2)
    mark = b"II" if order == "<" else b"MM"
    start = struct.pack(order + offset, header + len(body))
    version = struct.pack(order + "HHH", 43, 8, 0) if big else struct.pack(order + "H", 42)
    listed = struct.pack(order + count_code, len(entries)) + b"".join(entries)
    return mark + version + start + bytes(body) + listed + struct.pack(order + offset, 0)


def predicted(rows, predictor, order):
    """Rows of samples as differences to the pixel before."""
    if predictor == 1:
        return rows
    if predictor == 2:
        signed = rows.view(rows.dtype.str.replace("f", "u").replace("i", "u"))
        out = signed.copy()
        out[:, 1:] = signed[:, 1:] - signed[:, :-1]
        return out
    # Floats: the highest bytes of all numbers first, as differences of bytes.
    height, width, samples = rows.shape
    parts = rows.astype(">f4").reshape(height, -1).view("u1").reshape(height, -1, 4)
    parts = parts.transpose(0, 2, 1).reshape(height, -1)
    out = parts.copy()
    out[:, samples:] = parts[:, samples:] - parts[:, :-samples]
    return out


def packed(rows, bits):
    """The bytes of rows of samples."""
    if bits >= 8:
        return rows.tobytes()
    flat = rows.reshape(rows.shape[0], -1)
    spread = (flat[..., None] >> np.arange(bits - 1, -1, -1, dtype="u1")) & 1
    return np.packbits(spread.reshape(rows.shape[0], -1), axis=1).tobytes()


def tiff(
    samples,
    photometric,
    *,
    bits=None,
    order="<",
    big=False,
    compression=1,
    predictor=1,
    fill_order=1,
    planar=1,
    tile=None,
    rows=None,
    extra=(),
    encoder=None,
    tags=None,
):
    """A file of an array of height × width × samples. `tags` are further ones: number to (type,
    values), or to None to leave one out."""
    height, width, count = samples.shape
    bits = bits or samples.dtype.itemsize * 8
    if bits >= 8:
        samples = samples.astype(samples.dtype.newbyteorder(order))
    encode = encoder or ENCODERS[compression]
    chunk_height, chunk_width = tile or (rows or height, width)
    data, offsets, counts = bytearray(), [], []
    planes = [samples] if planar == 1 else [samples[..., at : at + 1] for at in range(count)]
    for plane in planes:
        for top in range(0, height, chunk_height):
            for left in range(0, width, chunk_width):
                chunk = plane[top : top + chunk_height, left : left + chunk_width]
                if tile:
                    missing = [(0, chunk_height - chunk.shape[0]), (0, chunk_width - chunk.shape[1])]
                    chunk = np.pad(chunk, [*missing, (0, 0)], mode="edge")
                chunk = np.ascontiguousarray(chunk)
                stored = predicted(chunk, predictor, order)
                encoded = encode(packed(np.ascontiguousarray(stored), bits))
                if fill_order == 2:
                    encoded = encoded.translate(REVERSED)
                offsets.append((16 if big else 8) + len(data))
                counts.append(len(encoded))
                data += encoded + bytes(len(encoded) % 2)
    kinds = {"u": 1, "i": 2, "f": 3}
    all_tags = {
        256: (LONG, [width]), 257: (LONG, [height]), 258: (SHORT, [bits] * count),
        259: (SHORT, [compression]), 262: (SHORT, [photometric]), 277: (SHORT, [count]),
        284: (SHORT, [planar]),
    }  # fmt: skip
    if fill_order != 1:
        all_tags[266] = (SHORT, [fill_order])
    if predictor != 1:
        all_tags[317] = (SHORT, [predictor])
    if extra:
        all_tags[338] = (SHORT, extra)
    if kinds[samples.dtype.kind] != 1:
        all_tags[339] = (SHORT, [kinds[samples.dtype.kind]] * count)
    long = LONG8 if big else LONG
    if tile:
        all_tags |= {322: (SHORT, [chunk_width]), 323: (SHORT, [chunk_height])}
        all_tags |= {324: (long, offsets), 325: (long, counts)}
    else:
        all_tags |= {278: (LONG, [chunk_height]), 273: (long, offsets), 279: (long, counts)}
    all_tags |= tags or {}
    all_tags = {tag: value for tag, value in all_tags.items() if value}
    return directory(order, all_tags, bytes(data), big)
