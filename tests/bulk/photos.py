"""Small pictures, and the same pictures as each kind of source: files, objects, WebDataset tars and Parquet."""

import io
from dataclasses import dataclass

import numpy as np
import pyarrow
import pyarrow.parquet
import webdataset
from PIL import Image

LABELS = ("bird", "cat", "dog")


@dataclass(frozen=True)
class Photo:
    """A picture as a file. Its name is its path below the folder or prefix."""

    name: str
    data: bytes

    @property
    def label(self) -> str:
        return self.name.split("/")[0]

    @property
    def ending(self) -> str:
        return self.name.rsplit(".", 1)[1]


def picture(seed: int, kind: str, side: int = 48) -> bytes:
    """Returns a file with colored stripes, spots and noise. Each seed has other pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0 : side + 16]
    waves = [np.sin(x * rng.uniform(0.05, 0.6) + y * rng.uniform(0.05, 0.6) + rng.uniform(0, 6)) for _ in range(3)]
    pixels = np.stack(waves, 2) * rng.uniform(30, 120) + rng.uniform(60, 200, 3) + rng.normal(0, 8, (*y.shape, 3))
    file = io.BytesIO()
    options = {"quality": 90} if kind == "JPEG" else {"compress_level": 1}
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, kind, **options)
    return file.getvalue()


def make_photos(count: int) -> list[Photo]:
    """Returns pictures of three labels, sorted by name. Some names have other characters than letters."""
    photos = []
    for index in range(count):
        ending, kind = (("png", "PNG"), ("jpg", "JPEG"))[index % 2]
        extra = " ä+b%20&c" if index % 10 == 7 else ""
        photos.append(Photo(f"{LABELS[index % 3]}/{index:04}{extra}.{ending}", picture(index, kind)))
    return sorted(photos, key=lambda photo: photo.name.encode())


def parts(photos: list[Photo], count: int) -> list[list[Photo]]:
    """Splits a list into parts of nearly the same length."""
    size = -(-len(photos) // count)
    return [photos[first : first + size] for first in range(0, len(photos), size)]


def tar(photos: list[Photo], first: int = 0) -> bytes:
    """Returns a tar by the package webdataset, with samples numbered from `first`, a label and metadata each."""
    file = io.BytesIO()
    # Without times, so that the same pictures are the same bytes.
    with webdataset.TarWriter(file, encoder=False, mtime=0) as writer:
        for number, photo in enumerate(photos, first):
            sample = {"__key__": f"{number:06}", photo.ending: photo.data}
            writer.write(sample | {"cls": photo.label.encode(), "json": f'{{"name": "{photo.name}"}}'.encode()})
    return file.getvalue()


def parquet(table: pyarrow.Table, group: int = 10) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file, row_group_size=group)
    return file.getvalue()


def bytes_table(photos: list[Photo]) -> pyarrow.Table:
    """A table with the files in a column of bytes."""
    columns = {
        "id": pyarrow.array([photo.name for photo in photos], pyarrow.string()),
        "label": pyarrow.array([photo.label for photo in photos], pyarrow.string()),
        "image": pyarrow.array([photo.data for photo in photos], pyarrow.binary()),
    }
    return pyarrow.table(columns)


def hugging_face_table(photos: list[Photo]) -> pyarrow.Table:
    """A table as the library datasets writes it: a struct with the bytes and the path of the file."""
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    images = [{"bytes": photo.data, "path": photo.name} for photo in photos]
    return pyarrow.table({"image": pyarrow.array(images, kind)})


def url_table(bucket: str, prefix: str, photos: list[Photo]) -> pyarrow.Table:
    """A list of addresses as a table."""
    columns = {
        "id": [f"row-{number}" for number in range(len(photos))],
        "path": [f"s3://{bucket}/{prefix}{photo.name}" for photo in photos],
        "label": [photo.label for photo in photos],
    }
    return pyarrow.table(columns)
