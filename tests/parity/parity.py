#!/usr/bin/env python3
"""Compares how dinoserve and Pillow read the files of a folder, pixel by pixel.

    parity.py PROGRAM FOLDER [--out FILE.jsonl] [--exceptions FILE.json]

PROGRAM       the dinoserve binary; its command `decode` gives the pixels
FOLDER        all files below it are read, whatever their names; each content once
--out         a file for one JSON object per file
--exceptions  a JSON object of what may differ: {"NAME": figure} for the largest difference of a
              file, {"NAME": "refused"} for one that only Pillow reads; a name may have the
              wildcard *; anything else that differs or is refused is a failure

Pillow's side is what docs/limits.md promises: the first frame, turned upright, transparent pixels
over white with (c*a + 255*(255-a) + 127) // 255, and 16-bit gray by its high byte.

    equal        the same pixels
    differs      other pixels, or another size
    refused      only Pillow reads the file
    lenient      only dinoserve reads it
    both refuse  neither reads it
    fault        dinoserve crashed, panicked or hung
    skipped      Pillow crashed or hung
"""

import argparse
import collections
import fnmatch
import hashlib
import io
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

PATIENCE = 60.0
OUTCOMES = ["equal", "differs", "refused", "lenient", "both refuse", "fault", "skipped"]


# ---------------------------------------------------------------- Pillow


def rgb_of(image, kind):
    """The pixels of an image by the rules above, as an array of height, width and 3."""
    import numpy as np

    transparency = image.info.get("transparency")
    if image.mode == "I" and kind == "PPM":  # 16 bits
        return np.dstack([(np.asarray(image) >> 8).astype("u1")] * 3)
    if image.mode.startswith("I;16"):
        wide = np.asarray(image).astype("u2")
        rgb = np.dstack([(wide >> 8).astype("u1")] * 3)
        if isinstance(transparency, int):
            rgb[wide == transparency] = 255
        return rgb
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA")).astype("u2")
        alpha = rgba[..., 3:]
        return ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype("u1")
    return np.asarray(image.convert("RGB"))


def read_with_pillow(path):
    """Format, mode, width, height and RGB bytes of a file."""
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(Path(path).read_bytes()))
        kind = image.format
        image.load()
        mode = image.mode
        try:
            image = ImageOps.exif_transpose(image)
        except Exception:  # noqa: BLE001
            pass  # Metadata that cannot be read does not turn the picture.
        rgb = rgb_of(image, kind)
    return kind, mode, rgb.shape[1], rgb.shape[0], rgb.tobytes()


def serve_pillow(pipe):
    from PIL import Image

    Image.init()
    Image.MAX_IMAGE_PIXELS = None
    while True:
        try:
            path = pipe.recv()
        except EOFError:
            return  # The comparison has ended.
        try:
            pipe.send(("read", read_with_pillow(path)))
        except BaseException as error:  # noqa: BLE001
            pipe.send(("refused", f"{type(error).__name__}: {error}"[:300]))


class Pillow:
    """Pillow in a process of its own, because some files crash it or never end."""

    def __init__(self):
        self.process = None

    def read(self, path):
        if self.process is None:
            context = multiprocessing.get_context("spawn")
            self.pipe, other = context.Pipe()
            self.process = context.Process(target=serve_pillow, args=(other,), daemon=True)
            self.process.start()
            other.close()
        try:
            self.pipe.send(str(path))
            if self.pipe.poll(PATIENCE):
                return self.pipe.recv()
            reason = "Pillow hangs"
        except (EOFError, OSError):
            reason = "Pillow crashes"
        self.process.kill()
        self.process.join()
        self.process = None
        return "crashed", reason


# ---------------------------------------------------------------- dinoserve


class Dinoserve:
    """The command `decode`, which reads paths from its standard input."""

    def __init__(self, program):
        self.command = [program, "decode", "--log", "error"]
        self.process = None

    def read(self, path):
        if self.process is None:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        process = self.process
        timer = threading.Timer(PATIENCE, process.kill)
        timer.start()
        try:
            process.stdin.write(os.fsencode(path) + b"\n")
            process.stdin.flush()
            head = process.stdout.readline().decode("utf-8", "replace").rstrip("\n")
            if head.startswith("read "):
                width, height = map(int, head.split()[1:])
                pixels = process.stdout.read(width * height * 3)
                if len(pixels) == width * height * 3:
                    return "read", (width, height, pixels)
            elif head:
                kind, _, detail = head.partition(" ")
                return kind, detail
        except OSError:
            pass
        finally:
            timer.cancel()
        process.kill()
        self.process = None
        return "fault", f"the process ended with {process.wait()}"


# ---------------------------------------------------------------- comparison


def difference(ours, theirs):
    """The figures by which two pictures differ; `None` if they are equal."""
    import numpy as np

    if ours == theirs:
        return None
    if ours[:2] != theirs[:2]:
        return {"size": list(ours[:2]), "size_of_pillow": list(theirs[:2])}
    a, b = (np.frombuffer(one[2], "u1").reshape(-1, 3).astype("i2") for one in (ours, theirs))
    off = abs(a - b).max(axis=1)
    return {
        "largest": int(off.max()),
        "mean": round(float(off.mean()), 4),
        "pixels": int((off > 0).sum()),
        "of": len(off),
    }


def compare(path, pillow, dinoserve):
    kind, theirs = pillow.read(path)
    state, ours = dinoserve.read(path)
    row = {"format": theirs[0] if kind == "read" else "not read by Pillow"}
    if kind == "read":
        row["mode"] = theirs[1]
    else:
        row["pillow"] = theirs
    if state != "read":
        row["dinoserve"] = ours
    if state == "fault":
        return row | {"outcome": "fault"}
    if kind == "crashed":
        return row | {"outcome": "skipped"}
    if kind == "refused":
        return row | {"outcome": "lenient" if state == "read" else "both refuse"}
    if state == "refused":
        return row | {"outcome": "refused"}
    figures = difference(ours, theirs[2:])
    return row | ({"outcome": "equal"} if figures is None else {"outcome": "differs"} | figures)


def is_expected(row, exceptions):
    """Whether the outcome is one that the documents name."""
    name = Path(row["file"]).name
    allowed = [figure for pattern, figure in exceptions.items() if fnmatch.fnmatchcase(name, pattern)]
    if row["outcome"] == "refused":
        return "refused" in allowed
    if row["outcome"] == "differs":
        return any(isinstance(figure, int) and row.get("largest", 256) <= figure for figure in allowed)
    return row["outcome"] in ("equal", "both refuse", "lenient")


def print_counts(rows):
    counts = collections.Counter((row["format"], row["outcome"]) for row in rows)
    formats = sorted({row["format"] for row in rows})
    columns = [outcome for outcome in OUTCOMES if any(counts[one, outcome] for one in formats)]
    width = max(map(len, [*formats, "format"]))
    print("  ".join([f"{'format':{width}}", *columns]))
    for one in formats:
        print("  ".join([f"{one:{width}}", *(f"{counts[one, name]:{len(name)}}" for name in columns)]))
    sums = (sum(counts[one, name] for one in formats) for name in columns)
    print("  ".join([f"{'all':{width}}", *(f"{sum_:{len(name)}}" for sum_, name in zip(sums, columns))]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--exceptions", type=Path)
    options = parser.parse_args()

    pillow, dinoserve = Pillow(), Dinoserve(options.program)
    rows, seen = [], set()
    for path in sorted(path for path in options.folder.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).digest()
        if content in seen or "\n" in str(path):
            continue
        seen.add(content)
        rows.append({"file": str(path.relative_to(options.folder))} | compare(path, pillow, dinoserve))
    if not rows:
        sys.exit(f"parity: there are no files in {options.folder}")
    if options.out:
        options.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print_counts(rows)
    for row in rows:
        if row["outcome"] in ("differs", "refused", "fault"):
            figures = {key: value for key, value in row.items() if key not in ("file", "outcome", "format")}
            print(f"{row['outcome']}: {row['file']} ({row['format']}) {json.dumps(figures)}")
    if options.exceptions:
        exceptions = json.loads(options.exceptions.read_text())
        unexpected = [row for row in rows if not is_expected(row, exceptions)]
        for row in unexpected:
            print(f"unexpected: {json.dumps(row)}")
        sys.exit(bool(unexpected))
    sys.exit(any(row["outcome"] == "fault" for row in rows))


if __name__ == "__main__":
    main()
