#!/usr/bin/env python3
"""Checks bulk embedding from and to a real object store, end to end.

    tests/bulk/check.py PROGRAM [--home DIR --model NAME] [--only WORD]

PROGRAM is `dinoserve`. Without --home, the tiny model of the tests is converted first. The packages are those of
requirements.txt. Each check prints a line; the exit code is 1 if one failed.
"""

import argparse
import functools
import hashlib
import http.server
import itertools
import json
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import urllib.parse
from collections.abc import Callable
from pathlib import Path

# No folder of compiled modules in the source.
sys.dont_write_bytecode = True

import numpy as np
import pyarrow
import pyarrow.parquet

import outputs
import photos
from outputs import Rows
from program import Failed, Process, Program, Run, check, finish
from store import FaultyStore, Server, Store, StoreError

COUNT = 96
SHARDS = 3
FORMATS = ("parquet", "npy", "jsonl", "tar")
PREFIX = "s3://photos/set/"
# One picture is read after another, so that some have results when the others are not read yet.
SLOWLY = ("--read-ahead-files", "1")


class Bench:
    """The store with its buckets, the program, and the results of a local run."""

    def __init__(self, program: Program, store: Store, proxy: FaultyStore):
        self.program = program
        self.store = store
        self.proxy = proxy
        self.client = store.client
        self.folder = program.folder
        self.photos = photos.make_photos(COUNT)
        self.fill()

    def fill(self) -> None:
        """Writes the pictures to a local folder and, in all kinds of sources, to the bucket."""
        for bucket in ("photos", "out"):
            self.client.make_bucket(bucket)
        for photo in self.photos:
            path = self.folder / "set" / photo.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(photo.data)
            self.put(f"set/{photo.name}", photo.data)
        self.put("set/notes.txt", b"not a picture\n")
        for number, photo in enumerate(self.photos[:20]):
            self.put(f"flat/{number:02}.{photo.ending}", photo.data)
        for number, part in enumerate(photos.parts(self.photos, SHARDS)):
            self.put(f"tars/{number:03}.tar", photos.tar(part, self.photos.index(part[0])))
            self.put(f"parquet/{number:03}.parquet", photos.parquet(photos.bytes_table(part)))
        self.put("hugging-face/0.parquet", photos.parquet(photos.hugging_face_table(self.photos)))
        self.put("list/urls.parquet", photos.parquet(photos.url_table("photos", "set/", self.photos)))

    def put(self, key: str, data: bytes) -> None:
        self.client.put("photos", key, data)

    def embed(self, source: str | list[str], output: str | Path, *flags: str, faulty: bool = False) -> Run:
        return finish(self.start(source, output, *flags, faulty=faulty))

    def start(
        self, source: str | list[str], output: str | Path, *flags: str, faulty: bool = False, work: str = "work"
    ) -> Process:
        store = self.proxy if faulty else self.store
        return self.program.start(self.program.embedding(source, output, *flags, work=work), store.environment())

    def out(self, prefix: str) -> dict[str, bytes]:
        """Returns the objects below a prefix of the bucket `out`, by their names."""
        keys = self.client.keys("out", f"{prefix}/")
        return {key.removeprefix(f"{prefix}/"): self.client.get("out", key) for key in keys}

    def fetched(self, key: str) -> Path:
        """Downloads an object of the bucket `out`."""
        path = self.folder / "fetched" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.client.get("out", key))
        return path

    def rows(self, key: str, dtype: str = "f32", column: str = "embedding") -> Rows:
        return outputs.read_parquet(self.fetched(key), dtype, column)

    @property
    def reference(self) -> Rows:
        """The .npy of a local run."""
        path = self.folder / "local" / "run.npy"
        return outputs.read_npy(path.read_bytes(), path.with_suffix(".paths.txt").read_bytes())

    def vectors(self) -> dict[str, np.ndarray]:
        return dict(zip(self.reference.ids, self.reference.vectors))

    def compare(self, what: str, rows: Rows, names: dict[str, str] | None = None, count: int = COUNT) -> None:
        """Compares rows with the local run. `names` has the picture of each id, if the ids are others."""
        different = len(set(rows.ids))
        check(len(rows.ids) == different == count, f"{what}: {len(rows.ids)} ids, {different} different ones")
        known = self.vectors()
        for id, vector in zip(rows.ids, rows.vectors):
            name = names.get(id, "") if names is not None else id
            check(name in known, f"{what}: the id {id!r} is of no picture")
            check(np.array_equal(vector, known[name]), f"{what}: the vector of {id!r} is not that of the local run")


def equal_outputs(what: str, found: dict[str, bytes], expected: dict[str, bytes]) -> None:
    check(sorted(found) == sorted(expected), f"{what}: {sorted(found)} instead of {sorted(expected)}")
    for name, data in expected.items():
        check(found[name] == data, f"{what}: {name} differs: {len(found[name])} bytes instead of {len(data)}")


def local_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def shard_flags(index: int, count: int = SHARDS) -> tuple[str, str]:
    return ("--shard", f"{index}/{count}")


# Sources and sinks


def local_sinks(bench: Bench) -> None:
    """A folder to files of each format."""
    folder = bench.folder / "local"
    folder.mkdir()
    source = str(bench.folder / "set")
    for format in FORMATS[::-1]:
        bench.embed(source, folder / f"run.{format}").expect(0)
    names = [photo.name for photo in bench.photos]
    check(sorted(bench.reference.ids) == sorted(names), f"the ids of the .npy are {bench.reference.ids[:3]}")
    check(bench.reference.vectors.dtype == np.float32, f"the .npy has {bench.reference.vectors.dtype}")
    rows = outputs.read_parquet(folder / "run.parquet")
    labels = [name.split("/")[0] for name in rows.ids]
    check(rows.labels == labels, f"the labels are {rows.labels[:5]}")
    said = outputs.metadata(folder / "run.parquet")
    check(said.get("dinoserve.model") == bench.program.model, f"the file says {said}")
    check({"dinoserve.fingerprint", "dinoserve.options"} <= said.keys(), f"the file says {said}")
    json.loads(said["dinoserve.options"])
    found = [rows, outputs.read_jsonl((folder / "run.jsonl").read_bytes()), outputs.read_tar(folder / "run.tar")]
    for format, rows in zip(("parquet", "jsonl", "tar"), found):
        bench.compare(f"run.{format}", rows)
        check(rows.ids == bench.reference.ids, f"run.{format} has another order than run.npy")
    check(not [name for name in local_files(folder) if "partial" in name], f"left behind: {list(local_files(folder))}")


def store_sinks(bench: Bench) -> None:
    """A prefix to objects of each format, byte for byte as from a folder to files."""
    for format in FORMATS:
        bench.embed(PREFIX, f"s3://out/sinks/run.{format}").expect(0)
    equal_outputs("objects and files", bench.out("sinks"), local_files(bench.folder / "local"))


def dtypes(bench: Bench) -> None:
    """Half precision and int8 in Parquet."""
    known = bench.vectors()
    for dtype in ("f16", "i8"):
        bench.embed(PREFIX, f"s3://out/dtypes/{dtype}.parquet", "--dtype", dtype).expect(0)
        rows = bench.rows(f"dtypes/{dtype}.parquet", dtype)
        exact = np.array([known[id] for id in rows.ids])
        if dtype == "f16":
            check(np.array_equal(rows.vectors, exact.astype(np.float16)), "f16 is not the nearest half precision")
        else:
            assert rows.scales is not None
            error = np.abs(rows.vectors * rows.scales[:, None] - exact) / rows.scales[:, None]
            check(bool(error.max() < 0.51), f"int8 times its scale is off by {error.max()} steps")
            check(bool(np.abs(rows.vectors).max(1).min() == 127), "int8 does not use its range")


def features(bench: Bench) -> None:
    """Several features in one file."""
    output = "s3://out/features/run.parquet"
    bench.embed("s3://photos/flat/*.png", output, "--features", "cls,cls_mean,patch_tokens").expect(0)
    cls, mean = (bench.rows("features/run.parquet", column=column) for column in ("cls", "cls_mean"))
    check(mean.vectors.shape[1] == 2 * cls.vectors.shape[1], f"cls_mean has {mean.vectors.shape[1]} numbers")
    table = pyarrow.parquet.read_table(bench.fetched("features/run.parquet"))
    kind = table.schema.field("patch_tokens").type
    check(pyarrow.types.is_list(kind) and pyarrow.types.is_fixed_size_list(kind.value_type), f"patch_tokens is {kind}")
    width = kind.value_type.list_size
    check(width == cls.vectors.shape[1], f"a patch token has {width} numbers")
    sizes = zip(table["grid_height"].to_pylist(), table["grid_width"].to_pylist(), table["patch_tokens"].to_pylist())
    for height, wide, tokens in sizes:
        check(len(tokens) == height * wide > 1, f"{len(tokens)} tokens for a grid of {height} by {wide}")
    check(len(table) == 10, f"{len(table)} rows for 10 pictures")


def sources(bench: Bench) -> None:
    """A glob, tars, Parquet with bytes, Hugging Face's Parquet, and a list of addresses."""
    names = [photo.name for photo in bench.photos]
    flat = {f"{number:02}.{photo.ending}": photo.name for number, photo in enumerate(bench.photos[:20])}
    tars = {f"{number:06}.{photo.ending}": photo.name for number, photo in enumerate(bench.photos)}
    urls = {f"row-{number}": name for number, name in enumerate(names)}
    jpegs = {id: name for id, name in flat.items() if id.endswith(".jpg")}
    several = {f"s3://photos/flat/{id}": name for id, name in flat.items()}
    cases: list[tuple[str, str | list[str], dict[str, str]]] = [
        ("glob", "s3://photos/flat/*.jpg", jpegs),
        ("globs", ["s3://photos/flat/*.png", "s3://photos/flat/*.jpg"], several),
        ("tars", "s3://photos/tars/*.tar", tars),
        ("bytes", "s3://photos/parquet/*.parquet", dict(zip(names, names))),
        ("hugging-face", "s3://photos/hugging-face/0.parquet", dict(zip(names, names))),
        ("urls", "s3://photos/list/urls.parquet", urls),
    ]
    for name, source, ids in cases:
        bench.embed(source, f"s3://out/sources/{name}.parquet").expect(0)
        rows = bench.rows(f"sources/{name}.parquet")
        bench.compare(name, rows, ids, len(ids))
        if name in ("tars", "bytes", "urls"):
            labels = [ids[id].split("/")[0] for id in rows.ids]
            check(rows.labels == labels, f"{name}: the labels are {rows.labels[:5]}")


def web_addresses(bench: Bench) -> None:
    """A list of pictures on a web server."""
    handler = functools.partial(QuietHandler, directory=str(bench.folder / "set"))
    with Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}/"
        ids = {base + urllib.parse.quote(photo.name): photo.name for photo in bench.photos[:20]}
        missing = f"{base}cat/missing.png"
        path = bench.folder / "addresses.txt"
        path.write_text("".join(f"{address}\n" for address in [*ids, missing]))
        run = bench.embed(str(path), "s3://out/web/run.parquet").expect(1, missing)
        server.shutdown()
    check("panicked" not in run.text, run.text)
    bench.compare("addresses", bench.rows("web/run.parquet"), ids, len(ids))


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


# Shards


def calm_shards(bench: Bench, source: str, name: str, format: str = "parquet") -> dict[str, bytes]:
    """Runs all shards without faults, and returns what they wrote."""
    for index in range(SHARDS):
        bench.embed(source, f"s3://out/{name}/run.{format}", *shard_flags(index)).expect(0)
    return bench.out(name)


def shards(bench: Bench) -> None:
    """Shards through a faulty store write the same bytes; a finished shard is skipped; shards are merged."""
    cases = [("prefix", PREFIX, "parquet"), ("tars", "s3://photos/tars/*.tar", "npy")]
    cases.append(("tables", "s3://photos/parquet/*.parquet", "jsonl"))
    for name, source, format in cases:
        expected = calm_shards(bench, source, f"calm-{name}", format)
        check(f"run-00001-of-00003.{format}" in expected, f"the shards wrote {sorted(expected)}")
        bench.proxy.be_calm()
        bench.proxy.refuse_every, bench.proxy.delay = 10, 0.02
        sink = f"s3://out/faulty-{name}/run.{format}"
        running = [
            bench.start(source, sink, *shard_flags(index), faulty=True, work=f"work-{index}") for index in range(SHARDS)
        ]
        for each in [finish(process) for process in running]:
            each.expect(0)
        check(bench.proxy.refused > 0, "the proxy refused nothing")
        equal_outputs(f"shards of {name} through faults", bench.out(f"faulty-{name}"), expected)
        manifests = [json.loads(data) for file, data in expected.items() if file.endswith(".json")]
        check(len(manifests) == SHARDS, f"{len(manifests)} manifests")
        check(sum(each["embedded"] for each in manifests) == COUNT, f"the manifests are {manifests}")
        check(all(each["images"] > 0 for each in manifests), f"a shard of {name} is empty: {manifests}")
    bench.proxy.be_calm()
    bench.embed(PREFIX, "s3://out/calm-prefix/run.parquet", *shard_flags(1), faulty=True).expect(0)
    read = [key for key in bench.proxy.answered if key.startswith("photos/")]
    check(not read, f"a finished shard reads {read[:3]}")
    merge_shards(bench)


def merge_shards(bench: Bench) -> None:
    environment = bench.store.environment()
    sink = "s3://out/calm-prefix/run.parquet"
    bench.program.run(["shards", "status", sink], environment).expect(0)
    bench.program.run(["shards", "merge", sink, "-o", "s3://out/merged/run.parquet"], environment).expect(0)
    merged = bench.rows("merged/run.parquet")
    bench.compare("the merged file", merged)
    ids = [bench.rows(f"calm-prefix/run-0000{index}-of-00003.parquet").ids for index in range(SHARDS)]
    check(merged.ids == list(itertools.chain(*ids)), "the shards are not merged in their order")
    manifest = bench.client.get("out", "calm-prefix/run-00002-of-00003.json")
    bench.client.delete("out", "calm-prefix/run-00002-of-00003.json")
    status = bench.program.run(["shards", "status", sink], environment)
    check(status.code == 1, f"with a missing shard, the exit code of `shards status` is {status.code}:\n{status.text}")
    bench.program.run(["shards", "merge", sink, "-o", "s3://out/merged/early.parquet"], environment).expect(1)
    check("early.parquet" not in bench.out("merged"), "shards are merged before all are finished")
    bench.client.put("out", "calm-prefix/run-00002-of-00003.json", manifest)


def schedulers(bench: Bench) -> None:
    """The variables of Kubernetes, Slurm and torchrun choose a shard."""
    expected = bench.out("calm-prefix")
    cases = {
        "kubernetes": {"JOB_COMPLETION_INDEX": "1", "COMPLETIONS": "3"},
        "slurm": {"SLURM_ARRAY_TASK_ID": "11", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "10"},
        "torchrun": {"RANK": "1", "WORLD_SIZE": "3"},
    }
    for name, variables in cases.items():
        command = bench.program.embedding(PREFIX, f"s3://out/{name}/run.parquet")
        bench.program.run(command, bench.store.environment() | variables).expect(0)
        wanted = {file: data for file, data in expected.items() if "00001-of-00003" in file}
        equal_outputs(f"shard 1 of {name}", bench.out(name), wanted)


# Interruptions


def interrupted(
    bench: Bench, output: str | Path, moments: list[tuple[int, signal.Signals]], *flags: str, loses: bool = False
) -> list[int]:
    """Starts a run, sends each signal after so many pictures are read, and lets the last run end.

    Returns how many pictures each run read.
    """
    proxy = bench.proxy
    proxy.be_calm()
    proxy.delay = 0.03
    reads = []
    for count, number in moments:
        proxy.reset()
        process = bench.start(PREFIX, output, *flags, *SLOWLY, faulty=True)
        alive = proxy.wait_for_answers(count, process)
        process.send_signal(number)
        run = finish(process)
        check(alive, f"the run ended before {count} pictures were read:\n{run.text}")
        expected = 130 if number == signal.SIGTERM else -number
        check(run.code == expected, f"after {number.name} the exit code is {run.code}:\n{run.text}")
        reads.append(reads_of(proxy))
        if loses and number == signal.SIGTERM:
            shutil.rmtree(bench.folder / "work")
    proxy.reset()
    bench.embed(PREFIX, output, *flags, faulty=True).expect(0)
    return [*reads, reads_of(proxy)]


def reads_of(proxy: FaultyStore) -> int:
    return sum(key.startswith("photos/set/") for key in proxy.answered)


def interruptions(bench: Bench) -> None:
    """SIGKILL and SIGTERM in the middle, and again: the same bytes, and little is done twice."""
    half = shard_flags(0, 2)
    folder = bench.folder / "killed"
    calm = bench.folder / "calm"
    folder.mkdir()
    calm.mkdir()
    for format in FORMATS:
        name = f"run.{format}"
        bench.embed(PREFIX, calm / name, *half).expect(0)
        images = json.loads((calm / "run-00000-of-00002.json").read_bytes())["images"]
        moments = [(12, signal.SIGKILL), (8, signal.SIGTERM), (8, signal.SIGKILL)]
        reads = interrupted(bench, folder / name, moments, *half)
        wanted = local_files(calm)
        equal_outputs(f"a {format} after signals", local_files(folder), wanted)
        check(reads[-1] < images, f"the last run began again: the runs read {reads} of {images} pictures")
        for path in [*calm.iterdir(), *folder.iterdir()]:
            path.unlink()


def interruptions_in_store(bench: Bench) -> None:
    """The same with an object as the sink. After SIGTERM the working folder is lost, as on another machine."""
    sink = "s3://out/killed/run.parquet"
    moments = [(12, signal.SIGKILL), (8, signal.SIGTERM), (6, signal.SIGKILL)]
    reads = interrupted(bench, sink, moments, *shard_flags(0), loses=True)
    wanted = {file: data for file, data in bench.out("calm-prefix").items() if "00000-of-00003" in file}
    equal_outputs("an object after signals", bench.out("killed"), wanted)
    images = json.loads(wanted["run-00000-of-00003.json"])["images"]
    check(max(reads[-2:]) < images, f"a run began again: the runs read {reads} of {images} pictures")
    check(not bench.client.unfinished_uploads("out"), f"unfinished uploads: {bench.client.unfinished_uploads('out')}")


# Bad input


def refused(bench: Bench, run: Run, prefix: str, *words: str, code: int = 1) -> None:
    """Checks that a run failed with a clear error, and that neither an output nor a manifest is there."""
    run.expect(code, *words)
    check("panicked" not in run.text, run.text)
    left = [name for name in bench.out(prefix) if not is_partial(name)]
    check(not left, f"a failed run wrote {left}:\n{run.text}")
    check(not bench.client.unfinished_uploads("out"), "a failed run left an unfinished upload")


def is_partial(name: str) -> bool:
    """Whether an object is what an interrupted shard continues from."""
    return "partial" in name


def no_credentials(bench: Bench) -> None:
    environment = {name: value for name, value in bench.store.environment().items() if "KEY" not in name}
    command = bench.program.embedding(PREFIX, "s3://out/no-credentials/run.parquet")
    refused(bench, bench.program.run(command, environment, patience=60), "no-credentials", "credentials")


def wrong_credentials(bench: Bench) -> None:
    environment = bench.store.environment() | {"AWS_SECRET_ACCESS_KEY": "another"}
    command = bench.program.embedding(PREFIX, "s3://out/wrong-credentials/run.parquet")
    refused(bench, bench.program.run(command, environment, patience=60), "wrong-credentials", "permission denied")


def no_such_bucket(bench: Bench) -> None:
    refused(bench, bench.embed("s3://nowhere/set/", "s3://out/no-bucket/run.parquet"), "no-bucket", "nowhere")
    bench.embed(PREFIX, "s3://nowhere/run.parquet", *shard_flags(0)).expect(1, "nowhere")
    refused(bench, bench.embed("s3://photos/empty/", "s3://out/empty/run.parquet"), "empty", "s3://photos/empty")


def forbidden_keys(bench: Bench) -> None:
    """Pictures that may not be read are failures of those pictures only."""
    own = [photo.name for photo in bench.photos if is_of_shard(photo.name, 0, 2)]
    names = own[3:20:6]
    bench.proxy.forbidden = lambda key: key.removeprefix("photos/set/") in names
    run = bench.embed(PREFIX, "s3://out/forbidden/run.parquet", *shard_flags(0, 2), faulty=True)
    run.expect(1, *names)
    rows = bench.rows("forbidden/run-00000-of-00002.parquet")
    bench.compare("the others", rows, count=len(own) - len(names))
    check(sorted([*rows.ids, *names]) == sorted(own), f"the shard has {rows.ids}, and should have {own}")
    manifest = json.loads(bench.client.get("out", "forbidden/run-00000-of-00002.json"))
    failed = [each["id"] for each in manifest["failures"]]
    check(sorted(failed) == sorted(names), f"the manifest has the failures {failed}")
    check(manifest["images"] == len(own) and manifest["embedded"] == len(rows.ids), f"the manifest is {manifest}")


def is_of_shard(id: str, index: int, count: int) -> bool:
    return int.from_bytes(hashlib.sha256(id.encode()).digest()[:8], "big") % count == index


def forbidden_output(bench: Bench) -> None:
    """An output that may not be written."""
    bench.proxy.forbidden = lambda key: key.startswith("out/")
    run = bench.embed("s3://photos/flat/*.jpg", "s3://out/unwritable/run.parquet", faulty=True)
    refused(bench, run, "unwritable", "s3://out/unwritable")


def corrupt_tar(bench: Bench) -> None:
    good = photos.tar(bench.photos[:8])
    garbage = good[:1024] + b"\xa5" * 4096
    cases = {"cut": good[: len(good) // 2 + 100], "garbage": garbage, "text": b"no tar at all\n" * 100}
    for name, data in cases.items():
        bench.put(f"corrupt/{name}.tar", data)
        run = bench.embed(f"s3://photos/corrupt/{name}.tar", f"s3://out/corrupt-{name}/run.parquet")
        refused(bench, run, f"corrupt-{name}", f"{name}.tar")


def corrupt_parquet(bench: Bench) -> None:
    table = photos.bytes_table(bench.photos[:8])
    good = photos.parquet(table)
    without = photos.parquet(table.select(["id", "label"]))
    numbers = photos.parquet(table.set_column(2, "image", pyarrow.array(range(8), pyarrow.int64())))
    for name, data in {"cut": good[:-200], "without-column": without, "numbers": numbers}.items():
        bench.put(f"corrupt/{name}.parquet", data)
        run = bench.embed(f"s3://photos/corrupt/{name}.parquet", f"s3://out/corrupt-{name}/run.parquet")
        refused(bench, run, f"corrupt-{name}", f"{name}.parquet")


def another_run(bench: Bench) -> None:
    """A manifest of another model, of other options or of another source is not overwritten."""
    sink = "s3://out/another/run.parquet"
    source = "s3://photos/flat/*.jpg"
    flags = shard_flags(0, 2)
    file = "run-00000-of-00002.json"
    bench.embed(source, sink, *flags).expect(0)
    before = bench.out("another")
    bench.embed(source, sink, *flags, "--dtype", "f16").expect(1, file)
    bench.embed(source, sink, *flags, "--features", "cls_mean").expect(1, file)
    bench.embed("s3://photos/flat/*.png", sink, *flags).expect(1, file)
    equal_outputs("after a run with other options", bench.out("another"), before)
    manifest = json.loads(before[file])
    changed = json.dumps(manifest | {"model": "another", "fingerprint": manifest["fingerprint"][::-1]}).encode()
    for content in (changed, b"{"):
        bench.client.put("out", f"another/{file}", content)
        bench.embed(source, sink, *flags).expect(1, file)
        equal_outputs("after a run of another model", bench.out("another"), before | {file: content})


def another_partial(bench: Bench) -> None:
    """The results of an interrupted run are not used with other options, and not lost by them."""
    folder = bench.folder / "partial"
    folder.mkdir()
    output = folder / "run.parquet"
    bench.proxy.delay = 0.03
    process = bench.start(PREFIX, output, *SLOWLY, faulty=True)
    check(bench.proxy.wait_for_answers(30, process), "the run ends too early")
    process.kill()
    finish(process)
    bench.embed(PREFIX, output, "--dtype", "f16").expect(1, "partial")
    bench.proxy.be_calm()
    bench.embed(PREFIX, output, faulty=True).expect(0)
    read = reads_of(bench.proxy)
    check(read < COUNT, f"the run began again and read {read} pictures")
    wanted = {"run.parquet": (bench.folder / "local" / "run.parquet").read_bytes()}
    equal_outputs("after a run with other options", local_files(folder), wanted)


def two_processes(bench: Bench) -> None:
    """The second process on a shard is refused, and the first one ends well."""
    folder = bench.folder / "twice"
    folder.mkdir()
    for sink in (str(folder / "run.parquet"), "s3://out/twice/run.parquet"):
        bench.proxy.be_calm()
        bench.proxy.delay = 0.15
        first = bench.start(PREFIX, sink, *shard_flags(0), *SLOWLY, faulty=True)
        check(bench.proxy.wait_for_answers(2, first), "the first run ends too early")
        second = bench.embed(PREFIX, sink, *shard_flags(0))
        still = first.poll() is None
        bench.proxy.delay = 0.0
        end = finish(first)
        check(still, f"the first run ended before the second: {end.text}\n{second.text}")
        second.expect(1, "run-00000-of-00003")
        end.expect(0)
    wanted = {file: data for file, data in bench.out("calm-prefix").items() if "00000-of-00003" in file}
    equal_outputs("files of the first process", local_files(folder), wanted)
    equal_outputs("objects of the first process", bench.out("twice"), wanted)


def bad_command_lines(bench: Bench) -> None:
    cases = [(("--shard", "3/3"), "run.parquet"), (("--shard", "0"), "run.parquet"), (("--dtype", "f8"), "run.parquet")]
    for flags, name in cases:
        refused(bench, bench.embed(PREFIX, f"s3://out/bad/{name}", *flags), "bad", flags[0], code=2)
    run = bench.embed(PREFIX, "s3://out/bad/run.xyz")
    check(run.code in (1, 2), f"the exit code is {run.code}:\n{run.text}")
    refused(bench, run, "bad", ".parquet", code=run.code)


# Later ones use outputs of earlier ones.
CHECKS: list[Callable[[Bench], None]] = [
    local_sinks,
    store_sinks,
    dtypes,
    features,
    sources,
    web_addresses,
    shards,
    schedulers,
    interruptions,
    interruptions_in_store,
    no_credentials,
    wrong_credentials,
    no_such_bucket,
    forbidden_keys,
    forbidden_output,
    corrupt_tar,
    corrupt_parquet,
    another_run,
    another_partial,
    two_processes,
    bad_command_lines,
]
NEEDED = {"local_sinks", "shards"}


def run_checks(bench: Bench, only: str | None) -> int:
    """Runs the checks and returns the number of those that failed."""
    failed = 0
    for each in CHECKS:
        name = each.__name__
        if only and only not in name and name not in NEEDED:
            continue
        started = time.monotonic()
        bench.proxy.be_calm()
        try:
            each(bench)
        except (Failed, StoreError, ValueError, KeyError, OSError, pyarrow.ArrowException) as error:
            failed += 1
            where = traceback.extract_tb(error.__traceback__)
            line = next(frame.lineno for frame in reversed(where) if frame.name == name)
            print(f"FAILED {name} (line {line}): {type(error).__name__}: {error}", flush=True)
        else:
            print(f"ok     {name.replace('_', ' ')} ({time.monotonic() - started:.1f} s)", flush=True)
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", type=Path)
    parser.add_argument("--home", type=Path, help="folder with the converted model, as DINOSERVE_HOME")
    parser.add_argument("--model", default="tiny", help="name of the model")
    parser.add_argument("--only", metavar="WORD", help="only the checks whose name has this, and those that they need")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bulk-"))
    try:
        program = Program(arguments.program, folder, arguments.home, arguments.model)
        with Store() as store, FaultyStore(store.address) as proxy:
            failed = run_checks(Bench(program, store, proxy), arguments.only)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{failed} of {len(CHECKS)} checks failed" if failed else "all checks are good")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
