"""Measures the memory of a running server while it decodes large images.

    pip install pillow==13.0.0
    dinoserve serve --model dinov2-small-focus --cache-mb 0 --max-requests 100 &
    python decoding_memory.py --pid PID [--url http://127.0.0.1:8000]

For each kind of file it prints how many were sent at the same time, the statuses of the answers,
the longest time of one, and the memory of the process at the peak above that at rest (Linux).
"""

import argparse
import collections
import concurrent.futures
import io
import struct
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from PIL import Image

Image.MAX_IMAGE_PIXELS = None
PHOTO = Path(__file__).resolve().parent / "../tests/golden/dinov2-small-focus/chelsea.png"


def encoded(width, height, kind, **options):
    photo = Image.open(PHOTO).convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    photo.save(file, kind, **options)
    return file.getvalue()


def jpeg(progressive):
    exif = Image.Exif()
    exif[0x0112] = 6  # upright phones write this
    file = encoded(12000, 9000, "JPEG", quality=90, progressive=progressive, exif=exif)
    return lambda number: file[:2] + b"\xff\xfe\0\4" + struct.pack(">H", number) + file[2:]


def webp():
    file = encoded(7000, 7000, "WEBP", quality=80, method=0)
    end = struct.pack("<I", len(file) + 4)
    return lambda number: file[:4] + end + file[8:] + b"JUNK" + struct.pack("<II", 4, number)


def tiff():
    file = encoded(7000, 7000, "TIFF", compression="tiff_adobe_deflate", tiffinfo={317: 2})
    return lambda number: file + struct.pack("<I", number)


def png():
    file = encoded(12000, 9000, "PNG", compress_level=1)
    return lambda number: file + struct.pack("<I", number)


def memory(pid, name):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1000  # kB to MB


def measure(arguments, name, make, count):
    files = [make(number) for number in range(count)]
    rest = min(memory(arguments.pid, "VmRSS") for _ in range(20) if time.sleep(0.5) is None)
    peak, done = [rest], threading.Event()

    def watch():
        while not done.wait(0.005):
            peak[0] = max(peak[0], memory(arguments.pid, "VmRSS"))

    def send(file):
        headers = {"content-type": "application/octet-stream"}
        request = urllib.request.Request(arguments.url + "/v1/embed?size=224", file, headers)
        began = time.time()
        try:
            with urllib.request.urlopen(request) as answer:
                status = answer.status
        except urllib.error.HTTPError as error:
            status = error.code
        return status, time.time() - began

    watching = threading.Thread(target=watch)
    watching.start()
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(send, files))
    done.set()
    watching.join()
    statuses = dict(collections.Counter(status for status, _ in answers))
    longest = max(seconds for _, seconds in answers)
    size = len(files[0]) / 1e6
    print(
        f"{count:3} {name} of {size:.0f} MB: {statuses}, {longest:.1f} s, "
        f"{peak[0] - rest:.0f} MB above {rest:.0f} MB at rest",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    arguments = parser.parse_args()
    for name, make, counts in [
        ("JPEG, 108 megapixels, turned", jpeg(False), [1, 32]),
        ("progressive JPEG, 108 megapixels, turned", jpeg(True), [1, 4]),
        ("PNG, 108 megapixels", png(), [1, 4]),
        ("WebP, 49 megapixels", webp(), [1, 18]),
        ("TIFF, 49 megapixels", tiff(), [1, 18]),
    ]:
        for count in counts:
            measure(arguments, name, make, count)


if __name__ == "__main__":
    main()
