"""Uses a server through the Python client of this repository: every operation, both clients, errors and retries.

`python dinoserve_client.py URL FOLDER OPENAPI` has a server with a gallery, the folder of the sample photographs, and the
OpenAPI document.
"""

import asyncio
import json
import pickle
import re
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "python"))

import numpy as np
import PIL.Image

from dinoserve import AsyncClient, Client, Problem

URL, FOLDER = sys.argv[1], Path(sys.argv[2])
OPENAPI = json.loads(Path(sys.argv[3]).read_text())
CAT, COFFEE = FOLDER / "chelsea.png", FOLDER / "coffee.png"
SEGMENTER = FOLDER.parent / "segmenter"
PICTURES, MASKS = ([SEGMENTER / f"train_{index}.{kind}" for index in range(4)] for kind in ("jpg", "png"))
# For monitoring, for other clients, and for people.
NOT_OFFERED = {"healthz", "metrics", "list_operations", "create_openai_embedding"}
requested: set[tuple[str, str]] = set()


def check(condition, what):
    if not condition:
        sys.exit(f"dinoserve_client.py: {what}")


def problem(status, code, call):
    try:
        call()
    except Problem as raised:
        check((raised.status, raised.code) == (status, code) and raised.detail, raised)
        return raised
    sys.exit(f"dinoserve_client.py: no problem {status} {code}")


def fails(error, text, call):
    try:
        call()
    except error as raised:
        check(text in str(raised), raised)
    else:
        sys.exit(f"dinoserve_client.py: no {error.__name__}: {text}")


def images(client, vector):
    """Every form of an image has the features of its file, or is refused."""
    with tempfile.TemporaryDirectory() as folder:
        turned, cmyk = Path(folder) / "turned.jpg", Path(folder) / "cmyk.tif"
        cat = PIL.Image.open(CAT).convert("RGB")
        exif = PIL.Image.Exif()
        exif[0x0112] = 6
        cat.save(turned, exif=exif, quality=95)
        cat.convert("CMYK").save(cmyk)
        for path in (turned, cmyk):
            of_file, of_pixels = client.embed([path, PIL.Image.open(path)])
            check(of_file @ of_pixels > 0.9999, f"{path.name}: {of_file @ of_pixels}")
        check(client.embed(turned) @ vector < 0.9, "the orientation is applied")
    pixels = np.asarray(cat)
    gray = np.asarray(cat.convert("L"))
    for form in (CAT.open("rb").read(), bytearray(CAT.read_bytes()), memoryview(CAT.read_bytes()), pixels, str(CAT)):
        check(client.embed(form) @ vector > 0.9999, type(form))
    check(client.embed(path for path in (CAT, COFFEE)).shape == (2, 384), "a generator")
    check(client.embed(np.stack([pixels, pixels])).shape == (2, 384), "a batch of arrays")
    check(client.embed((CAT,)).shape == (1, 384), "a tuple of one")
    check(client.embed(gray) @ client.embed(cat.convert("L")) > 0.9999, "gray")
    many = client.embed([CAT] * 70)
    check(many.shape == (70, 384) and np.allclose(many, vector, atol=1e-4), "more images than a request may have")
    fails(ValueError, "there are no images", lambda: client.embed([]))
    fails(TypeError, "(a * 255)", lambda: client.embed(pixels / 255))
    fails(TypeError, "`vector=`", lambda: client.knn(vector))
    fails(TypeError, "must be [height, width, 3]", lambda: client.embed(pixels.transpose(2, 0, 1)))
    fails(TypeError, "NoneType is not an image", lambda: client.embed(None))
    fails(ValueError, "cannot be a name", lambda: client.get(".."))
    fails(ValueError, "no image", lambda: client.put_many({"a": CAT}, labels={"b": "cat"}))
    check(client.put_many({}) == [], "nothing is stored")
    copy = pickle.loads(pickle.dumps(problem(422, "invalid_option", lambda: client.embed(CAT, size=1))))
    check(copy.code == "invalid_option" and copy.detail, "a problem can be sent to another process")


def features(client):
    picture = PIL.Image.open(COFFEE)
    vector = client.embed(CAT)
    check(vector.shape == (384,) and abs(np.linalg.norm(vector) - 1) < 1e-5, "an embedding of length 1")
    images(client, vector)
    check(client.tokens(CAT).shape == (16, 16, 384), "tokens of every patch")
    same = client.embed([picture, np.asarray(picture), COFFEE.read_bytes(), str(COFFEE)], normalize=False)
    check(same.shape == (4, 384) and np.ptp(same, axis=0).max() < 1e-4, "four forms of one image")
    pca = client.pca([CAT, picture], size=224, foreground="auto", components=2)
    check([mask.shape for mask in pca.foreground] == [(16, 24), (16, 24)] and pca.foreground[0].any(), "the foreground")
    check(client.pca(CAT, size=224).foreground is None, "no foreground")
    check([found.shape for found in pca.maps] == [(16, 24, 2), (16, 24, 2)], "two maps of two components")
    check(pca.explained.shape == (2,) and all(0 <= found.min() and found.max() <= 1 for found in pca.maps), "shares")
    check(client.pca_image(CAT, size=224).size == (336, 224), "a drawn map")
    heads = client.attention(CAT, size=224)
    check(heads[0].shape == (6, 16, 24) and (heads[0] >= 0).all(), "attention of six heads")
    check(client.attention(CAT, size=224, head=3)[0].shape == (1, 16, 24), "attention of one head")
    check(client.attention_image(CAT, size=224, head="all").width > 700, "drawn heads")
    check(len(client.attention_stats(CAT)[0]["heads"]) == 6, "statistics of six heads")
    maps = client.similarity([CAT, COFFEE], patch=(8, 12), size=224)
    check(abs(maps[0][8, 12] - 1) < 1e-4 and maps[1].max() < 1, "a patch is like itself")
    check(client.similarity_image(CAT, box=(0.1, 0.1, 0.3, 0.3), size=224).size == (336, 224), "a drawn similarity")
    with PIL.Image.open(CAT) as cat:
        half = cat.resize((cat.width // 2, cat.height // 2))
    found = client.match(CAT, half, size=224, geometry="similarity")
    check(len(found["matches"]) > 50 and abs(found["transform"][0][0] - 0.5) < 0.03, "an image and its half")
    check(client.match_image(CAT, COFFEE, size=224, tokens="last").size == (680, 224), "drawn matches")
    objects = client.objects(COFFEE, size=224)
    masks = client.object_masks(COFFEE, size=224)
    check(masks.shape == (1, 400, 600) and masks.sum() == objects[0]["area"], "a cup")
    check(client.objects_image(COFFEE, size=224).size == (336, 224), "drawn objects")
    check(client.objects_image(COFFEE, output="mask", method="attention").size == (600, 400), "a mask")
    return vector


def anomalies(client):
    """A bank of one scene finds nothing in it, and something in others."""
    with PIL.Image.open(CAT) as cat:
        good = [cat.rotate(angle, PIL.Image.Resampling.BICUBIC) for angle in (0, 1, 2)]
    begun = client.learn_bank("cats", good[:2], size=224, coreset=0.5)
    check(begun["name"] == "cats" and begun["state"] in ("training", "ready"), begun)
    learned = client.learn_bank("cats", good[:2], wait=True, size=224, coreset=0.5)
    check(learned["state"] == "ready" and learned["bank"]["images"] == 2, learned)
    added = client.add_to_bank("cats", good[2], wait=True)
    check(added["bank"]["images"] == 3 and added["bank"]["size"] == 224, added)
    check(client.bank("cats")["bank"]["coreset"] == 0.5, "the options of a bank")
    check([(found["name"], found["state"]) for found in client.banks()] == [("cats", "ready")], "the banks")
    same, other = client.score("cats", good[1]), client.score("cats", COFFEE)
    check(not same["anomalous"] and same["boxes"] == [] and same["score"] <= same["threshold"], same)
    check(other["anomalous"] and other["boxes"][0]["score"] > other["threshold"], other)
    distances = client.anomaly_map("cats", COFFEE)
    check(distances.shape == (400, 600) and distances.dtype == np.float32 and distances.max() > 0.3, distances)
    check(client.anomaly_image("cats", COFFEE, overlay=0.5).size == (336, 224), "drawn defects")
    mask = client.anomaly_image("cats", COFFEE, output="mask")
    check(mask.mode == "P" and mask.size == (600, 400) and np.unique(mask).tolist() == [0, 1], "a mask of defects")
    check(not np.asarray(client.anomaly_image("cats", good[1], output="mask")).any(), "no defects")
    raised = problem(413, "too_large", lambda: client.learn_bank("cats", [np.zeros((8, 8), np.uint8)] * 65))
    check("64" in raised.detail, "all images are sent in one request")
    fails(ValueError, "there are no images", lambda: client.learn_bank("cats", []))
    problem(404, "not_found", lambda: client.score("none", CAT))
    with tempfile.TemporaryDirectory() as folder:
        client.save_bank("cats", f"{folder}/cats.safetensors")
        check(Path(f"{folder}/cats.safetensors").stat().st_size > 100_000, "the file of a bank")
    client.delete_bank("cats")
    check(client.banks() == [], "the bank is deleted")


def segments(client):
    """Every form of a mask trains the same segmenter, or is refused."""
    begun = client.train_segmenter("scenes", PICTURES, MASKS, size=224)
    check(begun["name"] == "scenes" and begun["state"] in ("training", "ready"), begun)
    trained = client.train_segmenter("scenes", PICTURES, MASKS, wait=True, size=224, l2=100)
    stored = trained["segmenter"]
    check((trained["state"], stored["classes"], stored["images"]) == ("ready", [0, 1, 2], 4), trained)
    check(client.segmenter("scenes")["segmenter"]["size"] == 224, "the options of a segmenter")
    check([(found["name"], found["state"]) for found in client.segmenters()] == [("scenes", "ready")], "the segmenters")
    test = SEGMENTER / "test_0.jpg"
    truth = np.asarray(PIL.Image.open(SEGMENTER / "test_0.png"))
    classes = client.segment("scenes", test)
    check(classes.shape == truth.shape and classes.dtype == np.uint8 and classes.flags.writeable, classes)
    check((classes == truth).mean() > 0.9, f"{(classes == truth).mean()} of the pixels")
    logits = client.segment_logits("scenes", test)
    check(logits.shape == (3, *truth.shape) and logits.dtype == np.float32, logits.shape)
    check((logits.argmax(0) == classes).mean() > 0.999, "the class of the largest logit")
    found = client.segments("scenes", test)
    check([one["class"] for one in found] == [0, 1, 2], found)
    check([one["mask"]["area"] for one in found if one["mask"]] == np.unique_counts(classes).counts.tolist(), found)
    drawn = client.segment_image("scenes", test)
    check(drawn.mode == "RGB" and drawn.size == (224, 224), drawn)
    indexed = client.segment_image("scenes", test, output="mask")
    check(indexed.mode == "P" and (np.asarray(indexed) == classes).all(), "the classes as an indexed image")

    pixels = [np.asarray(PIL.Image.open(path)) for path in MASKS]
    palette = [PIL.Image.fromarray(mask) for mask in pixels]
    for mask in palette:
        mask.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    forms = [path.read_bytes() for path in MASKS], np.stack(pixels).astype(np.int64), palette
    forms += ([str(MASKS[0]), pixels[1], PIL.Image.fromarray(pixels[2]), pixels[3].astype(np.uint16)],)
    for masks in forms:
        again = client.train_segmenter("again", PICTURES, masks, wait=True, size=224, l2=100)["segmenter"]
        check((again["accuracy"], again["classes"]) == (stored["accuracy"], stored["classes"]), type(masks[0]))
        check((client.segment_logits("again", test) == logits).all(), type(masks[0]))
    binary = pixels[0] == 1
    wanted = None
    for mask in (binary, PIL.Image.fromarray(binary), binary.astype(np.uint8)):
        client.train_segmenter("again", PICTURES[0], mask, wait=True, size=224)
        classes = client.segment("again", PICTURES[0])
        wanted = classes if wanted is None else wanted
        check((classes == wanted).all() and np.unique(classes).tolist() == [0, 1], "a mask of bits")

    def train(masks):
        return lambda: client.train_segmenter("again", PICTURES[0], masks)

    fails(ValueError, "values of 0 to 256", train(binary.astype(np.int32) * 256))
    fails(ValueError, "values of -1 to 0", train(-binary.astype(np.int8)))
    fails(TypeError, "of float64 is not a mask", train(binary.astype(float)))
    fails(TypeError, "mode RGB is not a mask", train(PIL.Image.open(CAT).convert("RGB")))
    fails(ValueError, "1 images and 2 masks", train([binary, binary]))
    fails(ValueError, "1 images and 0 masks", train([]))
    problem(422, "invalid_option", train(binary[1:]))
    problem(404, "not_found", lambda: client.segment("none", CAT))
    for name in ("again", "scenes"):
        client.delete_segmenter(name)
    check(client.segmenters() == [], "the segmenters are deleted")


def galleries(client, vector):
    in_own = {"gallery": "own"}
    stored = client.put("cats/1", CAT, label="cat", metadata={"year": 2020}, **in_own)
    check(stored["created"] and stored["dim"] == 384, stored)
    new = {"cup 1": COFFEE, "rocket": FOLDER / "rocket.jpg"}
    outcomes = client.put_many(new, labels={"cup 1": "cup"}, metadata={"rocket": {"year": np.int64(1969)}}, **in_own)
    check(client.get("rocket", **in_own)["metadata"] == {"year": 1969}, "metadata of one of several")
    check([outcome["status"] for outcome in outcomes] == ["created", "created"], outcomes)
    check(client.put("vector", vector=vector, **in_own)["status"] == "created", "a vector is stored")
    features = np.arange(2 * len(vector), dtype=np.float32)
    stored = client.put("vector", vector=vector, features=features, **in_own)
    check(stored["status"] == "replaced", "a vector is stored with features")
    check(client.update("rocket", label="rocket", **in_own)["label"] == "rocket", "a label is changed")
    changed = client.update("cats/1", metadata={"year": 2024}, **in_own)
    check((changed["label"], changed["metadata"]) == ("cat", {"year": 2024}), changed)
    check(np.allclose(client.get("cats/1", vector=True, **in_own)["vector"], vector, atol=1e-5), "the vector stays")
    check(client.thumbnail("cats/1", **in_own).size == (160, 106), "the thumbnail has the shape of the image")
    names = [item["id"] for item in client.items(limit=1, **in_own)]
    check(names == ["cats/1", "cup 1", "rocket", "vector"], names)
    check(len(client.page(limit=2, **in_own)["items"]) == 2, "a page of two")
    check([near["id"] for near in client.knn(COFFEE, k=1, **in_own)] == ["cup 1"], "the nearest of an image")
    check(client.knn(vector=vector, k=1, **in_own)[0]["score"] > 0.9999, "the nearest of a vector")
    later = client.knn_of("cup 1", where={"metadata": {"year": {"gte": 2021}}}, **in_own)
    check([near["id"] for near in later] == ["cats/1"], later)
    found = client.classify(COFFEE, k=1, **in_own)
    check((found["label"], found["gallery"]) == ("cup", "own"), found)
    check([found["name"] for found in client.galleries()] == ["own"], "the galleries")
    check(client.gallery("own")["items"] == 4, "the gallery")
    audit = client.audit("own", clusters=2)
    check(audit["state"] == "ready" and audit["audit"]["images"] == 4, audit)
    # The vector is that of the cat.
    check(audit["audit"]["duplicates"][0]["ids"] == ["cats/1", "vector"], audit)
    check(client.last_audit("own") == audit, "the report is kept")
    client.delete_audit("own")
    problem(404, "not_found", lambda: client.last_audit("own"))
    found = client.map("own")
    check(found["map"]["ids"] == ["cats/1", "cup 1", "rocket", "vector"] and found["map"]["missing"] == 0, found)
    check(client.last_map("own") == found, "the map is kept")
    client.delete_map("own")
    problem(404, "not_found", lambda: client.last_map("own"))
    check(client.rename_gallery("own", "renamed")["name"] == "renamed", "another name")
    client.rename_gallery("renamed", "own")
    with tempfile.TemporaryDirectory() as folder:
        client.save_snapshot("own", f"{folder}/own.snapshot")
        client.delete("vector", **in_own)
        before = Path(f"{folder}/own.snapshot").read_bytes()
        problem(404, "not_found", lambda: client.save_snapshot("none", f"{folder}/own.snapshot"))
        check(Path(f"{folder}/own.snapshot").read_bytes() == before, "a failed snapshot leaves the one before")
        check(client.restore_snapshot("other", f"{folder}/own.snapshot")["items"] == 4, "a restored gallery")
    client.delete_gallery("other")
    problem(404, "not_found", lambda: client.get("vector", **in_own))
    check(client.fit_basis("parts", [CAT, COFFEE])["images"] == 2, "a basis of two images")
    check(client.add_to_basis("parts", gallery="own")["images"] == 5, "three thumbnails are added")
    check(len(client.basis("parts")["components"]) == 3 and client.bases()[0]["name"] == "parts", "the basis")
    client.delete_basis("parts")
    for index, (label, path) in enumerate([("cat", CAT), ("cup", COFFEE)]):
        client.put(f"again-{index}", path, label=label, **in_own)
    trained = client.train_probe("things", wait=True, where={"label": {"any": ["cat", "cup"]}}, **in_own)
    check(trained["state"] == "ready" and client.probe("things")["probe"]["classes"] == ["cat", "cup"], trained)
    check(client.classify(CAT, probe="things")["label"] == "cat", "a probe classifies")
    check([found["name"] for found in client.probes()] == ["things"], "the probes")
    client.delete_probe("things")
    client.delete_gallery("own")


def server(client):
    check(client.version()["name"] == "dinoserve", "the version")
    name = client.ready()["model"]
    check(client.models()[0]["id"] == name and client.model(name)["dim"] == 384, "the model")
    # This server cannot load or unload another model; what it says is a problem with a code.
    problem(422, "model_rejected", lambda: client.load_model("no-such-model"))
    problem(404, "not_found", lambda: client.unload_model("no-such-model"))
    raised = problem(422, "invalid_option", lambda: client.embed(CAT, size=100))
    check("size" in raised.detail and raised.request_id, raised)
    raised = problem(422, "invalid_option", lambda: client.pca(CAT, sise=224))
    check("did you mean `size`?" in raised.detail, raised)
    problem(422, "undecodable_image", lambda: client.embed(b"\x89PNG\r\n\x1a\n broken"))
    try:
        client.knn(CAT, vector=[1.0])
    except TypeError:
        pass
    else:
        sys.exit("dinoserve_client.py: an image and a vector")


class Busy(BaseHTTPRequestHandler):
    """Is too busy for the first two requests, and sends none of them elsewhere."""

    times: list[float] = []

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        Busy.times.append(time.monotonic())
        if len(Busy.times) < 3:
            body, kind, status = b'{"code": "overloaded", "detail": "busy"}', "application/problem+json", 503
        else:
            body, kind, status = b'{"name": "dinoserve", "version": "1"}', "application/json", 200
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if status == 503:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(body)


def retries():
    server = HTTPServer(("127.0.0.1", 0), Busy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    with Client(address) as client:
        check(client.version()["version"] == "1" and len(Busy.times) == 3, "the third try is answered")
    pauses = np.diff(Busy.times)
    check((pauses >= 0.99).all(), f"the client waits as long as the server asks: {pauses}")
    Busy.times.clear()
    with Client(address, patience=0.5) as client:
        raised = problem(503, "overloaded", client.version)
        check(raised.retry_after == 1 and len(Busy.times) == 1, raised)
    server.shutdown()


async def in_parallel(vector):
    async with AsyncClient(URL, concurrency=50) as client:
        # More at once than the server admits.
        vectors = await asyncio.gather(*(client.embed(CAT) for _ in range(200)))
        check(all(np.allclose(found, vector, atol=1e-4) for found in vectors), "two hundred embeddings")
        cat = client.learn_bank("cat", CAT, wait=True, size=224, coreset=1)
        banks = await asyncio.gather(cat, client.learn_bank("cup", COFFEE, size=224))
        check([bank["name"] for bank in banks] == ["cat", "cup"], banks)
        check((await client.add_to_bank("cat", COFFEE, wait=True))["bank"]["images"] == 2, "an image is added")
        score, distances = await asyncio.gather(client.score("cat", CAT), client.anomaly_map("cat", CAT))
        check(score["score"] < 0.01 and distances.shape == (300, 451), score)
        check((await client.anomaly_image("cat", CAT)).size == (336, 224), "drawn defects")
        await asyncio.gather(client.delete_bank("cat"), client.delete_bank("cup"))
        trained = await client.train_segmenter("scenes", PICTURES, MASKS, wait=True, size=224, l2=100)
        check(trained["state"] == "ready" and await client.segmenter("scenes") == trained, trained)
        classes = await client.segment("scenes", PICTURES[0])
        check((classes == np.asarray(PIL.Image.open(MASKS[0]))).mean() > 0.9, "the classes of pixels")
        check((await client.segment_logits("scenes", CAT)).shape == (3, 300, 451), "logits")
        check(len(await client.segments("scenes", CAT)) == 3, "three classes")
        check((await client.segment_image("scenes", CAT)).size == (336, 224), "drawn classes")
        await client.delete_segmenter("scenes")
        check(await client.banks() == await client.segmenters() == [], "all are deleted")
        await client.put_many({str(index): COFFEE for index in range(3)}, gallery="parallel")
        check([item["id"] async for item in client.items(gallery="parallel", limit=2)] == ["0", "1", "2"], "all items")
        audit = await client.audit("parallel", clusters=1)
        check(audit["audit"]["duplicates"][0]["ids"] == ["0", "1", "2"], "the same image three times")
        check((await client.last_audit("parallel")) == audit, "the report is kept")
        await client.delete_audit("parallel")
        found = await client.map("parallel", again=True)
        check(len(found["map"]["points"]) == 3 and await client.last_map("parallel") == found, found)
        await client.delete_map("parallel")
        check((await client.rename_gallery("parallel", "other"))["items"] == 3, "another name")
        await client.rename_gallery("other", "parallel")
        await client.delete_gallery("parallel")
        try:
            await client.gallery("parallel")
        except Problem as raised:
            check(raised.status == 404, raised)
    methods = [{name for name in dir(kind) if not name.startswith("_")} for kind in (Client, AsyncClient)]
    check(methods[0] == methods[1], methods[0] ^ methods[1])


def main():
    with Client(URL) as client:
        client._http.event_hooks["request"].append(lambda sent: requested.add((sent.method.lower(), sent.url.raw_path.decode())))
        vector = features(client)
        anomalies(client)
        segments(client)
        galleries(client, vector)
        server(client)
    retries()
    asyncio.run(in_parallel(vector))
    for path, item in OPENAPI["paths"].items():
        pattern = re.compile(re.sub(r"\{\w+\}", "[^/?]+", path) + r"(\?|$)")
        for method, operation in item.items():
            was_used = any(used == method and pattern.match(address) for used, address in requested)
            check(was_used or operation["operationId"] in NOT_OFFERED, f"the client has no {operation['operationId']}")
    print(f"{len(requested)} different requests")


main()
