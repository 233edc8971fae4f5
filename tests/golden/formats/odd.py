"""TIFF, BMP and GIF files that Pillow reads and does not write, of a picture of 33×20."""

import io
import struct

import numpy as np
from PIL import Image
import tiff as types
from tiff import LONG, RATIONAL, SHORT, UNDEFINED, tiff

TILE = (16, 16)
DEFLATE = {"compression": 8}
PREDICTED = {"compression": 8, "predictor": 2}


def lzw(data):
    """Compresses as libtiff does: as one row of an image, of which the strip is taken."""
    file = io.BytesIO()
    Image.frombytes("L", (len(data), 1), data).save(file, "TIFF", compression="tiff_lzw")
    tags = Image.open(file).tag_v2
    (start,), (length,) = tags[273], tags[279]
    return file.getvalue()[start : start + length]


def old_lzw(data):
    """Compresses as writers did before TIFF 6: the lowest bit of a code comes first. The table is
    emptied before codes become longer, so that each byte is a code of 9 bits."""
    codes = []
    for at in range(0, len(data), 200):
        codes += [256, *data[at : at + 200]]
    total = sum(code << 9 * place for place, code in enumerate([*codes, 257]))
    return total.to_bytes((9 * len(codes) + 16) // 8, "little")


def with_samples(rgb, *samples):
    """An image with further samples, each of one value or of a ramp."""
    height, width, _ = rgb.shape
    ramp = np.linspace(0, 255, width).astype(rgb.dtype) * np.ones((height, 1), rgb.dtype)
    extra = [ramp if sample is None else np.full((height, width), sample) for sample in samples]
    return np.dstack([rgb, *extra]).astype(rgb.dtype)


def tiff_files(tiny, to_cmyk):
    """(Name, bytes, note) of each file."""
    rgb = np.asarray(tiny)
    gray = np.asarray(tiny.convert("L"))[..., None]
    cmyk = np.asarray(to_cmyk(tiny))
    rgba = with_samples(rgb, None)
    alpha = rgba[..., 3:].astype("u4")
    # Colors multiplied by the alpha, rounded up, so that no division has a rest below the half.
    premultiplied = np.dstack([(rgb * alpha + 254) // 255, alpha]).astype("u1")
    wide = rgb.astype("u2") * 257
    wide[..., 0] -= 5
    levels = np.asarray(tiny.quantize(16, dither=Image.Dither.NONE))[..., None]
    palette = tiny.quantize(16, dither=Image.Dither.NONE).getpalette()[:48]
    colors = {320: (SHORT, np.array(palette).reshape(16, 3).T.flatten() * 257)}
    colors8 = {320: (SHORT, (np.arange(768) * 7919 % 65536))}
    bits = (gray > 110).astype("u1")
    fax = tiny.convert("1", dither=Image.Dither.FLOYDSTEINBERG)
    floats = gray.astype("f4") + 0.75
    full = {532: (RATIONAL, [0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1])}
    ycbcr = {530: (SHORT, [1, 1])} | full
    files = {
        "rgbx_predicted": tiff(with_samples(rgb, None), 2, extra=[0], **PREDICTED),
        "rgbax_predicted": tiff(with_samples(rgb, None, 9), 2, extra=[2, 0], order=">", **PREDICTED),
        "cmykx_predicted": tiff(with_samples(cmyk, None), 5, extra=[0], **PREDICTED),
        "rgba_premultiplied": tiff(premultiplied, 2, extra=[1], compression=5, encoder=lzw),
        "rgba16_premultiplied": tiff(premultiplied * np.uint16(257), 2, extra=[1], **DEFLATE),
        "la": tiff(with_samples(gray, None), 1, extra=[2]),
        "lx_planar": tiff(with_samples(gray, None), 1, extra=[0], planar=2, **DEFLATE),
        "la_premultiplied": tiff(premultiplied[..., 2:], 1, extra=[1], **DEFLATE),
        "fill_order_2": tiff(bits, 1, bits=1, fill_order=2),
        "fill_order_2_packbits": tiff(bits, 0, bits=1, fill_order=2, compression=32773),
        "fill_order_2_lzw": tiff(rgb, 2, fill_order=2, compression=5, encoder=lzw),
        "old_lzw": tiff(rgb, 2, compression=5, encoder=old_lzw, rows=9),
        "gray2": tiff(gray >> 6, 1, bits=2), "gray4_inverted": tiff(gray >> 4, 0, bits=4),
        "palette4": tiff(levels, 3, bits=4, tags=colors),
        "palette_alpha": tiff(with_samples(gray, None), 3, extra=[2], tags=colors8),
        "big": tiff(rgb, 2, big=True, rows=7), "big_endian": tiff(rgb, 2, order=">", rows=6, **DEFLATE),
        "planar_tiles": tiff(rgb, 2, planar=2, tile=TILE), "tiles": tiff(rgb, 2, tile=TILE, **PREDICTED),
        "planar_tiles_deflate": tiff(rgb, 2, planar=2, tile=TILE, **PREDICTED),
        "rgb16_planar": tiff(wide, 2, planar=2, rows=6, order=">", **PREDICTED),
        "rgb16_tiles": tiff(wide, 2, tile=TILE, compression=5, predictor=2, encoder=lzw),
        "cmyk16": tiff(cmyk * np.uint16(257) - 3, 5, **DEFLATE),
        "predictor_unused": tiff(rgb, 2, compression=32773, tags={317: (SHORT, [2])}),
        "float": tiff(floats, 1, compression=8, predictor=3), "float_be": tiff(floats, 1, order=">", rows=6),
        "int32": tiff(gray.astype("i4"), 1, **PREDICTED), "int16": tiff(gray.astype("i2"), 1, order=">"),
        "uint32": tiff(gray.astype("u4"), 1, **DEFLATE),
        "ycbcr": tiff(rgb, 6, tags=ycbcr), "ycbcr_tiles": tiff(rgb, 6, tags=ycbcr, tile=TILE, **PREDICTED),
    }  # fmt: skip
    for name, compression, options in [
        ("runs", "tiff_ccitt", {}), ("group3", "group3", {}), ("group3_aligned", "group3", {292: 4, 266: 2}),
        ("group4", "group4", {278: 7}), ("group4_reversed", "group4", {266: 2, 262: 0}),
    ]:  # fmt: skip
        file = io.BytesIO()
        fax.save(file, "TIFF", compression=compression, tiffinfo=options)
        files[f"fax_{name}"] = file.getvalue()
    for mode in ("L", "RGB", "YCbCr", "CMYK"):
        file = io.BytesIO()
        image = to_cmyk(tiny) if mode == "CMYK" else tiny.convert(mode)
        image.save(file, "TIFF", compression="jpeg", quality=80)
        files[f"jpeg_{mode.lower()}"] = file.getvalue()
    for name, data in files.items():
        yield f"tiff_{name}.tif", data, None


def turned_tiff_files(tiny):
    """(Name, bytes, note) of files whose orientation has any type, or stands next to that of XMP."""
    rgb = np.asarray(tiny)
    xmp = (UNDEFINED, b'<x tiff:Orientation="8"/>')
    for name, kind, values in [
        ("byte", types.BYTE, [6]), ("ascii", types.ASCII, b"6\0"), ("short", SHORT, [6]), ("long", LONG, [6]),
        ("rational", RATIONAL, [12, 2]), ("sbyte", types.SBYTE, [6]), ("undefined", UNDEFINED, [6]),
        ("sshort", types.SSHORT, [6]), ("slong", types.SLONG, [6]), ("srational", types.SRATIONAL, [6, 1]),
        ("float", types.FLOAT, [6.0]), ("double", types.DOUBLE, [6.0]), ("ifd", types.IFD, [6]),
        ("long8", types.LONG8, [6]), ("unknown", 17, [6]), ("fraction", types.FLOAT, [6.5]), ("two", SHORT, [6, 1]),
        ("three", SHORT, [6, 1, 1]), ("none", SHORT, []), ("zero", SHORT, [0]), ("nine", SHORT, [9]),
        ("negative", types.SLONG, [-6]), ("infinite", RATIONAL, [6, 0]),
    ]:  # fmt: skip
        orientation = {274: (kind, values)}
        yield f"tiff_turned_{name}.tif", tiff(rgb, 2, tags=orientation, **DEFLATE), None
        if name in ("sshort", "byte", "unknown", "none", "zero"):
            yield f"tiff_turned_{name}_or_xmp.tif", tiff(rgb, 2, tags=orientation | {700: xmp}), None
        if name in ("sshort", "rational", "double", "long8"):
            data = tiff(rgb, 2, big=True, tags=orientation, **DEFLATE)
            yield f"tiff_turned_{name}_big.tif", data, None


def jpeg_tiff_files(tiny):
    """(Name, bytes, note) of files with JPEG data that libjpeg warns of, and libtiff takes."""
    file = io.BytesIO()
    tiny.save(file, "JPEG", quality=90, subsampling=0)
    data = file.getvalue()
    scan = data.index(b"\xff\xda")
    middle = scan + (len(data) - scan) // 2
    for name, jpeg in [
        ("junk_at_end", data[:-2] + b"\0\0" + data[-2:]), ("without_end", data[:-2]), ("cut", data[:middle]),
        ("damaged", data[:middle] + bytes(20) + data[middle + 20 :]),
        ("odd_profile", data[:2] + b"\xff\xe2\0\x10ICC_PROFILE\0\1\1" + data[2:]),
        ("junk_in_head", data[:scan] + b"junk" + data[scan:]),
    ]:  # fmt: skip
        yield f"tiff_jpeg_{name}.tif", tiff(np.asarray(tiny), 6, compression=7, encoder=lambda _: jpeg), None


def other_tiff_files(tiny):
    """(Name, bytes, and the file whose pixels it has) of what Pillow shows wrongly or rejects."""
    rgb = np.asarray(tiny)
    gray = np.asarray(tiny.convert("L"))[..., None]
    la = with_samples(gray, None)
    wide = rgb.astype("u2") * 257
    wide[..., 0] -= 5
    floats = gray.astype("f4") + 0.75
    for name, like, data in [
        ("big_big_endian", "big", tiff(rgb, 2, big=True, order=">", **DEFLATE)),
        ("rgb16_planar_raw", "rgb16_planar", tiff(wide, 2, planar=2, rows=6)),
        ("la_planar", "la", tiff(la, 1, extra=[2], planar=2, tile=TILE, **DEFLATE)),
        ("la16", "la", tiff(la * np.uint16(257), 1, extra=[2], order=">", **PREDICTED)),
        ("float_deflate_be", "float", tiff(floats, 1, order=">", **PREDICTED)),
        ("fill_order_2_planar", "big", tiff(rgb, 2, planar=2, fill_order=2)),
        ("gray16_inverted", "lx_planar", tiff(65535 - gray * np.uint16(257), 0, **DEFLATE)),
    ]:
        yield f"tiff_{name}.tif", data, f"tiff_{like}.tif"


def refused_files(tiny):
    """(Name, bytes, the tag and value that the error names)."""
    rgb = np.asarray(tiny)
    gray = np.asarray(tiny.convert("L"))[..., None]
    floats = gray.astype("f4")
    for name, found, data in [
        ("extra_order", "ExtraSamples (tag 338) is 0, 2", tiff(with_samples(rgb, 1, 2), 2, extra=[0, 2])),
        ("extra_missing", "ExtraSamples (tag 338) is missing", tiff(with_samples(gray, 1), 1)),
        ("cmyk_alpha", "ExtraSamples (tag 338) is 2", tiff(with_samples(rgb, 1, 2), 5, extra=[2])),
        ("predictor_bits", "Predictor (tag 317) is 2 with 4 bits",
         tiff(gray >> 4, 1, bits=4, tags={317: (SHORT, [2])}, **DEFLATE)),
        ("predictor_kind", "Predictor (tag 317) is 3 with 8 bits", tiff(rgb, 2, tags={317: (SHORT, [3])}, **DEFLATE)),
        ("fill_order", "FillOrder (tag 266) is 3", tiff(rgb, 2, tags={266: (SHORT, [3])})),
        ("planar", "PlanarConfiguration (tag 284) is 3", tiff(rgb, 2, tags={284: (SHORT, [3])})),
        ("float_range", "SampleFormat (tag 339) is 3 with 32 bits and no sample above 0.7", tiff(floats / 255, 1)),
        ("float_negative", "SampleFormat (tag 339) is 3 with 32 bits and a sample of -", tiff(floats - 99, 1)),
        ("int16_range", "SampleFormat (tag 339) is 2 with 16 bits and a sample of ", tiff(gray.astype("i2") * 9, 1)),
        ("float_rgb", "SampleFormat (tag 339) is 3", tiff(rgb.astype("f4"), 2)),
        ("float64", "BitsPerSample (tag 258) is 64 (floating point)", tiff(gray.astype("f8"), 1)),
        ("bits_differ", "BitsPerSample (tag 258) is 5, 6, 5 for 3 samples", tiff(rgb, 2, tags={258: (SHORT, [5, 6, 5])})),
        ("bits_12", "BitsPerSample (tag 258) is 12", tiff(gray, 1, tags={258: (SHORT, [12])})),
        ("lab", "PhotometricInterpretation (tag 262) is 8 (L*a*b*)", tiff(rgb, 8)),
        ("mask", "PhotometricInterpretation (tag 262) is 4 (transparency mask)", tiff(gray, 4)),
        ("ycbcr_subsampled", "YCbCrSubSampling (tag 530) is 2, 2", tiff(rgb, 6, tags={530: (SHORT, [2, 2])})),
        ("zstandard", "Compression (tag 259) is 50000 (Zstandard)", tiff(rgb, 2, tags={259: (SHORT, [50000])})),
        ("group3_2d", "T4Options (tag 292) is 1",
         tiff(gray & 1, 1, bits=1, tags={259: (SHORT, [3]), 292: (LONG, [1])})),
        ("palette_8_bit", "ColorMap (tag 320) is of 8-bit values",
         tiff(gray, 3, tags={320: (SHORT, np.arange(768) % 256)})),
        ("tile", "TileWidth (tag 322) is 4096", tiff(rgb, 2, tags={322: (SHORT, [4096]), 323: (SHORT, [4096])}, tile=TILE)),
    ]:  # fmt: skip
        yield f"tiff_refused_{name}.tif", found, data


def bmp(width, height, bits, compression, body, palette=b"", masks=b"", size=40):
    header = struct.pack("<IiiHHIIiiII", size, width, height, 1, bits, compression, 0, 0, 0, len(palette) // 4, 0)
    header += masks
    header += bytes(max(0, size - len(header)))
    start = 14 + len(header) + len(palette)
    return struct.pack("<2sIHHI", b"BM", start + len(body), 0, 0, start) + header + palette + body


def bmp_files(tiny):
    rgb = np.asarray(tiny).astype("u2")[::-1]

    def rows(red, green, blue, top=0):
        pixels = (rgb[..., 0] >> 3) << red | rgb[..., 1] >> (8 - green) << 5 | rgb[..., 2] >> 3 << blue | top
        return np.pad(pixels.astype("<u2"), [(0, 0), (0, 1)]).tobytes()

    width, height = tiny.size
    masks = struct.pack("<3I", 0xF800, 0x7E0, 0x1F)
    yield "bmp_555.bmp", bmp(width, height, 16, 0, rows(10, 5, 0)), None
    yield "bmp_565.bmp", bmp(width, height, 16, 3, rows(11, 6, 0), masks=masks), None
    # The top bit is set in every second column only.
    masks = struct.pack("<4I", 0x7C00, 0x3E0, 0x1F, 0x8000)
    top = (np.arange(width) % 2 << 15).astype("u2")
    data = bmp(width, height, 16, 3, rows(10, 5, 0, top), masks=masks, size=108)
    yield "bmp_1555.bmp", data, "Pillow ignores the bit of alpha"
    colors = b"\x30\x60\xc0\0" + bytes(range(60))
    # Runs, skipped pixels to the right and below, literal pixels, a row that is cut.
    before = [5, 3, 0, 2, 4, 0, 6, 9, 0, 0, 3, 1, 0, 2, 2, 3, 4, 7]
    after = [0, 0, 9, 11, 0, 0] + [12, 4, 0, 0] * 3 + [2, 1, 0, 0, 20, 5, 0, 1]
    for bits, compression, literal in ((8, 1, [0, 3, 1, 2, 3, 0]), (4, 2, [0, 3, 0x12, 0x30])):
        data = bmp(20, 11, bits, compression, bytes(before + literal + after), palette=colors)
        yield f"bmp_rle{bits}_skips.bmp", data, "skipped pixels have the first color"
        whole = colors.ljust(4 << bits, b"\x50")
        data = bytearray(bmp(20, 11, bits, compression, bytes(before + literal + after), palette=whole))
        data[10:14] = struct.pack("<I", 54)
        data[46:50] = bytes(4)
        yield f"bmp_rle{bits}_offset.bmp", bytes(data), "the pixels are said to begin with the palette"


    data = bytearray(bmp(20, 11, 8, 0, bytes(range(220)), palette=bytes(range(256)) * 4))
    data[10:14] = struct.pack("<I", 54)
    yield "bmp_offset.bmp", bytes(data), "the pixels are said to begin with the palette"


def gif_files(tiny):
    few = tiny.quantize(16, dither=Image.Dither.NONE)
    file = io.BytesIO()
    few.save(file, "GIF")
    plain = file.getvalue()

    def framed(data, screen, left, top):
        data = bytearray(data)
        data[6:10] = struct.pack("<HH", *screen)
        at = data.index(b"\x2c\0\0\0\0")
        data[at + 1 : at + 5] = struct.pack("<HH", left, top)
        return bytes(data)

    yield "gif_small_frame.gif", framed(plain, (50, 40), 9, 5), "the rest has the first color"
    file = io.BytesIO()
    few.save(file, "GIF", transparency=3)
    yield "gif_small_frame_transparent.gif", framed(file.getvalue(), (50, 40), 9, 5), "the rest is transparent"
    length = 3 << (plain[10] & 7) + 1
    data = bytes([*plain[:10], plain[10] & 0x7F, *plain[11:13], *plain[13 + length :]])
    yield "gif_no_palette.gif", data, "the indices are levels of gray"
    data = plain[: 13 + length] + b"\x21\x42\2ab\0" + plain[13 + length :]
    yield "gif_unknown_extension.gif", data, None
    yield "gif_large_frame.gif", framed(plain, (20, 12), 2, 1), "the frame enlarges the screen"
