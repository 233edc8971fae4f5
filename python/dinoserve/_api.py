"""Options of the operations, and their answers. Made by openapi/python_types.py; run `make openapi`."""

from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypedDict


class AnomalyJson(TypedDict):
    """How an image compares with a bank."""

    anomalous: bool | None
    boxes: list["DefectJson"]
    fingerprint: str
    grid: list[int]
    height: int
    model: str
    score: float
    size: int
    threshold: float | None
    width: int


class AttentionItem(TypedDict):
    """Attention maps of an image."""

    attention: list[list[float]]
    grid: list[int]
    index: int
    size: int


class AttentionJson(TypedDict):
    """Attention maps of the images of a request."""

    data: list["AttentionItem"]
    fingerprint: str
    model: str


class AuditJson(TypedDict):
    """State of the audit of a gallery, and its report."""

    error: NotRequired["Problem | None"]
    progress: NotRequired["ProgressJson | None"]
    state: str
    audit: NotRequired["ReportJson | None"]
    gallery: str


class BankJson(TypedDict):
    """A bank and the state of its training."""

    error: NotRequired["Problem | None"]
    name: str
    state: str
    training: NotRequired["ProgressJson | None"]
    bank: NotRequired["StoredBankJson | None"]


class Bases(TypedDict):
    """Bases of this server."""

    data: list["Basis"]


class Basis(TypedDict):
    """A basis, and how it was fitted."""

    background: str
    dim: int
    exif: bool
    explained: list[float]
    filter: str
    fingerprint: str
    images: int
    levels: str
    model: str
    name: str
    patches: int
    ranges: list[list[float]]
    resize: str
    size: int


class BasisJson(TypedDict):
    """A basis with its mean and components."""

    background: str
    dim: int
    exif: bool
    explained: list[float]
    filter: str
    fingerprint: str
    images: int
    levels: str
    model: str
    name: str
    patches: int
    ranges: list[list[float]]
    resize: str
    size: int
    components: list[list[float]]
    mean: list[float]


class BatchAnswer(TypedDict):
    """Outcome of a batch."""

    data: list["BatchOutcome"]
    dim: int
    gallery: str


class BatchOutcome(TypedDict):
    """Outcome of an item."""

    error: NotRequired["Problem | None"]
    id: NotRequired[str | None]
    index: int
    status: "WriteStatus"


class ClassificationAnswer(TypedDict):
    """The answer from neighbors, or from a probe."""

    label: NotRequired[str | None]
    neighbors: NotRequired[list["NeighborJson"] | None]
    probabilities: NotRequired[list["Probability"]]
    data: NotRequired[list["OfImage_ClassificationJson"]]
    fingerprint: NotRequired[str]
    gallery: NotRequired[str]
    model: NotRequired[str]
    probe: NotRequired[str]


class ClusterJson(TypedDict):
    """Similar items."""

    center: str
    cohesion: float
    ids: list[str]
    label: str | None


class DefectJson(TypedDict):
    """An unusual place."""

    box: list[float]
    score: float


class DuplicatesJson(TypedDict):
    """Items that show the same."""

    ids: list[str]
    score: float


class EmbedAnswer(TypedDict):
    """Embeddings of the images of a request."""

    data: list["EmbedItem"]
    dim: int
    fingerprint: str
    model: str


class EmbedItem(TypedDict):
    """Embedding of an image, or the problem with the image."""

    embedding: NotRequired["Floats"]
    grid: NotRequired[list[int]]
    tokens: NotRequired["Tokens | None"]
    error: NotRequired["Problem"]
    index: int


class EmbedOutcome(TypedDict):
    """"""

    embedding: NotRequired["Floats"]
    grid: NotRequired[list[int]]
    tokens: NotRequired["Tokens | None"]
    error: NotRequired["Problem"]


class FromGallery_NeighborsOfItem(TypedDict):
    """An answer from a gallery, with the model of its vectors."""

    neighbors: list["NeighborJson"]
    query: "ItemQuery"
    fingerprint: str
    gallery: str
    model: str


class FromGallery_OneOrMore_ClassificationJson(TypedDict):
    """An answer from a gallery, with the model of its vectors."""

    label: NotRequired[str | None]
    neighbors: NotRequired[list["NeighborJson"] | None]
    probabilities: NotRequired[list["Probability"]]
    data: NotRequired[list["OfImage_ClassificationJson"]]
    fingerprint: str
    gallery: str
    model: str


class FromGallery_OneOrMore_Neighbors(TypedDict):
    """An answer from a gallery, with the model of its vectors."""

    neighbors: NotRequired[list["NeighborJson"]]
    data: NotRequired[list["OfImage_Neighbors"]]
    fingerprint: str
    gallery: str
    model: str


class FromProbe(TypedDict):
    """An answer from a probe, with the model of its features."""

    label: NotRequired[str | None]
    neighbors: NotRequired[list["NeighborJson"] | None]
    probabilities: NotRequired[list["Probability"]]
    data: NotRequired[list["OfImage_ClassificationJson"]]
    fingerprint: str
    model: str
    probe: str


class Galleries(TypedDict):
    """Galleries, ordered by name."""

    data: list["GalleryJson"]


class GalleryJson(TypedDict):
    """A gallery, and how its vectors were made."""

    background: str
    dim: int
    exif: bool
    filter: str
    fingerprint: str
    indexed: int
    items: int
    layers: int
    levels: str
    model: str
    name: str
    pooling: str
    resize: str
    size: int
    takes_images: bool


class HeadJson(TypedDict):
    """Statistics of an attention head."""

    effective_patches: float
    entropy: float
    foreground_mass: float
    head: int


class HeadStatsItem(TypedDict):
    """Statistics of the attention heads on an image."""

    foreground_area: float
    grid: list[int]
    heads: list["HeadJson"]
    index: int
    mean_overlap: NotRequired[float | None]
    overlap: list[list[float]]
    size: int


class HeadStatsJson(TypedDict):
    """Statistics of the attention heads."""

    data: list["HeadStatsItem"]
    fingerprint: str
    model: str


class ImageOutcome_ClassificationJson(TypedDict):
    """"""

    label: NotRequired[str | None]
    neighbors: NotRequired[list["NeighborJson"] | None]
    probabilities: NotRequired[list["Probability"]]
    error: NotRequired["Problem"]


class ImageOutcome_Neighbors(TypedDict):
    """"""

    neighbors: NotRequired[list["NeighborJson"]]
    error: NotRequired["Problem"]


class Index(TypedDict):
    """What the server offers."""

    docs: str
    openapi: str
    operations: list["OperationSummary"]


class ItemJson(TypedDict):
    """A stored item."""

    id: str
    label: NotRequired[str | None]
    metadata: dict[str, Any]
    place: int
    stored_ms: int


class ItemQuery(TypedDict):
    """Query for neighbors of a stored item."""

    id: str
    k: int


class ItemWithVector(TypedDict):
    """A stored item, with its vector if requested."""

    id: str
    label: NotRequired[str | None]
    metadata: dict[str, Any]
    place: int
    stored_ms: int
    gallery: str
    vector: NotRequired[list[float] | None]


class JobJson(TypedDict):
    """State of a job on a gallery."""

    error: NotRequired["Problem | None"]
    progress: NotRequired["ProgressJson | None"]
    state: str


class LimitProblem(TypedDict):
    """A limit of the server."""

    flag: str
    name: str
    value: int


class LoadedModel(TypedDict):
    """Result of loading a model."""

    fingerprint_before: NotRequired[str | None]
    model: "Model"


class MapJson(TypedDict):
    """State of the map of a gallery, and the map."""

    error: NotRequired["Problem | None"]
    progress: NotRequired["ProgressJson | None"]
    state: str
    gallery: str
    map: NotRequired["PlacedJson | None"]


class MaskJson(TypedDict):
    """A mask of pixels of the upright image."""

    area: int
    box: list[int]
    polygons: list[list[list[float]]]
    rle: "RleJson"


class MatchItem(TypedDict):
    """Points that match."""

    a: list[float]
    b: list[float]
    inlier: NotRequired[bool | None]
    score: float


class MatchedImage(TypedDict):
    """An image of a match."""

    grid: list[int]
    height: int
    size: int
    width: int


class MatchesJson(TypedDict):
    """Matches of two images."""

    fingerprint: str
    images: list["MatchedImage"]
    inliers: NotRequired[list[int] | None]
    matches: list["MatchItem"]
    model: str
    transform: NotRequired[list[list[float]] | None]


class MislabelJson(TypedDict):
    """An item whose label is likely wrong."""

    id: str
    label: str
    score: float
    suggested: str


class Model(TypedDict):
    """A served model, and how it runs."""

    created: int
    default: bool
    depth: int
    dim: int
    embed_size: int
    family: str
    fingerprint: str
    heads: int
    id: str
    licence: str
    map_size: int
    memory_bytes: NotRequired[int | None]
    notice: NotRequired[str | None]
    object: str
    owned_by: str
    patch: int
    precision: str
    provider: NotRequired[str | None]
    registers: int
    state: str
    summary: str
    weight_bytes: int


class Models(TypedDict):
    """The served models."""

    data: list["Model"]
    object: str


class NeighborJson(TypedDict):
    """A stored item and its score."""

    id: str
    label: NotRequired[str | None]
    metadata: dict[str, Any]
    place: int
    score: float


class ObjectJson(TypedDict):
    """An object."""

    area: int
    box: list[int]
    polygons: list[list[list[float]]]
    rle: "RleJson"
    score: float


class ObjectsJson(TypedDict):
    """Objects of an image."""

    fingerprint: str
    grid: list[int]
    height: int
    model: str
    objects: list["ObjectJson"]
    size: int
    width: int


class OfImage_ClassificationJson(TypedDict):
    """Answer for an image, or the problem with the image."""

    label: NotRequired[str | None]
    neighbors: NotRequired[list["NeighborJson"] | None]
    probabilities: NotRequired[list["Probability"]]
    error: NotRequired["Problem"]
    index: int


class OfImage_Neighbors(TypedDict):
    """Answer for an image, or the problem with the image."""

    neighbors: NotRequired[list["NeighborJson"]]
    error: NotRequired["Problem"]
    index: int


class OneOrMore_ClassificationJson(TypedDict):
    """The answer itself for one image or vector; a list of answers for several images."""

    label: NotRequired[str | None]
    neighbors: NotRequired[list["NeighborJson"] | None]
    probabilities: NotRequired[list["Probability"]]
    data: NotRequired[list["OfImage_ClassificationJson"]]


class OpenAiEmbedding(TypedDict):
    """Embedding of an image."""

    embedding: "Floats"
    index: int
    object: str


class OpenAiError(TypedDict):
    """A problem in the shape of OpenAI's API."""

    code: str
    message: str
    type: str


class OpenAiList(TypedDict):
    """Embeddings in the shape of OpenAI's API."""

    data: list["OpenAiEmbedding"]
    model: str
    object: str
    usage: "OpenAiUsage"


class OpenAiUsage(TypedDict):
    """Number of tokens that the model processed."""

    prompt_tokens: int
    total_tokens: int


class OperationSummary(TypedDict):
    """One operation of the API."""

    method: str
    path: str
    summary: str


class OutlierJson(TypedDict):
    """An item that has no similar ones."""

    distance: float
    id: str
    score: float


class PageJson(TypedDict):
    """Items in the order in which they were first stored."""

    items: list["ItemJson"]
    next: NotRequired[str | None]


class PcaItem(TypedDict):
    """PCA map of an image."""

    foreground: NotRequired[list[list[bool]] | None]
    grid: list[int]
    index: int
    map: list[list[list[float]]]
    size: int


class PcaJson(TypedDict):
    """PCA maps of the images of a request, in a shared basis."""

    data: list["PcaItem"]
    explained: list[float]
    fingerprint: str
    model: str


class PlacedJson(TypedDict):
    """A map. Its lists have an entry for each item that has a place, in the order of the gallery."""

    ids: list[str]
    label_of: list[int | None]
    labels: list[str]
    made_ms: int
    missing: int
    points: list[list[float]]


class Prepared(TypedDict):
    """How images were prepared for the model."""

    background: str
    exif: bool
    filter: str
    levels: str
    resize: str
    size: int


class Probability(TypedDict):
    """Probability of a class."""

    label: str
    probability: float


class ProbeJson(TypedDict):
    """A probe and the state of its training."""

    error: NotRequired["Problem | None"]
    name: str
    state: str
    training: NotRequired["ProgressJson | None"]
    probe: NotRequired["StoredProbeJson | None"]


class Problem(TypedDict):
    """A failed request, for people (`detail`) and programs (`code`)."""

    code: str
    detail: str
    error: NotRequired["OpenAiError | None"]
    limit: NotRequired["LimitProblem | None"]
    status: int
    title: str
    type: str


class ProgressJson(TypedDict):
    """Progress of a training, an audit or a map."""

    done: int
    stage: str
    total: NotRequired[int | None]


class Ready(TypedDict):
    """The model that answers requests which name none."""

    model: str
    provider: str


class RegionJson(TypedDict):
    """A rectangle of patches: rows `top` to `bottom` and columns `left` to `right`, both inclusive."""

    bottom: int
    left: int
    right: int
    top: int


class ReportJson(TypedDict):
    """Report of an audit."""

    clusters: list["ClusterJson"]
    duplicates: list["DuplicatesJson"]
    duplicates_above: float
    images: int
    made_ms: int
    mislabels: list["MislabelJson"]
    neighbors: int
    outliers: list["OutlierJson"]
    silhouette: float


class Restored(TypedDict):
    """The restored gallery."""

    bytes: int
    gallery: str
    items: int


class RleJson(TypedDict):
    """Run lengths in COCO's compressed form, as pycocotools reads it."""

    counts: str
    size: list[int]


SegmentJson = TypedDict(
    "SegmentJson",
    {
        "class": int,
        "mask": "MaskJson | None",
        "share": float,
    },
)
"""The pixels of a class."""


class SegmenterJson(TypedDict):
    """A segmenter and the state of its training."""

    error: NotRequired["Problem | None"]
    name: str
    state: str
    training: NotRequired["ProgressJson | None"]
    segmenter: NotRequired["StoredSegmenterJson | None"]


class SegmentsJson(TypedDict):
    """Classes of an image."""

    classes: list["SegmentJson"]
    fingerprint: str
    grid: list[int]
    height: int
    model: str
    size: int
    width: int


class SimilarityItem(TypedDict):
    """Similarity of the query region to the patches of an image."""

    grid: list[int]
    index: int
    similarity: list[list[float]]
    size: int


class SimilarityJson(TypedDict):
    """Similarity of a query region to the patches of the images of a request."""

    data: list["SimilarityItem"]
    fingerprint: str
    model: str
    query: "RegionJson"


class StoredBankJson(TypedDict):
    """A stored bank."""

    background: str
    exif: bool
    filter: str
    levels: str
    resize: str
    size: int
    augment: str
    coreset: float
    entries: int
    fingerprint: str
    foreground: str
    images: int
    model: str
    patches: int
    threshold: float | None
    tokens: str
    trained_ms: int


class StoredJson(TypedDict):
    """The stored item."""

    created: bool
    dim: int
    gallery: str
    id: str
    label: NotRequired[str | None]
    metadata: dict[str, Any]
    place: NotRequired[int | None]
    status: "WriteStatus"


class StoredProbeJson(TypedDict):
    """A trained probe."""

    accuracy: float
    classes: list[str]
    converged: bool
    examples: int
    features: str
    fingerprint: str
    gallery: str
    l2: float
    model: str
    trained_ms: int
    unlabelled: int
    width: int
    without_features: int


class StoredSegmenterJson(TypedDict):
    """A trained segmenter."""

    background: str
    exif: bool
    filter: str
    levels: str
    resize: str
    size: int
    accuracy: float | None
    classes: list[int]
    converged: bool
    fingerprint: str
    images: int
    l2: float
    layers: int
    model: str
    patches: int
    trained_ms: int


class TrainedJson(TypedDict):
    """State of a probe, an anomaly bank or a segmenter."""

    error: NotRequired["Problem | None"]
    name: str
    state: str
    training: NotRequired["ProgressJson | None"]


class TrainedList(TypedDict):
    """States of what is trained, by name."""

    data: list["TrainedJson"]


class UnloadedModel(TypedDict):
    """A model that is not served any more."""

    deleted: bool
    id: str
    object: str


class Version(TypedDict):
    """The program that answers."""

    name: str
    version: str


class GetBankOptions(TypedDict, total=False):
    """Options of `get_bank`."""

    model: str


class MakeBankOptions(TypedDict, total=False):
    """Options of `make_bank`."""

    model: str
    tokens: Literal["early", "last", "all"]
    coreset: float
    foreground: Literal["none", "auto"]
    augment: Literal["none", "rotate"]
    size: int
    resize: Literal["crop", "fit", "squash"]
    filter: Literal["bicubic", "bilinear"]
    exif: bool
    background: Literal["white", "black", "ignore"]
    levels: Literal["type", "data"]
    decode: Literal["exact", "fast"]


class AddToBankOptions(TypedDict, total=False):
    """Options of `add_to_bank`."""

    model: str


class DeleteBankOptions(TypedDict, total=False):
    """Options of `delete_bank`."""

    model: str


class ScoreImageOptions(TypedDict, total=False):
    """Options of `score_image`."""

    model: str
    decode: Literal["exact", "fast"]


class ScoreImageImageOptions(ScoreImageOptions, total=False):
    """Options of `score_image` for a picture."""

    output: Literal["overlay", "mask"]
    overlay: float


class GetBankFileOptions(TypedDict, total=False):
    """Options of `get_bank_file`."""

    model: str


class CreateAttentionMapOptions(TypedDict, total=False):
    """Options of `create_attention_map`."""

    model: str
    size: int
    resize: Literal["crop", "fit", "squash"]
    filter: Literal["bicubic", "bilinear"]
    exif: bool
    background: Literal["white", "black", "ignore"]
    levels: Literal["type", "data"]
    decode: Literal["exact", "fast"]
    head: int | Literal["mean", "max", "all"]
    threshold: float


class CreateAttentionMapImageOptions(CreateAttentionMapOptions, total=False):
    """Options of `create_attention_map` for a picture."""

    colormap: Literal["viridis", "inferno", "magma", "gray"]
    output: Literal["input", "patch"]
    upscale: Literal["nearest", "bilinear", "bicubic"]
    overlay: float


class CompareHeadsOptions(TypedDict, total=False):
    """Options of `compare_heads`."""

    model: str
    size: int
    resize: Literal["crop", "fit", "squash"]
    filter: Literal["bicubic", "bilinear"]
    exif: bool
    background: Literal["white", "black", "ignore"]
    levels: Literal["type", "data"]
    decode: Literal["exact", "fast"]


class ListBasesOptions(TypedDict, total=False):
    """Options of `list_bases`."""

    model: str


class GetBasisOptions(TypedDict, total=False):
    """Options of `get_basis`."""

    model: str


class FitBasisOptions(TypedDict, total=False):
    """Options of `fit_basis`."""

    model: str
    size: int
    resize: Literal["crop", "fit", "squash"]
    filter: Literal["bicubic", "bilinear"]
    exif: bool
    background: Literal["white", "black", "ignore"]
    levels: Literal["type", "data"]
    decode: Literal["exact", "fast"]
    components: int
    gallery: str
    sample: int


class AddToBasisOptions(TypedDict, total=False):
    """Options of `add_to_basis`."""

    model: str
    gallery: str
    sample: int


class DeleteBasisOptions(TypedDict, total=False):
    """Options of `delete_basis`."""

    model: str


class ClassifyOptions(TypedDict, total=False):
    """Options of `classify`."""

    probe: str
    vote: Literal["weighted", "majority"]
    temperature: float
    min_score: float
    k: int
    exact: bool
    label: str
    where: Mapping[str, Any]
    gallery: str
    model: str
    size: int
    resize: Literal["crop", "fit", "squash"]
    filter: Literal["bicubic", "bilinear"]
    exif: bool
    background: Literal["white", "black", "ignore"]
    levels: Literal["type", "data"]
    decode: Literal["exact", "fast"]
    pooling: Literal["cls", "mean", "cls_mean", "gem"]
    layers: int
    fingerprint: str


class CreateEmbeddingOptions(TypedDict, total=False):
    """Options of `create_embedding`."""

    model: str
    size: int
    resize: Literal["crop", "fit", "squash"]
    filter: Literal["bicubic", "bilinear"]
    exif: bool
    background: Literal["white", "black", "ignore"]
    levels: Literal["type", "data"]
    decode: Literal["exact", "fast"]
    pooling: Literal["cls", "mean", "cls_mean", "gem"]
    normalize: bool
    layers: int


class ListGalleriesOptions(TypedDict, total=False):
    """Options of `list_galleries`."""

    model: str


class GetGalleryOptions(TypedDict, total=False):
    """Options of `get_gallery`."""

    model: str


class RenameGalleryOptions(TypedDict, total=False):
    """Options of `rename_gallery`."""

    model: str


class DeleteGalleryOptions(TypedDict, total=False):
    """Options of `delete_gallery`."""

    model: str


class GetAuditOptions(TypedDict, total=False):
    """Options of `get_audit`."""

    model: str


class AuditGalleryOptions(TypedDict, total=False):
    """Options of `audit_gallery`."""

    model: str
    neighbors: int
    duplicates_above: float
    clusters: int


class DeleteAuditOptions(TypedDict, total=False):
    """Options of `delete_audit`."""

    model: str


class GetMapOptions(TypedDict, total=False):
    """Options of `get_map`."""

    model: str


class MapGalleryOptions(TypedDict, total=False):
    """Options of `map_gallery`."""

    model: str
    again: bool


class DeleteMapOptions(TypedDict, total=False):
    """Options of `delete_map`."""

    model: str


class GetSnapshotOptions(TypedDict, total=False):
    """Options of `get_snapshot`."""

    model: str


class ListItemsOptions(TypedDict, total=False):
    """Options of `list_items`."""

    limit: int
    cursor: str
    label: str
    where: Mapping[str, Any]
    gallery: str
    model: str


class PutItemsOptions(TypedDict, total=False):
    """Options of `put_items`."""

    gallery: str
    model: str
    on_conflict: Literal["replace", "skip", "error"]
    size: int
    resize: Literal["crop", "fit", "squash"]
    filter: Literal["bicubic", "bilinear"]
    exif: bool
    background: Literal["white", "black", "ignore"]
    levels: Literal["type", "data"]
    decode: Literal["exact", "fast"]
    pooling: Literal["cls", "mean", "cls_mean", "gem"]
    layers: int
    fingerprint: str


class GetItemOptions(TypedDict, total=False):
    """Options of `get_item`."""

    gallery: str
    model: str
    vector: bool


class PutItemOptions(TypedDict, total=False):
    """Options of `put_item`."""

    gallery: str
    model: str
    on_conflict: Literal["replace", "skip", "error"]
    label: str
    metadata: Mapping[str, Any]
    size: int
    resize: Literal["crop", "fit", "squash"]
    filter: Literal["bicubic", "bilinear"]
    exif: bool
    background: Literal["white", "black", "ignore"]
    levels: Literal["type", "data"]
    decode: Literal["exact", "fast"]
    pooling: Literal["cls", "mean", "cls_mean", "gem"]
    layers: int
    fingerprint: str


class UpdateItemOptions(TypedDict, total=False):
    """Options of `update_item`."""

    gallery: str
    model: str
    label: str
    metadata: Mapping[str, Any]


class DeleteItemOptions(TypedDict, total=False):
    """Options of `delete_item`."""

    gallery: str
    model: str


class GetThumbnailOptions(TypedDict, total=False):
    """Options of `get_thumbnail`."""

    gallery: str
    model: str


class FindNeighborsOfItemOptions(TypedDict, total=False):
    """Options of `find_neighbors_of_item`."""

    include_self: bool
    k: int
    exact: bool
    label: str
    where: Mapping[str, Any]
    gallery: str
    model: str


class FindNeighborsOptions(TypedDict, total=False):
    """Options of `find_neighbors`."""

    k: int
    exact: bool
    label: str
    where: Mapping[str, Any]
    gallery: str
    model: str
    size: int
    resize: Literal["crop", "fit", "squash"]
    filter: Literal["bicubic", "bilinear"]
    exif: bool
    background: Literal["white", "black", "ignore"]
    levels: Literal["type", "data"]
    decode: Literal["exact", "fast"]
    pooling: Literal["cls", "mean", "cls_mean", "gem"]
    layers: int
    fingerprint: str


class MatchImagesOptions(TypedDict, total=False):
    """Options of `match_images`."""

    model: str
    tokens: Literal["early", "last"]
    min_score: float
    ratio: float
    support: int
    foreground: Literal["none", "auto"]
    subpixel: bool
    geometry: Literal["none", "similarity", "homography"]
    max: int
    size: int
    resize: Literal["crop", "fit", "squash"]
    filter: Literal["bicubic", "bilinear"]
    exif: bool
    background: Literal["white", "black", "ignore"]
    levels: Literal["type", "data"]
    decode: Literal["exact", "fast"]


class FindObjectsOptions(TypedDict, total=False):
    """Options of `find_objects`."""

    model: str
    method: Literal["tokencut", "attention"]
    max_objects: int
    threshold: float
    refine: Literal["none", "guided"]
    size: int
    resize: Literal["crop", "fit", "squash"]
    filter: Literal["bicubic", "bilinear"]
    exif: bool
    background: Literal["white", "black", "ignore"]
    levels: Literal["type", "data"]
    decode: Literal["exact", "fast"]


class FindObjectsImageOptions(FindObjectsOptions, total=False):
    """Options of `find_objects` for a picture."""

    output: Literal["overlay", "mask"]
    overlay: float


class CreatePcaMapOptions(TypedDict, total=False):
    """Options of `create_pca_map`."""

    model: str
    size: int
    resize: Literal["crop", "fit", "squash"]
    filter: Literal["bicubic", "bilinear"]
    exif: bool
    background: Literal["white", "black", "ignore"]
    levels: Literal["type", "data"]
    decode: Literal["exact", "fast"]
    components: int
    foreground: Literal["none", "auto"]
    basis: str


class CreatePcaMapImageOptions(CreatePcaMapOptions, total=False):
    """Options of `create_pca_map` for a picture."""

    output: Literal["input", "patch"]
    upscale: Literal["nearest", "bilinear", "bicubic"]
    overlay: float


class TrainProbeOptions(TypedDict, total=False):
    """Options of `train_probe`."""

    model: str
    gallery: str
    features: Literal["cls_mean", "cls"]
    l2: float
    folds: int
    label: str
    where: Mapping[str, Any]


class GetProbeOptions(TypedDict, total=False):
    """Options of `get_probe`."""

    model: str


class DeleteProbeOptions(TypedDict, total=False):
    """Options of `delete_probe`."""

    model: str


class SegmentImageOptions(TypedDict, total=False):
    """Options of `segment_image`."""

    model: str
    decode: Literal["exact", "fast"]


class SegmentImageImageOptions(SegmentImageOptions, total=False):
    """Options of `segment_image` for a picture."""

    output: Literal["mask", "overlay"]
    overlay: float


class GetSegmenterOptions(TypedDict, total=False):
    """Options of `get_segmenter`."""

    model: str


class TrainSegmenterOptions(TypedDict, total=False):
    """Options of `train_segmenter`."""

    model: str
    layers: int
    l2: float
    folds: int
    size: int
    resize: Literal["crop", "fit", "squash"]
    filter: Literal["bicubic", "bilinear"]
    exif: bool
    background: Literal["white", "black", "ignore"]
    levels: Literal["type", "data"]
    decode: Literal["exact", "fast"]


class DeleteSegmenterOptions(TypedDict, total=False):
    """Options of `delete_segmenter`."""

    model: str


class CreateSimilarityMapOptions(TypedDict, total=False):
    """Options of `create_similarity_map`."""

    model: str
    patch: tuple[int, int]
    box: tuple[float, float, float, float]
    size: int
    resize: Literal["crop", "fit", "squash"]
    filter: Literal["bicubic", "bilinear"]
    exif: bool
    background: Literal["white", "black", "ignore"]
    levels: Literal["type", "data"]
    decode: Literal["exact", "fast"]


class CreateSimilarityMapImageOptions(CreateSimilarityMapOptions, total=False):
    """Options of `create_similarity_map` for a picture."""

    colormap: Literal["viridis", "inferno", "magma", "gray"]
    output: Literal["input", "patch"]
    upscale: Literal["nearest", "bilinear", "bicubic"]
    overlay: float


File = str
Floats = list[float] | str
Tokens = list[list[float]] | str
WriteStatus = Literal["created", "replaced", "skipped", "failed"]
