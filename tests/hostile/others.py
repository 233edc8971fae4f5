"""What is no image, or more than one, made of the valid files of all formats."""

import random
import zlib

from avif import VALID_AVIF
from bmp import bmp, bmp_info
from building import EXTENSIONS, MIB, RGB, Cases
from gif import GREYS, gif_frame, gif_screen
from jpeg import COM, FLAT_BLOCK, jpeg, jpeg_bits, jpeg_parts, jpeg_progressive, jpeg_segment
from png import PNG, png_chunk, png_parts
from tiff import tiff
from webp import ALPHA, ANIMATION, canvas, frame, lossless, lossy, webp_parts

VALID_PARTS = {
    "png": [png_parts(png_chunk(b"tEXt", b"Title\0plain"))],
    # The first of the four blocks is 5 steps brighter, and the others with it.
    "jpeg": [list(jpeg_parts(blocks=jpeg_bits([(0b100, 3), (5, 3), (0b1010, 4)] + [FLAT_BLOCK] * 3)).values()),
             list(jpeg_parts(24, 20, (0x22, 0x11, 0x11)).values()), [jpeg_progressive(16, 16, 3)]],
    "gif": [[b"GIF89a", gif_screen()[6:13], GREYS, b"\x21\xf9\x04\0\x0a\0\0\0", gif_frame(), b"\x21\xfe\1x\0;"]],
    "bmp": [[bmp()[:14], bmp_info(), RGB],
            [bmp(bmp_info(bits=8, compression=1), b"\x10\5\0\0" * 16 + b"\0\1", bytes(range(256)) * 4)]],
    "tiff": [[tiff()[:8], RGB, tiff()[776:]], [tiff(zlib.compress(RGB), compression=8, order=">")]],
    "webp": [webp_parts(lossless()), webp_parts(lossy()), webp_parts(canvas(16), ALPHA, lossy()),
             webp_parts(canvas(2), ANIMATION, frame(lossless()), frame(lossless()))],
    "avif": VALID_AVIF,
}  # fmt: skip
VALID = {name: [b"".join(parts) for parts in all_parts] for name, all_parts in VALID_PARTS.items()}
MAGIC = {
    "png": PNG, "jpeg": b"\xff\xd8\xff\xe0", "gif": b"GIF89a", "bmp": b"BM", "tiff": b"II*\0",
    "webp": VALID["webp"][1][:16], "avif": VALID["avif"][0][:28],
}  # fmt: skip
# Known to image libraries, but not what is asked for.
OTHER_MAGIC = {
    "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "jxl": b"\0\0\0\x0cJXL \r\n\x87\n", "ico": b"\0\0\1\0\1\0\xff\xff",
    "psd": b"8BPS\0\1", "exr": b"v/1\1\2\0\0\0", "hdr": b"#?RADIANCE\n", "dds": b"DDS |\0\0\0",
    "ppm": b"P6 99999999 99999999 65535\n", "qoi": b"qoif" + b"\xff" * 8, "farbfeld": b"farbfeld" + b"\xff" * 8,
}  # fmt: skip
SCRIPT = b"<script>alert(document.domain)</script>"
ZIP = b"PK\5\6" + bytes(18)  # An archive of nothing: it may stand behind anything.


def other_files() -> Cases:
    laughs = "".join(f'<!ENTITY l{number} "{f"&l{number - 1};" * 10}">' for number in range(1, 10))
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    image = b'<image href="http://127.0.0.1/"/>'
    for name, content, extension in [
        ("html", b"<!DOCTYPE html><html><body>" + SCRIPT + b"</body></html>", "html"),
        ("svg", b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)">' + image + b"</svg>", "svg"),
        ("svg-entity", b'<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg><text>&x;</text></svg>', "svg"),
        ("xml-laughs", f'<!DOCTYPE l0 [<!ENTITY l0 "ha">{laughs}]><l0>&l9;</l0>'.encode(), "xml"),
        ("pdf", b"%PDF-1.4\n1 0 obj<</OpenAction<</S/JavaScript/JS(app.alert(1))>>>>endobj\n%%EOF", "pdf"),
        ("pdf-with-jpeg", b"%PDF-1.4\n1 0 obj<</Filter/DCTDecode>>stream\n" + jpeg() + b"\nendstream", "pdf"),
        ("zip", ZIP, "zip"),
        ("gzip-bomb", compressor.compress(bytes(64 * MIB)) + compressor.flush(), "gz"),
        ("antivirus-lookalike", b"X5O!P%@AP[4-this-only-looks-like-the-ANTIVIRUS-TEST-FILE!$H+H*", "com"),
        ("utf16-text", b"\xff\xfe" + "Text, with a mark of its byte order.".encode("utf-16-le"), "txt"),
        ("utf8-text", "Über 한국어 \u202etxt.exe \U0001f4a9".encode(), "txt"),
        ("control-characters", b"\x1b]0;title\x07\x1b[2J\r\n\0{}%s%n", "txt"),
        ("data-uri", b"data:image/png;base64,iVBORw0KGgo=", "txt"), ("empty", b"", "bin"), ("one-byte", b"\xff", "bin"),
        ("zeros", bytes(99_999), "bin"), ("ones", b"\xff" * 99_999, "bin"), ("line-of-1-mib", b"a" * MIB, "txt"),
        ("gif-and-script", b"GIF89a=1/*" + bytes(50) + b"*/;alert(1)", "gif"),
        ("jpeg-with-script", jpeg(application=jpeg_segment(COM, SCRIPT + b"<?php system($_GET[0]); ?>")), "jpg"),
        ("riff-wave", b"RIFF\x24\0\0\0WAVEfmt " + bytes(28), "webp"),
    ]:  # fmt: skip
        yield name, content, extension
    dice = random.Random("hostile other files")
    for size in (1, 16, 1000, 99_999):
        yield f"noise-of-{size}-bytes", dice.randbytes(size)
    for name, magic in {**OTHER_MAGIC, **MAGIC}.items():
        yield f"{name}-magic-then-noise", magic + dice.randbytes(2000), EXTENSIONS.get(name, name)
        yield f"{name}-magic-then-zeros", magic + bytes(2000), EXTENSIONS.get(name, name)
        yield f"{name}-magic-then-ones", magic + b"\xff" * 2000, EXTENSIONS.get(name, name)
    for name, (base, *_) in VALID.items():
        for second, magic in MAGIC.items():
            if second != name:
                yield f"{second}-magic-over-{name}", magic + base[len(magic) :], EXTENSIONS[second]
                yield f"{name}-named-{second}", base, EXTENSIONS[second]
        for what, content in {
            f"{name}-then-zip": base + ZIP, f"{name}-then-script": base + SCRIPT,
            f"{name}-twice": base * 2, f"newline-then-{name}": b"\r\n" + base,
            f"{name}-read-as-text": base.decode("latin-1").encode("utf-8"),
        }.items():  # fmt: skip
            yield what, content, EXTENSIONS[name]
