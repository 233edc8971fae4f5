#!/usr/bin/env python3
"""Writes a corpus of hostile image files: each is a reason for a decoder to crash, to hang or to take all memory.

    generate.py OUT_DIR         needs only Python's standard library

Files are named `<format>-<what>-<n>.<extension>` and OUT_DIR/index.json lists them; the bytes are the same on each run.
Most files are broken. Some are in order and only large or odd, and `<format>-valid-<n>` are plain pictures: whatever
takes these files may show a picture or refuse one, but it must answer, and live on.
"""

import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path

# No folder of compiled modules in the source.
sys.dont_write_bytecode = True

from avif import avif_bombs, avif_lies, avif_overlaps
from bmp import bmp_bombs, bmp_kinds, bmp_lies
from building import EXTENSIONS, MIB, mutated, truncated
from gif import gif_bombs, gif_lies
from jpeg import jpeg_bombs, jpeg_lies, jpeg_metadata, jpeg_tables_and_data
from others import VALID, VALID_PARTS, other_files
from png import png_bombs, png_colours, png_defects, png_lies, png_metadata
from tiff import tiff_bombs, tiff_combinations, tiff_kinds, tiff_lies
from webp import webp_bombs, webp_lies, webp_lossless

FAMILIES = {
    "png": [png_bombs, png_colours, png_lies, png_metadata, png_defects],
    "jpeg": [jpeg_bombs, jpeg_lies, jpeg_tables_and_data, jpeg_metadata],
    "gif": [gif_bombs, gif_lies],
    "bmp": [bmp_bombs, bmp_kinds, bmp_lies],
    "tiff": [tiff_bombs, tiff_kinds, tiff_combinations, tiff_lies],
    "webp": [webp_bombs, webp_lossless, webp_lies],
    "avif": [avif_bombs, avif_overlaps, avif_lies],
    "other": [other_files],
}


def corpus() -> Iterator[tuple]:
    """(Format, what, bytes, extension) of all files."""
    for name, families in FAMILIES.items():
        cases = [("valid", base) for base in VALID.get(name, [])]
        for family in families:
            cases += family()
        for parts in VALID_PARTS.get(name, []):
            cases += truncated(parts)
        if name in VALID:
            cases += mutated(VALID[name], 40, random.Random(f"hostile {name}"))
        for what, data, *extension in cases:
            yield (name, what, data, *(extension or [EXTENSIONS[name]]))


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    index, numbers, sizes = [], {}, {}
    for name, what, data, extension in corpus():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", what), what
        number = numbers[name, what] = numbers.get((name, what), 0) + 1
        file = f"{name}-{what}-{number}.{extension}"
        assert len(data) < 8 * MIB, f"{file} has {len(data)} bytes"
        (folder / file).write_bytes(data)
        index.append({"file": file, "format": name, "what": what})
        sizes.setdefault(name, []).append(len(data))
    (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n")
    for name, all_sizes in sizes.items():
        print(f"{name:6} {len(all_sizes):5} files {sum(all_sizes) / MIB:6.2f} MiB")
    total = sum(map(sum, sizes.values()))
    print(f"all    {len(index):5} files {total / MIB:6.2f} MiB")
    assert len(index) >= 250 and total < 45 * 1000 * 1000, "the corpus is not of the size that it is to have"


if __name__ == "__main__":
    main()
