"""The calls that both clients make: what is sent, and how the answer is read. Requests are sent elsewhere."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Generic, TypeVar
from urllib.parse import quote

import httpx
import numpy as np
import numpy.typing as npt
import PIL.Image

from . import _api as api
from ._images import Image, Images, encoded, is_one, several

Floats = npt.NDArray[np.float32]
Masks = npt.NDArray[np.bool_]
Classes = npt.NDArray[np.uint8]
"""Classes of pixels `[height, width]`; 255 where there is none."""
Labels = npt.NDArray[np.integer[Any] | np.bool_]
ClassMask = str | os.PathLike[str] | bytes | bytearray | memoryview | PIL.Image.Image | Labels
"""The classes of the pixels of an image, upright and as large: 0 to 254, and 255 for pixels that are left out. A mask
is the path of a PNG file, the bytes of one, a Pillow image of mode `L`, `P` or `1`, or an array `[height, width]` of
integers or booleans. Indices of a palette are classes."""
ClassMasks = ClassMask | Iterable[ClassMask]
"""One mask, or several; also an array `[images, height, width]`."""
Vector = Sequence[float] | npt.NDArray[np.floating[Any]]
"""A vector: numbers, or an array `[dim]`."""

T = TypeVar("T")


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request, and the reader of its answer."""

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    options: Mapping[str, Any] = field(default_factory=dict)
    accept: str = "application/json"
    files: Sequence[bytes] = ()
    """Images: one is the body, several are a form."""
    masks: Sequence[bytes] = ()
    """Masks of the images, of a form."""
    items: Sequence[Mapping[str, Any]] | None = None
    """What a gallery stores of each file of a form."""
    body: Mapping[str, Any] | None = None
    """A JSON body."""

    def arguments(self) -> dict[str, Any]:
        """Returns the arguments of `httpx.Client.request`."""
        found: dict[str, Any] = {
            "method": self.method,
            "url": self.path,
            "params": {name: text(value) for name, value in self.options.items() if value is not None},
            "headers": {"Accept": self.accept},
        }
        if self.body is not None:
            found["content"] = json.dumps(self.body, default=plain).encode()
            found["headers"]["Content-Type"] = "application/json"
        elif self.items is not None or self.masks or len(self.files) > 1:
            found["files"] = [("image", (str(index), file)) for index, file in enumerate(self.files)]
            found["files"] += [("mask", (str(index), file)) for index, file in enumerate(self.masks)]
            if self.items is not None:
                found["data"] = {"items": json.dumps(self.items, default=plain)}
        elif self.files:
            found["content"] = self.files[0]
            found["headers"]["Content-Type"] = "application/octet-stream"
        return found


@dataclass(frozen=True)
class Pca:
    """PCA maps of images in one basis."""

    maps: list[Floats]
    """`[rows, columns, components]` for each image, 0 to 1."""
    explained: Floats
    """`[components]`: the share of the variance that each explains."""
    foreground: list[npt.NDArray[np.bool_]] | None
    """`[rows, columns]` for each image: whether a patch is foreground. Only with `foreground="auto"`."""


def text(value: Any) -> str:
    """Returns an option as text."""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return json.dumps(value, default=plain)
    if isinstance(value, tuple | list | np.ndarray):
        return ",".join(str(part) for part in value)
    return str(value)


def plain(value: Any) -> Any:
    """Returns a number of NumPy as one of Python, for JSON."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not JSON")


def array(response: httpx.Response) -> Floats:
    """Reads an `.npy` file."""
    loaded: Floats = np.load(io.BytesIO(response.content), allow_pickle=False)
    return loaded


def picture(response: httpx.Response) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(response.content))


def nothing(_: httpx.Response) -> None:
    return None


def answer() -> Callable[[httpx.Response], Any]:
    """Returns a reader of a whole JSON answer."""
    return lambda response: response.json()


def part(name: str) -> Callable[[httpx.Response], Any]:
    """Returns a reader of one member of a JSON answer."""
    return lambda response: response.json()[name]


def below(path: str, name: str) -> str:
    """Returns the path of a thing by its name."""
    if not isinstance(name, str):
        raise TypeError(f"a name is a string, not {type(name).__name__}")
    if name in ("", ".", ".."):
        raise ValueError(f"{name!r} cannot be a name in an address")
    return f"{path}/{quote(name, safe='')}"


def embed(files: list[bytes], options: Mapping[str, Any]) -> Call[Floats]:
    return Call("POST", "/v1/embed", array, options, "application/x-npy", files)


def tokens(image: Image, options: Mapping[str, Any]) -> Call[Floats]:
    def read(response: httpx.Response) -> Floats:
        found = response.json()["data"][0]
        values = np.frombuffer(base64.b64decode(found["tokens"]), "<f4")
        return values.reshape(*found["grid"], -1).astype(np.float32)

    wanted = {**options, "tokens": True, "encoding_format": "base64"}
    return Call("POST", "/v1/embed", read, wanted, files=[encoded(image)])


def pca(images: Images, options: Mapping[str, Any]) -> Call[Pca]:
    def read(response: httpx.Response) -> Pca:
        found: api.PcaJson = response.json()
        maps = [np.asarray(image["map"], np.float32) for image in found["data"]]
        masks = [np.asarray(mask, np.bool_) for image in found["data"] if (mask := image.get("foreground")) is not None]
        return Pca(maps, np.asarray(found["explained"], np.float32), masks or None)

    return Call("POST", "/v1/pca", read, options, files=several(images))


def attention(images: Images, options: Mapping[str, Any]) -> Call[list[Floats]]:
    def read(response: httpx.Response) -> list[Floats]:
        found: api.AttentionJson = response.json()
        return [np.asarray(image["attention"], np.float32).reshape(-1, *image["grid"]) for image in found["data"]]

    return Call("POST", "/v1/attention", read, options, files=several(images))


def attention_stats(images: Images, options: Mapping[str, Any]) -> Call[list[api.HeadStatsItem]]:
    return Call("POST", "/v1/attention/stats", part("data"), options, files=several(images))


def similarity(images: Images, options: Mapping[str, Any]) -> Call[list[Floats]]:
    def read(response: httpx.Response) -> list[Floats]:
        found: api.SimilarityJson = response.json()
        return [np.asarray(image["similarity"], np.float32) for image in found["data"]]

    return Call("POST", "/v1/similarity", read, options, files=several(images))


def match(first: Image, second: Image, options: Mapping[str, Any]) -> Call[api.MatchesJson]:
    return Call("POST", "/v1/match", answer(), options, files=[encoded(first), encoded(second)])


def objects(image: Image, options: Mapping[str, Any]) -> Call[list[api.ObjectJson]]:
    return Call("POST", "/v1/objects", part("objects"), options, files=[encoded(image)])


def object_masks(image: Image, options: Mapping[str, Any]) -> Call[Masks]:
    def read(response: httpx.Response) -> Masks:
        loaded: npt.NDArray[np.uint8] = np.load(io.BytesIO(response.content), allow_pickle=False)
        return loaded.astype(np.bool_)

    return Call("POST", "/v1/objects", read, options, "application/x-npy", [encoded(image)])


def bank(method: str, name: str, images: Images, options: Mapping[str, Any]) -> Call[api.BankJson]:
    return Call(method, below("/v1/anomaly", name), answer(), options, files=several(images))


def score(name: str, image: Image, options: Mapping[str, Any]) -> Call[api.AnomalyJson]:
    return Call("POST", below("/v1/anomaly", name) + "/score", answer(), options, files=[encoded(image)])


def anomaly_map(name: str, image: Image, options: Mapping[str, Any]) -> Call[Floats]:
    return Call("POST", below("/v1/anomaly", name) + "/score", array, options, "application/x-npy", [encoded(image)])


def anomaly_image(name: str, image: Image, options: Mapping[str, Any]) -> Call[PIL.Image.Image]:
    return map_image(below("anomaly", name) + "/score", image, options)


def encoded_mask(mask: ClassMask) -> bytes:
    """Returns a mask as a file. Classes of pixels become a gray PNG."""
    if isinstance(mask, PIL.Image.Image):
        if mask.mode not in ("L", "P", "1"):
            raise TypeError(f"an image of mode {mask.mode} is not a mask; its mode must be L, P or 1")
        # An image with a palette keeps its indices, which its file would cut off behind the last color.
        mask = np.asarray(mask)
    if not isinstance(mask, np.ndarray):
        return encoded(mask)
    if mask.ndim != 2 or not (np.issubdtype(mask.dtype, np.integer) or mask.dtype == np.bool_):
        shape = "×".join(map(str, mask.shape))
        raise TypeError(f"an array {shape} of {mask.dtype} is not a mask; it must be [height, width] of integers")
    if mask.size and not (mask.min() >= 0 and mask.max() <= 255):
        found = f"{mask.min()} to {mask.max()}"
        raise ValueError(f"a mask has values of {found}; classes are 0 to 254, and 255 is left out")
    return encoded(mask.astype(np.uint8))


def masks_of(masks: ClassMasks) -> list[bytes]:
    """Returns one mask or several as files."""
    if is_one(masks) and not (isinstance(masks, np.ndarray) and masks.ndim == 3):
        return [encoded_mask(masks)]  # type: ignore[arg-type]
    return [encoded_mask(mask) for mask in masks]  # type: ignore[arg-type, union-attr]


def segmenter(name: str, images: Images, masks: ClassMasks, options: Mapping[str, Any]) -> Call[api.SegmenterJson]:
    files, theirs = several(images), masks_of(masks)
    if len(files) != len(theirs):
        raise ValueError(f"there are {len(files)} images and {len(theirs)} masks; give a mask for each image")
    return Call("PUT", below("/v1/segmenters", name), answer(), options, files=files, masks=theirs)


def segment(name: str, image: Image, options: Mapping[str, Any]) -> Call[Classes]:
    def read(response: httpx.Response) -> Classes:
        return np.array(picture(response), np.uint8)

    wanted = {**options, "segmenter": name, "output": "mask"}
    return Call("POST", "/v1/segment", read, wanted, "image/png", [encoded(image)])


def segments(name: str, image: Image, options: Mapping[str, Any]) -> Call[list[api.SegmentJson]]:
    return Call("POST", "/v1/segment", part("classes"), {**options, "segmenter": name}, files=[encoded(image)])


def segment_logits(name: str, image: Image, options: Mapping[str, Any]) -> Call[Floats]:
    wanted = {**options, "segmenter": name}
    return Call("POST", "/v1/segment", array, wanted, "application/x-npy", [encoded(image)])


def segment_image(name: str, image: Image, options: Mapping[str, Any]) -> Call[PIL.Image.Image]:
    return map_image("segment", image, {"output": "overlay", **options, "segmenter": name})


def map_image(route: str, images: Images, options: Mapping[str, Any]) -> Call[PIL.Image.Image]:
    return Call("POST", f"/v1/{route}", picture, options, "image/png", several(images))


def query(
    method: str,
    path: str,
    read: Callable[[httpx.Response], T],
    image: Image | None,
    vector: Vector | None,
    options: Mapping[str, Any],
    features: Vector | None = None,
) -> Call[T]:
    """Returns a call about one image or one vector, which can have features for probes."""
    if (image is None) == (vector is None):
        raise TypeError("give either an image or a vector")
    if image is not None:
        if features is not None:
            raise TypeError("`features` are for vectors; the model makes those of an image")
        return Call(method, path, read, options, files=[encoded(image)])
    body = {"vector": numbers(vector)}
    if features is not None:
        body["features"] = numbers(features)
    return Call(method, path, read, options, body=body)


def numbers(vector: Vector | None) -> list[float]:
    """Returns a vector as JSON."""
    values = np.asarray(vector, np.float32)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError("a vector is a list of finite numbers")
    found: list[float] = values.tolist()
    return found


def items_of(
    images: Mapping[str, Image],
    labels: Mapping[str, str] | None,
    metadata: Mapping[str, Mapping[str, Any]] | None,
) -> list[dict[str, Any]]:
    """Returns what a gallery stores of each image."""
    items: dict[str, dict[str, Any]] = {id: {"id": id} for id in images}
    for name, values in (("label", labels), ("metadata", metadata)):
        for id, value in (values or {}).items():
            if id not in items:
                raise ValueError(f"there is a {name} for {id!r}, but no image")
            items[id][name] = value
    return list(items.values())


def put_items(
    files: Sequence[bytes], items: Sequence[Mapping[str, Any]], options: Mapping[str, Any]
) -> Call[list[api.BatchOutcome]]:
    return Call("POST", "/v1/gallery", part("data"), options, files=files, items=items)


def basis(method: str, name: str, images: Images | None, options: Mapping[str, Any]) -> Call[api.Basis]:
    if images is None and "gallery" not in options:
        raise TypeError("give images, or a gallery whose thumbnails are used")
    files = () if images is None else several(images)
    return Call(method, below("/v1/bases", name), answer(), options, files=files)


def update(id: str, options: api.UpdateItemOptions) -> Call[api.ItemWithVector]:
    body = {name: value for name, value in options.items() if name not in ("gallery", "model")}
    place = {name: value for name, value in options.items() if name in ("gallery", "model")}
    return Call("PATCH", below("/v1/gallery", id), answer(), place, body=body)


def base_url(url: str) -> str:
    """Checks the address of a server. The `/v1` that clients of OpenAI's API want is left out."""
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"the address {url!r} has no http:// or https://")
    return url.rstrip("/").removesuffix("/v1")


def cut_off(call: Call[Any], error: httpx.TransportError) -> httpx.TransportError:
    """Explains a connection that a server has closed while a large body was sent."""
    size = sum(len(file) for file in (*call.files, *call.masks))
    if size < 1 << 20:
        return error
    detail = f"the server closed the connection while {size} bytes were sent; its --max-body-bytes may be lower"
    return type(error)(detail, request=error.request)


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Opens a file that appears under its name only when it is complete."""
    unfinished = f"{os.fspath(path)}.partial"
    try:
        with open(unfinished, "wb") as file:
            yield file
        os.replace(unfinished, path)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise
