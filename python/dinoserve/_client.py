"""The client."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx
import numpy as np
import PIL.Image

from . import _api as api
from . import _calls as calls
from ._calls import Call, Classes, ClassMasks, Floats, Masks, Pca, Vector
from ._images import Image, Images, encoded, is_one, requests_of, several
from ._problem import Problem
from ._retry import Retries

T = TypeVar("T")


class Client:
    """A client of a server.

    `api_key` is sent as a bearer token. A request that the server is too busy for (503, 429) is sent again after the
    time that the server asks for, for up to `patience` seconds. Options of the methods are those of the HTTP API.
    Errors of the server are raised as `Problem`, those of the connection as `httpx.HTTPError`.
    """

    def __init__(
        self,
        url: str = "http://localhost:8080",
        *,
        api_key: str | None = None,
        timeout: float | None = 120.0,
        patience: float = 120.0,
        verify: bool | str | ssl.SSLContext = True,
    ) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(base_url=calls.base_url(url), headers=headers, timeout=timeout, verify=verify)
        self._patience = patience

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def _run(self, call: Call[T]) -> T:
        retries = Retries(self._patience)
        arguments = call.arguments()
        while True:
            try:
                response = self._http.request(**arguments)
            except (httpx.ReadError, httpx.WriteError) as error:
                raise calls.cut_off(call, error) from error
            if response.is_success:
                return call.read(response)
            time.sleep(retries.pause(Problem.of(response)))

    def _learn(
        self, method: str, name: str, images: Images, wait: bool, options: Mapping[str, Any]
    ) -> api.BankJson:
        bank = self._run(calls.bank(method, name, images, {"wait": wait, **options}))
        # The server waits no longer than a request may take.
        while wait and bank["state"] == "training":
            time.sleep(1)
            bank = self.bank(name)
        return bank

    def version(self) -> api.Version:
        """Returns the version of the server."""
        return self._run(Call[api.Version]("GET", "/version", calls.answer()))

    def ready(self) -> api.Ready:
        """Returns the default model, once the server can answer; else a problem with status 503."""
        return self._run(Call[api.Ready]("GET", "/readyz", calls.answer()))

    def models(self) -> list[api.Model]:
        """Returns the served models, the default one first."""
        return self._run(Call[list[api.Model]]("GET", "/v1/models", calls.part("data")))

    def model(self, name: str) -> api.Model:
        """Returns a served model."""
        return self._run(Call[api.Model]("GET", calls.below("/v1/models", name), calls.answer()))

    def load_model(self, name: str, *, precision: str | None = None, default: bool = False) -> api.LoadedModel:
        """Loads a model, or replaces the one of that name."""
        return self._run(
            Call[api.LoadedModel](
                "POST",
                "/v1/models/load",
                calls.answer(),
                body={"model": name, "precision": precision, "default": default},
            )
        )

    def unload_model(self, name: str) -> api.UnloadedModel:
        """Lets the requests of a model end, and frees it."""
        return self._run(Call[api.UnloadedModel]("DELETE", calls.below("/v1/models", name), calls.answer()))

    def embed(self, images: Images, **options: Unpack[api.CreateEmbeddingOptions]) -> Floats:
        """Embeds an image as `[dim]`, or several images as `[images, dim]`, in as many requests as they need."""
        one = is_one(images)
        files = several(images)
        parts = [self._run(calls.embed(files[part], options)) for part in requests_of(files)]
        vectors: Floats = np.concatenate(parts)
        return vectors[0] if one else vectors

    def tokens(self, image: Image, **options: Unpack[api.CreateEmbeddingOptions]) -> Floats:
        """Returns the patch tokens of the last block, `[rows, columns, dim]`."""
        return self._run(calls.tokens(image, options))

    def pca(self, images: Images, **options: Unpack[api.CreatePcaMapOptions]) -> Pca:
        """Computes PCA maps, those of several images in one basis."""
        return self._run(calls.pca(images, options))

    def pca_image(self, images: Images, **options: Unpack[api.CreatePcaMapImageOptions]) -> PIL.Image.Image:
        """Draws PCA maps; those of several images are side by side."""
        return self._run(calls.map_image("pca", images, options))

    def attention(self, images: Images, **options: Unpack[api.CreateAttentionMapOptions]) -> list[Floats]:
        """Computes the attention of CLS, `[heads, rows, columns]` for each image."""
        return self._run(calls.attention(images, options))

    def attention_image(self, images: Images, **options: Unpack[api.CreateAttentionMapImageOptions]) -> PIL.Image.Image:
        """Draws attention maps: the mean of the heads, or those that `head` names."""
        return self._run(calls.map_image("attention", images, options))

    def attention_stats(
        self,
        images: Images,
        **options: Unpack[api.CompareHeadsOptions],
    ) -> list[api.HeadStatsItem]:
        """Measures whether heads attend to different things, for each image."""
        return self._run(calls.attention_stats(images, options))

    def similarity(self, images: Images, **options: Unpack[api.CreateSimilarityMapOptions]) -> list[Floats]:
        """Compares `patch` or `box` of the first image with all patches: cosines `[rows, columns]` for each image."""
        return self._run(calls.similarity(images, options))

    def similarity_image(
        self,
        images: Images,
        **options: Unpack[api.CreateSimilarityMapImageOptions],
    ) -> PIL.Image.Image:
        """Draws similarity maps; those of several images are side by side."""
        return self._run(calls.map_image("similarity", images, options))

    def match(self, first: Image, second: Image, **options: Unpack[api.MatchImagesOptions]) -> api.MatchesJson:
        """Finds places of two images that correspond, in pixels of the upright images."""
        return self._run(calls.match(first, second, options))

    def match_image(
        self,
        first: Image,
        second: Image,
        **options: Unpack[api.MatchImagesOptions],
    ) -> PIL.Image.Image:
        """Draws two images side by side, with lines between places that correspond."""
        return self._run(calls.map_image("match", [first, second], options))

    def objects(self, image: Image, **options: Unpack[api.FindObjectsOptions]) -> list[api.ObjectJson]:
        """Finds the objects of an image, the most attended first, with boxes, run lengths and outlines."""
        return self._run(calls.objects(image, options))

    def object_masks(self, image: Image, **options: Unpack[api.FindObjectsOptions]) -> Masks:
        """Finds the objects of an image: masks `[objects, height, width]` of the upright photograph."""
        return self._run(calls.object_masks(image, options))

    def objects_image(self, image: Image, **options: Unpack[api.FindObjectsImageOptions]) -> PIL.Image.Image:
        """Draws the objects of an image, or with `output="mask"` their numbers as an indexed image."""
        return self._run(calls.map_image("objects", image, options))

    def banks(self) -> list[api.TrainedJson]:
        """Returns all anomaly banks."""
        return self._run(Call[list[api.TrainedJson]]("GET", "/v1/anomaly", calls.part("data")))

    def bank(self, name: str, **options: Unpack[api.GetBankOptions]) -> api.BankJson:
        """Returns an anomaly bank and the state of its training."""
        return self._run(Call[api.BankJson]("GET", calls.below("/v1/anomaly", name), calls.answer(), options))

    def learn_bank(
        self,
        name: str,
        images: Images,
        *,
        wait: bool = False,
        **options: Unpack[api.MakeBankOptions],
    ) -> api.BankJson:
        """Makes an anomaly bank of good images. With `wait` returns when it has ended or failed.

        All images are sent in one request, of as many as the server's `--max-images`; `add_to_bank` adds others.
        """
        return self._learn("PUT", name, images, wait, options)

    def add_to_bank(
        self,
        name: str,
        images: Images,
        *,
        wait: bool = False,
        **options: Unpack[api.AddToBankOptions],
    ) -> api.BankJson:
        """Adds good images to an anomaly bank, in one request. With `wait` returns when it has ended or failed."""
        return self._learn("POST", name, images, wait, options)

    def delete_bank(self, name: str, **options: Unpack[api.DeleteBankOptions]) -> None:
        """Deletes an anomaly bank."""
        return self._run(Call("DELETE", calls.below("/v1/anomaly", name), calls.nothing, options))

    def score(self, name: str, image: Image, **options: Unpack[api.ScoreImageOptions]) -> api.AnomalyJson:
        """Compares an image with an anomaly bank: its score, and boxes of unusual places."""
        return self._run(calls.score(name, image, options))

    def anomaly_map(self, name: str, image: Image, **options: Unpack[api.ScoreImageOptions]) -> Floats:
        """Compares an image with an anomaly bank: distances `[height, width]` of the upright photograph."""
        return self._run(calls.anomaly_map(name, image, options))

    def anomaly_image(
        self,
        name: str,
        image: Image,
        **options: Unpack[api.ScoreImageImageOptions],
    ) -> PIL.Image.Image:
        """Draws the unusual places of an image, or with `output="mask"` their mask as an indexed image."""
        return self._run(calls.anomaly_image(name, image, options))

    def segmenters(self) -> list[api.TrainedJson]:
        """Returns all segmenters."""
        return self._run(Call[list[api.TrainedJson]]("GET", "/v1/segmenters", calls.part("data")))

    def segmenter(self, name: str, **options: Unpack[api.GetSegmenterOptions]) -> api.SegmenterJson:
        """Returns a segmenter and the state of its training."""
        return self._run(Call[api.SegmenterJson]("GET", calls.below("/v1/segmenters", name), calls.answer(), options))

    def train_segmenter(
        self,
        name: str,
        images: Images,
        masks: ClassMasks,
        *,
        wait: bool = False,
        **options: Unpack[api.TrainSegmenterOptions],
    ) -> api.SegmenterJson:
        """Trains a segmenter on images and their masks. With `wait` returns when it has ended or failed.

        All are sent in one request, of as many images as the server's `--max-images`.
        """
        wanted = {"wait": wait, **options}
        segmenter = self._run(calls.segmenter(name, images, masks, wanted))
        # The server waits no longer than a request may take.
        while wait and segmenter["state"] == "training":
            time.sleep(1)
            segmenter = self.segmenter(name)
        return segmenter

    def delete_segmenter(self, name: str, **options: Unpack[api.DeleteSegmenterOptions]) -> None:
        """Deletes a segmenter."""
        return self._run(Call("DELETE", calls.below("/v1/segmenters", name), calls.nothing, options))

    def segment(self, name: str, image: Image, **options: Unpack[api.SegmentImageOptions]) -> Classes:
        """Finds the class of each pixel, `[height, width]` of the upright photograph; 255 where there is none."""
        return self._run(calls.segment(name, image, options))

    def segments(self, name: str, image: Image, **options: Unpack[api.SegmentImageOptions]) -> list[api.SegmentJson]:
        """Finds the classes of an image, with their shares, boxes, run lengths and outlines."""
        return self._run(calls.segments(name, image, options))

    def segment_logits(self, name: str, image: Image, **options: Unpack[api.SegmentImageOptions]) -> Floats:
        """Computes the logits of the classes, `[classes, height, width]` of the upright photograph."""
        return self._run(calls.segment_logits(name, image, options))

    def segment_image(
        self,
        name: str,
        image: Image,
        **options: Unpack[api.SegmentImageImageOptions],
    ) -> PIL.Image.Image:
        """Draws the classes over an image, or with `output="mask"` returns them as an indexed image."""
        return self._run(calls.segment_image(name, image, options))

    def galleries(self, **options: Unpack[api.ListGalleriesOptions]) -> list[api.GalleryJson]:
        """Returns all galleries."""
        return self._run(Call[list[api.GalleryJson]]("GET", "/v1/galleries", calls.part("data"), options))

    def gallery(self, name: str, **options: Unpack[api.GetGalleryOptions]) -> api.GalleryJson:
        """Returns a gallery."""
        return self._run(Call[api.GalleryJson]("GET", calls.below("/v1/galleries", name), calls.answer(), options))

    def save_snapshot(self, name: str, path: str | os.PathLike[str], **options: Unpack[api.GetSnapshotOptions]) -> None:
        """Writes a gallery with all its items to a file, as a whole or not at all."""
        path_of = calls.below("/v1/galleries", name) + "/snapshot"
        self._save(Call[None]("GET", path_of, calls.nothing, options, "*/*"), path)

    def save_bank(self, name: str, path: str | os.PathLike[str], **options: Unpack[api.GetBankFileOptions]) -> None:
        """Writes an anomaly bank to a safetensors file, as a whole or not at all."""
        path_of = calls.below("/v1/anomaly", name) + "/snapshot"
        self._save(Call[None]("GET", path_of, calls.nothing, options, "*/*"), path)

    def _save(self, call: Call[None], path: str | os.PathLike[str]) -> None:
        retries = Retries(self._patience)
        while True:
            with self._http.stream(**call.arguments()) as response:
                if response.is_success:
                    with calls.whole_file(path) as file:
                        for chunk in response.iter_bytes():
                            file.write(chunk)
                    return
                response.read()
            time.sleep(retries.pause(Problem.of(response)))

    def restore_snapshot(self, name: str, path: str | os.PathLike[str]) -> api.Restored:
        """Replaces a gallery by that of a file, which is read into memory."""
        call = Call[api.Restored](
            "PUT",
            calls.below("/v1/galleries", name) + "/snapshot",
            calls.answer(),
            files=[encoded(path)],
        )
        return self._run(call)

    def audit(
        self, name: str = "default", *, wait: bool = True, **options: Unpack[api.AuditGalleryOptions]
    ) -> api.AuditJson:
        """Finds near-duplicates, outliers, likely wrong labels and groups in a gallery. With `wait` returns when it has
        ended or failed, else at once; `last_audit` has the progress and the report then."""
        path = calls.below("/v1/galleries", name) + "/audit"
        audit = self._run(Call[api.AuditJson]("POST", path, calls.answer(), {"wait": wait, **options}))
        # The server waits no longer than a request may take.
        while wait and audit["state"] == "running":
            time.sleep(1)
            audit = self.last_audit(name)
        return audit

    def last_audit(self, name: str = "default", **options: Unpack[api.GetAuditOptions]) -> api.AuditJson:
        """Returns the progress of the audit of a gallery, or the report of the last one."""
        path = calls.below("/v1/galleries", name) + "/audit"
        return self._run(Call[api.AuditJson]("GET", path, calls.answer(), options))

    def delete_audit(self, name: str = "default", **options: Unpack[api.DeleteAuditOptions]) -> None:
        """Cancels the audit of a gallery, and deletes its report."""
        path = calls.below("/v1/galleries", name) + "/audit"
        return self._run(Call("DELETE", path, calls.nothing, options))

    def map(self, name: str = "default", *, wait: bool = True, **options: Unpack[api.MapGalleryOptions]) -> api.MapJson:
        """Places the items of a gallery in the plane, similar ones near each other. Items that have a place keep it,
        unless most are new or `again` is true. With `wait` returns when it has ended or failed, else at once; `last_map`
        has the progress and the map then."""
        path = calls.below("/v1/galleries", name) + "/map"
        found = self._run(Call[api.MapJson]("POST", path, calls.answer(), {"wait": wait, **options}))
        # The server waits no longer than a request may take.
        while wait and found["state"] == "running":
            time.sleep(1)
            found = self.last_map(name)
        return found

    def last_map(self, name: str = "default", **options: Unpack[api.GetMapOptions]) -> api.MapJson:
        """Returns the map of a gallery, or its progress while it is made."""
        path = calls.below("/v1/galleries", name) + "/map"
        return self._run(Call[api.MapJson]("GET", path, calls.answer(), options))

    def delete_map(self, name: str = "default", **options: Unpack[api.DeleteMapOptions]) -> None:
        """Cancels the making of a gallery's map, and deletes the map."""
        path = calls.below("/v1/galleries", name) + "/map"
        return self._run(Call("DELETE", path, calls.nothing, options))

    def rename_gallery(self, name: str, to: str, **options: Unpack[api.RenameGalleryOptions]) -> api.GalleryJson:
        """Gives a gallery another name, which no other one may have."""
        place = calls.below("/v1/galleries", name)
        return self._run(Call[api.GalleryJson]("PATCH", place, calls.answer(), options, body={"to": to}))

    def delete_gallery(self, name: str, **options: Unpack[api.DeleteGalleryOptions]) -> None:
        """Deletes a gallery with all its items."""
        return self._run(Call("DELETE", calls.below("/v1/galleries", name), calls.nothing, options))

    def put(
        self,
        id: str,
        image: Image | None = None,
        *,
        vector: Vector | None = None,
        features: Vector | None = None,
        **options: Unpack[api.PutItemOptions],
    ) -> api.StoredJson:
        """Stores an image, or a vector from elsewhere, in a gallery.

        `features` are those of a vector for probes: CLS and the mean of the patch tokens, one after the other.
        """
        call: Call[api.StoredJson] = calls.query(
            "PUT", calls.below("/v1/gallery", id), calls.answer(), image, vector, options, features
        )
        return self._run(call)

    def put_many(
        self,
        images: Mapping[str, Image],
        *,
        labels: Mapping[str, str] | None = None,
        metadata: Mapping[str, Mapping[str, Any]] | None = None,
        **options: Unpack[api.PutItemsOptions],
    ) -> list[api.BatchOutcome]:
        """Stores images by their ids, in as many transactions as they need.

        `labels` and `metadata` have those of some ids. An image that cannot be used does not raise: its outcome has
        the `status` `failed` and the `error`.
        """
        items = calls.items_of(images, labels, metadata)
        files = [encoded(image) for image in images.values()]
        outcomes: list[api.BatchOutcome] = []
        for part in requests_of(files):
            stored = self._run(calls.put_items(files[part], items[part], options))
            outcomes.extend(stored)
        return outcomes

    def get(self, id: str, **options: Unpack[api.GetItemOptions]) -> api.ItemWithVector:
        """Returns an item, with `vector=True` also its vector."""
        return self._run(Call[api.ItemWithVector]("GET", calls.below("/v1/gallery", id), calls.answer(), options))

    def update(self, id: str, **options: Unpack[api.UpdateItemOptions]) -> api.ItemWithVector:
        """Changes the label or the metadata of an item."""
        return self._run(calls.update(id, options))

    def delete(self, id: str, **options: Unpack[api.DeleteItemOptions]) -> None:
        """Deletes an item."""
        return self._run(Call("DELETE", calls.below("/v1/gallery", id), calls.nothing, options))

    def thumbnail(self, id: str, **options: Unpack[api.GetThumbnailOptions]) -> PIL.Image.Image:
        """Returns the thumbnail of an item."""
        call = Call[PIL.Image.Image](
            "GET", calls.below("/v1/gallery", id) + "/thumbnail", calls.picture, options, "image/jpeg"
        )
        return self._run(call)

    def page(self, **options: Unpack[api.ListItemsOptions]) -> api.PageJson:
        """Returns a page of items; `items` returns all."""
        return self._run(Call[api.PageJson]("GET", "/v1/gallery", calls.answer(), options))

    def items(self, **options: Unpack[api.ListItemsOptions]) -> Iterator[api.ItemJson]:
        """Yields all items of a gallery, page by page."""
        page = self.page(**options)
        while True:
            yield from page["items"]
            following = page.get("next")
            if not following:
                return
            options["cursor"] = following
            page = self.page(**options)

    def knn(
        self,
        image: Image | None = None,
        *,
        vector: Vector | None = None,
        **options: Unpack[api.FindNeighborsOptions],
    ) -> list[api.NeighborJson]:
        """Finds the nearest items of an image or a vector."""
        call: Call[list[api.NeighborJson]] = calls.query(
            "POST", "/v1/knn", calls.part("neighbors"), image, vector, options
        )
        return self._run(call)

    def knn_of(self, id: str, **options: Unpack[api.FindNeighborsOfItemOptions]) -> list[api.NeighborJson]:
        """Finds the nearest items of a stored item."""
        return self._run(Call[list[api.NeighborJson]]("GET", "/v1/knn", calls.part("neighbors"), {"id": id, **options}))

    def classify(
        self,
        image: Image | None = None,
        *,
        vector: Vector | None = None,
        **options: Unpack[api.ClassifyOptions],
    ) -> api.ClassificationAnswer:
        """Classifies an image or a vector, by the vote of its neighbors or by `probe`."""
        call: Call[api.ClassificationAnswer] = calls.query(
            "POST", "/v1/classify", calls.answer(), image, vector, options
        )
        return self._run(call)

    def bases(self, **options: Unpack[api.ListBasesOptions]) -> list[api.Basis]:
        """Returns all bases."""
        return self._run(Call[list[api.Basis]]("GET", "/v1/bases", calls.part("data"), options))

    def basis(self, name: str, **options: Unpack[api.GetBasisOptions]) -> api.BasisJson:
        """Returns a basis with its components."""
        return self._run(Call[api.BasisJson]("GET", calls.below("/v1/bases", name), calls.answer(), options))

    def fit_basis(
        self,
        name: str,
        images: Images | None = None,
        **options: Unpack[api.FitBasisOptions],
    ) -> api.Basis:
        """Fits a PCA basis to images, or to the thumbnails of `gallery`."""
        return self._run(calls.basis("PUT", name, images, options))

    def add_to_basis(
        self,
        name: str,
        images: Images | None = None,
        **options: Unpack[api.AddToBasisOptions],
    ) -> api.Basis:
        """Adds images to a basis."""
        return self._run(calls.basis("POST", name, images, options))

    def delete_basis(self, name: str, **options: Unpack[api.DeleteBasisOptions]) -> None:
        """Deletes a basis."""
        return self._run(Call("DELETE", calls.below("/v1/bases", name), calls.nothing, options))

    def probes(self) -> list[api.TrainedJson]:
        """Returns all probes."""
        return self._run(Call[list[api.TrainedJson]]("GET", "/v1/probes", calls.part("data")))

    def probe(self, name: str, **options: Unpack[api.GetProbeOptions]) -> api.ProbeJson:
        """Returns a probe and the state of its training."""
        return self._run(Call[api.ProbeJson]("GET", calls.below("/v1/probes", name), calls.answer(), options))

    def train_probe(self, name: str, *, wait: bool = False, **options: Unpack[api.TrainProbeOptions]) -> api.ProbeJson:
        """Trains a probe on the labels of a gallery. With `wait` returns when it has ended or failed."""
        body = {"name": name, "wait": wait, **options}
        probe = self._run(Call[api.ProbeJson]("POST", "/v1/probes", calls.answer(), body=body))
        # The server waits no longer than a request may take.
        while wait and probe["state"] == "training":
            time.sleep(1)
            probe = self.probe(name)
        return probe

    def delete_probe(self, name: str, **options: Unpack[api.DeleteProbeOptions]) -> None:
        """Deletes a probe."""
        return self._run(Call("DELETE", calls.below("/v1/probes", name), calls.nothing, options))
