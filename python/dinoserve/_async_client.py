"""The client for asyncio."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Mapping
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


class AsyncClient:
    """A client of a server, for asyncio.

    `api_key` is sent as a bearer token. A request that the server is too busy for (503, 429) is sent again after the
    time that the server asks for, for up to `patience` seconds. Options of the methods are those of the HTTP API.
    Errors of the server are raised as `Problem`, those of the connection as `httpx.HTTPError`.

    At most `concurrency` requests are sent at the same time; others wait.
    """

    def __init__(
        self,
        url: str = "http://localhost:8080",
        *,
        api_key: str | None = None,
        timeout: float | None = 120.0,
        patience: float = 120.0,
        verify: bool | str | ssl.SSLContext = True,
        concurrency: int = 16,
    ) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.AsyncClient(base_url=calls.base_url(url), headers=headers, timeout=timeout, verify=verify)
        self._patience = patience
        self._places = asyncio.Semaphore(concurrency)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def _run(self, call: Call[T]) -> T:
        retries = Retries(self._patience)
        arguments = call.arguments()
        while True:
            async with self._places:
                try:
                    response = await self._http.request(**arguments)
                except (httpx.ReadError, httpx.WriteError) as error:
                    raise calls.cut_off(call, error) from error
            if response.is_success:
                return await asyncio.to_thread(call.read, response)
            await asyncio.sleep(retries.pause(Problem.of(response)))

    async def _learn(
        self, method: str, name: str, images: Images, wait: bool, options: Mapping[str, Any]
    ) -> api.BankJson:
        bank = await self._run(await asyncio.to_thread(calls.bank, method, name, images, {"wait": wait, **options}))
        # The server waits no longer than a request may take.
        while wait and bank["state"] == "training":
            await asyncio.sleep(1)
            bank = await self.bank(name)
        return bank

    async def version(self) -> api.Version:
        """Returns the version of the server."""
        return await self._run(Call[api.Version]("GET", "/version", calls.answer()))

    async def ready(self) -> api.Ready:
        """Returns the default model, once the server can answer; else a problem with status 503."""
        return await self._run(Call[api.Ready]("GET", "/readyz", calls.answer()))

    async def models(self) -> list[api.Model]:
        """Returns the served models, the default one first."""
        return await self._run(Call[list[api.Model]]("GET", "/v1/models", calls.part("data")))

    async def model(self, name: str) -> api.Model:
        """Returns a served model."""
        return await self._run(Call[api.Model]("GET", calls.below("/v1/models", name), calls.answer()))

    async def load_model(self, name: str, *, precision: str | None = None, default: bool = False) -> api.LoadedModel:
        """Loads a model, or replaces the one of that name."""
        return await self._run(
            Call[api.LoadedModel](
                "POST",
                "/v1/models/load",
                calls.answer(),
                body={"model": name, "precision": precision, "default": default},
            )
        )

    async def unload_model(self, name: str) -> api.UnloadedModel:
        """Lets the requests of a model end, and frees it."""
        return await self._run(Call[api.UnloadedModel]("DELETE", calls.below("/v1/models", name), calls.answer()))

    async def embed(self, images: Images, **options: Unpack[api.CreateEmbeddingOptions]) -> Floats:
        """Embeds an image as `[dim]`, or several images as `[images, dim]`, in as many requests as they need."""
        one = is_one(images)
        files = await asyncio.to_thread(several, images)
        parts = [await self._run(calls.embed(files[part], options)) for part in requests_of(files)]
        vectors: Floats = np.concatenate(parts)
        return vectors[0] if one else vectors

    async def tokens(self, image: Image, **options: Unpack[api.CreateEmbeddingOptions]) -> Floats:
        """Returns the patch tokens of the last block, `[rows, columns, dim]`."""
        return await self._run(await asyncio.to_thread(calls.tokens, image, options))

    async def pca(self, images: Images, **options: Unpack[api.CreatePcaMapOptions]) -> Pca:
        """Computes PCA maps, those of several images in one basis."""
        return await self._run(await asyncio.to_thread(calls.pca, images, options))

    async def pca_image(self, images: Images, **options: Unpack[api.CreatePcaMapImageOptions]) -> PIL.Image.Image:
        """Draws PCA maps; those of several images are side by side."""
        return await self._run(await asyncio.to_thread(calls.map_image, "pca", images, options))

    async def attention(self, images: Images, **options: Unpack[api.CreateAttentionMapOptions]) -> list[Floats]:
        """Computes the attention of CLS, `[heads, rows, columns]` for each image."""
        return await self._run(await asyncio.to_thread(calls.attention, images, options))

    async def attention_image(
        self,
        images: Images,
        **options: Unpack[api.CreateAttentionMapImageOptions],
    ) -> PIL.Image.Image:
        """Draws attention maps: the mean of the heads, or those that `head` names."""
        return await self._run(await asyncio.to_thread(calls.map_image, "attention", images, options))

    async def attention_stats(
        self,
        images: Images,
        **options: Unpack[api.CompareHeadsOptions],
    ) -> list[api.HeadStatsItem]:
        """Measures whether heads attend to different things, for each image."""
        return await self._run(await asyncio.to_thread(calls.attention_stats, images, options))

    async def similarity(self, images: Images, **options: Unpack[api.CreateSimilarityMapOptions]) -> list[Floats]:
        """Compares `patch` or `box` of the first image with all patches: cosines `[rows, columns]` for each image."""
        return await self._run(await asyncio.to_thread(calls.similarity, images, options))

    async def similarity_image(
        self,
        images: Images,
        **options: Unpack[api.CreateSimilarityMapImageOptions],
    ) -> PIL.Image.Image:
        """Draws similarity maps; those of several images are side by side."""
        return await self._run(await asyncio.to_thread(calls.map_image, "similarity", images, options))

    async def match(self, first: Image, second: Image, **options: Unpack[api.MatchImagesOptions]) -> api.MatchesJson:
        """Finds places of two images that correspond, in pixels of the upright images."""
        return await self._run(await asyncio.to_thread(calls.match, first, second, options))

    async def match_image(
        self,
        first: Image,
        second: Image,
        **options: Unpack[api.MatchImagesOptions],
    ) -> PIL.Image.Image:
        """Draws two images side by side, with lines between places that correspond."""
        return await self._run(await asyncio.to_thread(calls.map_image, "match", [first, second], options))

    async def objects(self, image: Image, **options: Unpack[api.FindObjectsOptions]) -> list[api.ObjectJson]:
        """Finds the objects of an image, the most attended first, with boxes, run lengths and outlines."""
        return await self._run(await asyncio.to_thread(calls.objects, image, options))

    async def object_masks(self, image: Image, **options: Unpack[api.FindObjectsOptions]) -> Masks:
        """Finds the objects of an image: masks `[objects, height, width]` of the upright photograph."""
        return await self._run(await asyncio.to_thread(calls.object_masks, image, options))

    async def objects_image(self, image: Image, **options: Unpack[api.FindObjectsImageOptions]) -> PIL.Image.Image:
        """Draws the objects of an image, or with `output="mask"` their numbers as an indexed image."""
        return await self._run(await asyncio.to_thread(calls.map_image, "objects", image, options))

    async def banks(self) -> list[api.TrainedJson]:
        """Returns all anomaly banks."""
        return await self._run(Call[list[api.TrainedJson]]("GET", "/v1/anomaly", calls.part("data")))

    async def bank(self, name: str, **options: Unpack[api.GetBankOptions]) -> api.BankJson:
        """Returns an anomaly bank and the state of its training."""
        return await self._run(Call[api.BankJson]("GET", calls.below("/v1/anomaly", name), calls.answer(), options))

    async def learn_bank(
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
        return await self._learn("PUT", name, images, wait, options)

    async def add_to_bank(
        self,
        name: str,
        images: Images,
        *,
        wait: bool = False,
        **options: Unpack[api.AddToBankOptions],
    ) -> api.BankJson:
        """Adds good images to an anomaly bank, in one request. With `wait` returns when it has ended or failed."""
        return await self._learn("POST", name, images, wait, options)

    async def delete_bank(self, name: str, **options: Unpack[api.DeleteBankOptions]) -> None:
        """Deletes an anomaly bank."""
        return await self._run(Call("DELETE", calls.below("/v1/anomaly", name), calls.nothing, options))

    async def score(self, name: str, image: Image, **options: Unpack[api.ScoreImageOptions]) -> api.AnomalyJson:
        """Compares an image with an anomaly bank: its score, and boxes of unusual places."""
        return await self._run(await asyncio.to_thread(calls.score, name, image, options))

    async def anomaly_map(self, name: str, image: Image, **options: Unpack[api.ScoreImageOptions]) -> Floats:
        """Compares an image with an anomaly bank: distances `[height, width]` of the upright photograph."""
        return await self._run(await asyncio.to_thread(calls.anomaly_map, name, image, options))

    async def anomaly_image(
        self,
        name: str,
        image: Image,
        **options: Unpack[api.ScoreImageImageOptions],
    ) -> PIL.Image.Image:
        """Draws the unusual places of an image, or with `output="mask"` their mask as an indexed image."""
        return await self._run(await asyncio.to_thread(calls.anomaly_image, name, image, options))

    async def segmenters(self) -> list[api.TrainedJson]:
        """Returns all segmenters."""
        return await self._run(Call[list[api.TrainedJson]]("GET", "/v1/segmenters", calls.part("data")))

    async def segmenter(self, name: str, **options: Unpack[api.GetSegmenterOptions]) -> api.SegmenterJson:
        """Returns a segmenter and the state of its training."""
        return await self._run(
            Call[api.SegmenterJson]("GET", calls.below("/v1/segmenters", name), calls.answer(), options)
        )

    async def train_segmenter(
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
        segmenter = await self._run(await asyncio.to_thread(calls.segmenter, name, images, masks, wanted))
        # The server waits no longer than a request may take.
        while wait and segmenter["state"] == "training":
            await asyncio.sleep(1)
            segmenter = await self.segmenter(name)
        return segmenter

    async def delete_segmenter(self, name: str, **options: Unpack[api.DeleteSegmenterOptions]) -> None:
        """Deletes a segmenter."""
        return await self._run(Call("DELETE", calls.below("/v1/segmenters", name), calls.nothing, options))

    async def segment(self, name: str, image: Image, **options: Unpack[api.SegmentImageOptions]) -> Classes:
        """Finds the class of each pixel, `[height, width]` of the upright photograph; 255 where there is none."""
        return await self._run(await asyncio.to_thread(calls.segment, name, image, options))

    async def segments(
        self,
        name: str,
        image: Image,
        **options: Unpack[api.SegmentImageOptions],
    ) -> list[api.SegmentJson]:
        """Finds the classes of an image, with their shares, boxes, run lengths and outlines."""
        return await self._run(await asyncio.to_thread(calls.segments, name, image, options))

    async def segment_logits(self, name: str, image: Image, **options: Unpack[api.SegmentImageOptions]) -> Floats:
        """Computes the logits of the classes, `[classes, height, width]` of the upright photograph."""
        return await self._run(await asyncio.to_thread(calls.segment_logits, name, image, options))

    async def segment_image(
        self,
        name: str,
        image: Image,
        **options: Unpack[api.SegmentImageImageOptions],
    ) -> PIL.Image.Image:
        """Draws the classes over an image, or with `output="mask"` returns them as an indexed image."""
        return await self._run(await asyncio.to_thread(calls.segment_image, name, image, options))

    async def galleries(self, **options: Unpack[api.ListGalleriesOptions]) -> list[api.GalleryJson]:
        """Returns all galleries."""
        return await self._run(Call[list[api.GalleryJson]]("GET", "/v1/galleries", calls.part("data"), options))

    async def gallery(self, name: str, **options: Unpack[api.GetGalleryOptions]) -> api.GalleryJson:
        """Returns a gallery."""
        return await self._run(
            Call[api.GalleryJson]("GET", calls.below("/v1/galleries", name), calls.answer(), options)
        )

    async def save_snapshot(
        self, name: str, path: str | os.PathLike[str], **options: Unpack[api.GetSnapshotOptions]
    ) -> None:
        """Writes a gallery with all its items to a file, as a whole or not at all."""
        path_of = calls.below("/v1/galleries", name) + "/snapshot"
        await self._save(Call[None]("GET", path_of, calls.nothing, options, "*/*"), path)

    async def save_bank(
        self, name: str, path: str | os.PathLike[str], **options: Unpack[api.GetBankFileOptions]
    ) -> None:
        """Writes an anomaly bank to a safetensors file, as a whole or not at all."""
        path_of = calls.below("/v1/anomaly", name) + "/snapshot"
        await self._save(Call[None]("GET", path_of, calls.nothing, options, "*/*"), path)

    async def _save(self, call: Call[None], path: str | os.PathLike[str]) -> None:
        retries = Retries(self._patience)
        while True:
            async with self._http.stream(**call.arguments()) as response:
                if response.is_success:
                    with calls.whole_file(path) as file:
                        async for chunk in response.aiter_bytes():
                            file.write(chunk)
                    return
                await response.aread()
            await asyncio.sleep(retries.pause(Problem.of(response)))

    async def restore_snapshot(self, name: str, path: str | os.PathLike[str]) -> api.Restored:
        """Replaces a gallery by that of a file, which is read into memory."""
        call = Call[api.Restored](
            "PUT",
            calls.below("/v1/galleries", name) + "/snapshot",
            calls.answer(),
            files=[await asyncio.to_thread(encoded, path)],
        )
        return await self._run(call)

    async def audit(
        self, name: str = "default", *, wait: bool = True, **options: Unpack[api.AuditGalleryOptions]
    ) -> api.AuditJson:
        """Finds near-duplicates, outliers, likely wrong labels and groups in a gallery. With `wait` returns when it has
        ended or failed, else at once; `last_audit` has the progress and the report then."""
        path = calls.below("/v1/galleries", name) + "/audit"
        audit = await self._run(Call[api.AuditJson]("POST", path, calls.answer(), {"wait": wait, **options}))
        # The server waits no longer than a request may take.
        while wait and audit["state"] == "running":
            await asyncio.sleep(1)
            audit = await self.last_audit(name)
        return audit

    async def last_audit(self, name: str = "default", **options: Unpack[api.GetAuditOptions]) -> api.AuditJson:
        """Returns the progress of the audit of a gallery, or the report of the last one."""
        path = calls.below("/v1/galleries", name) + "/audit"
        return await self._run(Call[api.AuditJson]("GET", path, calls.answer(), options))

    async def delete_audit(self, name: str = "default", **options: Unpack[api.DeleteAuditOptions]) -> None:
        """Cancels the audit of a gallery, and deletes its report."""
        path = calls.below("/v1/galleries", name) + "/audit"
        return await self._run(Call("DELETE", path, calls.nothing, options))

    async def map(
        self, name: str = "default", *, wait: bool = True, **options: Unpack[api.MapGalleryOptions]
    ) -> api.MapJson:
        """Places the items of a gallery in the plane, similar ones near each other. Items that have a place keep it,
        unless most are new or `again` is true. With `wait` returns when it has ended or failed, else at once; `last_map`
        has the progress and the map then."""
        path = calls.below("/v1/galleries", name) + "/map"
        found = await self._run(Call[api.MapJson]("POST", path, calls.answer(), {"wait": wait, **options}))
        # The server waits no longer than a request may take.
        while wait and found["state"] == "running":
            await asyncio.sleep(1)
            found = await self.last_map(name)
        return found

    async def last_map(self, name: str = "default", **options: Unpack[api.GetMapOptions]) -> api.MapJson:
        """Returns the map of a gallery, or its progress while it is made."""
        path = calls.below("/v1/galleries", name) + "/map"
        return await self._run(Call[api.MapJson]("GET", path, calls.answer(), options))

    async def delete_map(self, name: str = "default", **options: Unpack[api.DeleteMapOptions]) -> None:
        """Cancels the making of a gallery's map, and deletes the map."""
        path = calls.below("/v1/galleries", name) + "/map"
        return await self._run(Call("DELETE", path, calls.nothing, options))

    async def rename_gallery(self, name: str, to: str, **options: Unpack[api.RenameGalleryOptions]) -> api.GalleryJson:
        """Gives a gallery another name, which no other one may have."""
        place = calls.below("/v1/galleries", name)
        return await self._run(Call[api.GalleryJson]("PATCH", place, calls.answer(), options, body={"to": to}))

    async def delete_gallery(self, name: str, **options: Unpack[api.DeleteGalleryOptions]) -> None:
        """Deletes a gallery with all its items."""
        return await self._run(Call("DELETE", calls.below("/v1/galleries", name), calls.nothing, options))

    async def put(
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
        call: Call[api.StoredJson] = await asyncio.to_thread(
            calls.query, "PUT", calls.below("/v1/gallery", id), calls.answer(), image, vector, options, features
        )
        return await self._run(call)

    async def put_many(
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
        files = [await asyncio.to_thread(encoded, image) for image in images.values()]
        outcomes: list[api.BatchOutcome] = []
        for part in requests_of(files):
            stored = await self._run(calls.put_items(files[part], items[part], options))
            outcomes.extend(stored)
        return outcomes

    async def get(self, id: str, **options: Unpack[api.GetItemOptions]) -> api.ItemWithVector:
        """Returns an item, with `vector=True` also its vector."""
        return await self._run(Call[api.ItemWithVector]("GET", calls.below("/v1/gallery", id), calls.answer(), options))

    async def update(self, id: str, **options: Unpack[api.UpdateItemOptions]) -> api.ItemWithVector:
        """Changes the label or the metadata of an item."""
        return await self._run(calls.update(id, options))

    async def delete(self, id: str, **options: Unpack[api.DeleteItemOptions]) -> None:
        """Deletes an item."""
        return await self._run(Call("DELETE", calls.below("/v1/gallery", id), calls.nothing, options))

    async def thumbnail(self, id: str, **options: Unpack[api.GetThumbnailOptions]) -> PIL.Image.Image:
        """Returns the thumbnail of an item."""
        call = Call[PIL.Image.Image](
            "GET", calls.below("/v1/gallery", id) + "/thumbnail", calls.picture, options, "image/jpeg"
        )
        return await self._run(call)

    async def page(self, **options: Unpack[api.ListItemsOptions]) -> api.PageJson:
        """Returns a page of items; `items` returns all."""
        return await self._run(Call[api.PageJson]("GET", "/v1/gallery", calls.answer(), options))

    async def items(self, **options: Unpack[api.ListItemsOptions]) -> AsyncIterator[api.ItemJson]:
        """Yields all items of a gallery, page by page."""
        page = await self.page(**options)
        while True:
            for item in page["items"]:
                yield item
            following = page.get("next")
            if not following:
                return
            options["cursor"] = following
            page = await self.page(**options)

    async def knn(
        self,
        image: Image | None = None,
        *,
        vector: Vector | None = None,
        **options: Unpack[api.FindNeighborsOptions],
    ) -> list[api.NeighborJson]:
        """Finds the nearest items of an image or a vector."""
        call: Call[list[api.NeighborJson]] = await asyncio.to_thread(
            calls.query, "POST", "/v1/knn", calls.part("neighbors"), image, vector, options
        )
        return await self._run(call)

    async def knn_of(self, id: str, **options: Unpack[api.FindNeighborsOfItemOptions]) -> list[api.NeighborJson]:
        """Finds the nearest items of a stored item."""
        return await self._run(
            Call[list[api.NeighborJson]]("GET", "/v1/knn", calls.part("neighbors"), {"id": id, **options})
        )

    async def classify(
        self,
        image: Image | None = None,
        *,
        vector: Vector | None = None,
        **options: Unpack[api.ClassifyOptions],
    ) -> api.ClassificationAnswer:
        """Classifies an image or a vector, by the vote of its neighbors or by `probe`."""
        call: Call[api.ClassificationAnswer] = await asyncio.to_thread(
            calls.query, "POST", "/v1/classify", calls.answer(), image, vector, options
        )
        return await self._run(call)

    async def bases(self, **options: Unpack[api.ListBasesOptions]) -> list[api.Basis]:
        """Returns all bases."""
        return await self._run(Call[list[api.Basis]]("GET", "/v1/bases", calls.part("data"), options))

    async def basis(self, name: str, **options: Unpack[api.GetBasisOptions]) -> api.BasisJson:
        """Returns a basis with its components."""
        return await self._run(Call[api.BasisJson]("GET", calls.below("/v1/bases", name), calls.answer(), options))

    async def fit_basis(
        self,
        name: str,
        images: Images | None = None,
        **options: Unpack[api.FitBasisOptions],
    ) -> api.Basis:
        """Fits a PCA basis to images, or to the thumbnails of `gallery`."""
        return await self._run(await asyncio.to_thread(calls.basis, "PUT", name, images, options))

    async def add_to_basis(
        self,
        name: str,
        images: Images | None = None,
        **options: Unpack[api.AddToBasisOptions],
    ) -> api.Basis:
        """Adds images to a basis."""
        return await self._run(await asyncio.to_thread(calls.basis, "POST", name, images, options))

    async def delete_basis(self, name: str, **options: Unpack[api.DeleteBasisOptions]) -> None:
        """Deletes a basis."""
        return await self._run(Call("DELETE", calls.below("/v1/bases", name), calls.nothing, options))

    async def probes(self) -> list[api.TrainedJson]:
        """Returns all probes."""
        return await self._run(Call[list[api.TrainedJson]]("GET", "/v1/probes", calls.part("data")))

    async def probe(self, name: str, **options: Unpack[api.GetProbeOptions]) -> api.ProbeJson:
        """Returns a probe and the state of its training."""
        return await self._run(Call[api.ProbeJson]("GET", calls.below("/v1/probes", name), calls.answer(), options))

    async def train_probe(
        self, name: str, *, wait: bool = False, **options: Unpack[api.TrainProbeOptions]
    ) -> api.ProbeJson:
        """Trains a probe on the labels of a gallery. With `wait` returns when it has ended or failed."""
        body = {"name": name, "wait": wait, **options}
        probe = await self._run(Call[api.ProbeJson]("POST", "/v1/probes", calls.answer(), body=body))
        # The server waits no longer than a request may take.
        while wait and probe["state"] == "training":
            await asyncio.sleep(1)
            probe = await self.probe(name)
        return probe

    async def delete_probe(self, name: str, **options: Unpack[api.DeleteProbeOptions]) -> None:
        """Deletes a probe."""
        return await self._run(Call("DELETE", calls.below("/v1/probes", name), calls.nothing, options))
