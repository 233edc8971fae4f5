"""Runs bulk embedding on many images with random SIGKILLs, and on a bucket with a very long list of keys.

    pip install -r ../tests/bulk/requirements.txt
    python bulk.py PROGRAM [--images 100000] [--kills 40] [--keys 10000000] [--json]

Two parts, and a number of 0 skips one:

--images N  N small pictures are drawn and stored in a real object store (SeaweedFS). 8 shards are embedded by 4
            processes, once undisturbed, and once with SIGKILLs at random moments. After some of them the working folder
            is lost, too, as on another machine. The outputs must be equal byte by byte, with each image once.
--keys N    One shard of a bucket with N keys, of which it embeds about 250. The bucket is simulated here: pages of 1000
            keys, and a few pictures under all the keys. It measures how long the first image takes, and the memory.

No process may use more than 400 MB. It prints a table, with --json as JSON; the exit code is 1 if something is wrong.
Without --home, the model is the tiny one of the tests. Everything else that the commands need is in --flags.
"""

import argparse
import concurrent.futures
import contextlib
import http.server
import itertools
import json
import os
import random
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

# No folder of compiled modules in the source.
sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "bulk"))

import photos
import pyarrow.parquet
from program import Program
from store import Client, FaultyStore, Server, Store, die_with_parent, environment, error_body

SHARDS = 8
PROCESSES = 4
MOST_MEMORY = 400e6
PAGE = 1000
IMAGES_OF_A_SHARD = 250
LOST = 0.25


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Wrong(Exception):
    """A result is not as it must be."""


# Processes


def own_peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass
class Process:
    """A run of the program, with the peak of its memory in bytes."""

    command: list[str]
    environment: dict[str, str]
    log: Path
    peak: int = 0
    code: int | None = None

    def start(self) -> "Process":
        with self.log.open("wb") as log:
            self.child = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,
            )
        return self

    def is_running(self) -> bool:
        """Measures the memory, and returns whether the process runs."""
        if self.code is not None:
            return False
        self.peak = max(self.peak, high_water(self.child.pid))
        pid, status, usage = os.wait4(self.child.pid, os.WNOHANG)
        if pid == 0:
            return True
        self.code = self.child.returncode = os.waitstatus_to_exitcode(status)
        # The system's number is exact. It includes what this process used before the program replaced its copy.
        if usage.ru_maxrss * 1024 > own_peak():
            self.peak = max(self.peak, usage.ru_maxrss * 1024)
        return False

    def kill(self) -> None:
        self.child.send_signal(signal.SIGKILL)

    def check_end(self) -> None:
        if self.code != 0:
            text = self.log.read_text(errors="replace")[-3000:]
            raise Wrong(f"{shlex.join(self.command)}: exit code {self.code}:\n{text}")


def high_water(pid: int) -> int:
    """Returns the peak of the memory of a process, in bytes; 0 before the program has replaced the copy of this one."""
    try:
        if Path(f"/proc/{pid}/exe").readlink() == Path("/proc/self/exe").readlink():
            return 0
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


# Many images


@dataclass
class Result:
    """One pass over all shards."""

    seconds: float = 0.0
    kills: int = 0
    losses: int = 0
    peaks: list[int] = field(default_factory=list)


class Pass:
    """Embeds all shards by some processes at a time, which are killed at random."""

    def __init__(self, program: Program, address: str, name: str, flags: list[str], rng: random.Random):
        self.program = program
        self.variables = program.environment | environment(address)
        self.name = name
        self.flags = flags
        self.rng = rng
        self.waiting = list(range(SHARDS))
        self.running: dict[int, Process] = {}
        self.result = Result()

    def work(self, shard: int) -> Path:
        return self.program.folder / f"work-{self.name}-{shard}"

    def start(self, shard: int) -> None:
        work = self.work(shard)
        work.mkdir(exist_ok=True)
        arguments = ["embed", "s3://many/photos/", "-o", f"s3://many/{self.name}/run.parquet"]
        arguments += [
            "--shard",
            f"{shard}/{SHARDS}",
            "--work-dir",
            str(work),
            "--model",
            self.program.model,
            *self.flags,
        ]
        log = self.program.folder / f"{self.name}-{shard}.log"
        self.running[shard] = Process([str(self.program.path), *arguments], self.variables, log).start()

    def run(self, kills: int = 0, seconds: float = 0.0) -> Result:
        """Sends `kills` SIGKILLs over about `seconds`."""
        started = time.monotonic()
        moments = [started + self.rng.uniform(0.3, seconds) for _ in range(kills)]
        moments.sort(reverse=True)
        try:
            while self.waiting or self.running:
                while self.waiting and len(self.running) < PROCESSES:
                    self.start(self.waiting.pop(0))
                time.sleep(0.05)
                if moments and self.running and time.monotonic() > moments[-1]:
                    moments.pop()
                    self.kill(self.rng.choice(list(self.running)))
                for shard, process in list(self.running.items()):
                    if not process.is_running():
                        self.end(shard)
        finally:
            for process in self.running.values():
                process.kill()
        self.result.seconds = time.monotonic() - started
        return self.result

    def kill(self, shard: int) -> None:
        process = self.running[shard]
        if process.is_running():
            process.kill()

    def end(self, shard: int) -> None:
        process = self.running.pop(shard)
        self.result.peaks.append(process.peak)
        if process.code == -signal.SIGKILL:
            self.result.kills += 1
            if self.rng.random() < LOST:
                self.result.losses += 1
                shutil.rmtree(self.work(shard))
            # Another one may come first, as with any scheduler.
            self.waiting.insert(self.rng.randint(0, len(self.waiting)), shard)
        else:
            process.check_end()


def name_of(number: int) -> str:
    return f"{photos.LABELS[number % 3]}/{number:07}.jpg"


def fill(address: str, count: int) -> None:
    """Draws the pictures and stores them."""
    local = threading.local()

    def store(number: int) -> None:
        if not hasattr(local, "client"):
            local.client = Client(address)
        local.client.put("many", f"photos/{name_of(number)}", photos.picture(number, "JPEG"))

    started = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(PROCESSES) as pool:
        for first in range(0, count, 10000):
            list(pool.map(store, range(first, min(count, first + 10000))))
            seconds = time.monotonic() - started
            say(f"{min(count, first + 10000)} of {count} images are stored ({seconds:.0f} s)")


def compare(client: Client, count: int, folder: Path) -> None:
    """Checks that both passes wrote the same bytes, and that each image is there once."""
    names = [f"run-{shard:05}-of-{SHARDS:05}" for shard in range(SHARDS)]
    expected = sorted(f"{name}.{ending}" for name in names for ending in ("json", "parquet"))
    ids: list[str] = []
    for name in ("calm", "killed"):
        found = sorted(key.removeprefix(f"{name}/") for key in client.keys("many", f"{name}/"))
        if found != expected:
            raise Wrong(f"the pass {name} left {found}")
    for file in expected:
        calm, killed = (client.get("many", f"{name}/{file}") for name in ("calm", "killed"))
        if calm != killed:
            raise Wrong(f"{file} has {len(killed)} bytes after kills, which are not the {len(calm)} of the calm pass")
        if file.endswith(".parquet"):
            path = folder / file
            path.write_bytes(killed)
            ids += pyarrow.parquet.read_table(path, columns=["id"])["id"].to_pylist()
            path.unlink()
    if len(ids) != len(set(ids)):
        raise Wrong(f"{len(ids) - len(set(ids))} images are there twice")
    if missing := {name_of(number) for number in range(count)} - set(ids):
        raise Wrong(f"{len(missing)} images are lost, such as {min(missing)}")
    if len(ids) != count:
        raise Wrong(f"{len(ids)} rows for {count} images")
    if uploads := client.unfinished_uploads("many"):
        raise Wrong(f"{len(uploads)} unfinished uploads are left, such as {uploads[0]}")


def many_images(program: Program, flags: argparse.Namespace) -> dict[str, object]:
    rng = random.Random(flags.seed)
    further = shlex.split(flags.flags)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(Store())
        address = store.address
        if flags.refuse_every or flags.delay:
            address = stack.enter_context(FaultyStore(address, flags.refuse_every, flags.delay)).address
        store.client.make_bucket("many")
        fill(store.address, flags.images)
        calm = Pass(program, store.address, "calm", further, rng).run()
        say(f"undisturbed: {calm.seconds:.0f} s")
        killed = Pass(program, address, "killed", further, rng).run(flags.kills, 0.8 * calm.seconds)
        say(f"with {killed.kills} kills: {killed.seconds:.0f} s")
        # The connection may be closed after so long.
        store.client.connection.close()
        compare(store.client, flags.images, program.folder)
    return {
        "images": flags.images,
        "shards": SHARDS,
        "processes": PROCESSES,
        "seconds, undisturbed": round(calm.seconds, 1),
        "images/s, undisturbed": round(flags.images / calm.seconds, 1),
        "kills": killed.kills,
        "of these with a lost working folder": killed.losses,
        "seconds, with kills": round(killed.seconds, 1),
        "outputs": "equal byte by byte, each image once",
        "peak memory of a process, MB": round(max(calm.peaks + killed.peaks) / 1e6, 1),
    }


# Many keys


class LongBucket:
    """A store with one bucket `many`, whose keys are `photos/0000/0000000.jpg` and so on."""

    def __init__(self, count: int):
        self.count = count
        self.files = [photos.picture(number, "JPEG") for number in range(4)]
        self.started = time.monotonic()
        self.pages = 0
        self.reads = 0
        self.listings = 0
        # Seconds from `started`.
        self.first_read: float | None = None
        self.last_page: float | None = None

    def __enter__(self) -> "LongBucket":
        bucket = self

        class Handler(LongBucketHandler):
            long_bucket = bucket

        self.server = Server(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def seconds(self) -> float:
        return time.monotonic() - self.started

    @staticmethod
    def key(number: int) -> str:
        return f"photos/{number // 10000:04}/{number:07}.jpg"

    def find(self, key: str) -> int | None:
        """Returns the number of a key."""
        digits = key[-11:-4]
        known = digits.isdigit() and int(digits) < self.count and self.key(int(digits)) == key
        return int(digits) if known else None

    def file(self, number: int) -> bytes:
        return self.files[number % len(self.files)]

    def page(self, query: dict[str, str]) -> bytes | None:
        """Returns a page of keys, or nothing for a request that is not simulated."""
        prefix = query.get("prefix", "")
        if query.get("delimiter") or not "photos/".startswith(prefix):
            return None
        first = int(query.get("continuation-token", 0))
        if after := query.get("start-after"):
            number = self.find(after)
            if number is None:
                return None
            first = max(first, number + 1)
        end = min(self.count, first + min(PAGE, int(query.get("max-keys", PAGE))))
        sizes = [len(file) for file in self.files]
        same = "<LastModified>2026-01-01T00:00:00.000Z</LastModified><StorageClass>STANDARD</StorageClass>"
        entries = "".join(
            f"<Contents><Key>photos/{number // 10000:04}/{number:07}.jpg</Key>{same}"
            f"<ETag>&quot;{number:032x}&quot;</ETag><Size>{sizes[number % len(sizes)]}</Size></Contents>"
            for number in range(first, end)
        )
        more = f"<NextContinuationToken>{end}</NextContinuationToken>" if end < self.count else ""
        head = f"<Name>many</Name><Prefix>{prefix}</Prefix><KeyCount>{end - first}</KeyCount><MaxKeys>{PAGE}</MaxKeys>"
        head += f"<IsTruncated>{str(bool(more)).lower()}</IsTruncated>{more}"
        self.listings += first == 0
        self.pages += 1
        if not more:
            self.last_page = self.seconds()
        return f'<?xml version="1.0"?><ListBucketResult>{head}{entries}</ListBucketResult>'.encode()


class LongBucketHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    long_bucket: LongBucket

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        bucket = self.long_bucket
        path, _, query = self.path.partition("?")
        name, _, key = urllib.parse.unquote(path).strip("/").partition("/")
        if name != "many":
            return self.answer(404, error_body("NoSuchBucket", "There is no such bucket."))
        if not key:
            page = bucket.page(dict(urllib.parse.parse_qsl(query)))
            return self.answer(200, page) if page else self.answer(501, error_body("NotImplemented", self.path))
        number = bucket.find(key)
        if number is None:
            return self.answer(404, error_body("NoSuchKey", "There is no such key."))
        self.answer(200, bucket.file(number), f'"{number:032x}"')
        if self.command == "GET":
            bucket.reads += 1
            if bucket.first_read is None:
                bucket.first_read = bucket.seconds()

    do_HEAD = do_GET

    def answer(self, status: int, body: bytes, etag: str = "") -> None:
        self.send_response_only(status)
        if etag:
            self.send_header("ETag", etag)
            self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()


def partial_bytes(*folders: Path) -> int:
    """Returns the size of all files that an interrupted run would continue from."""
    total = 0
    for path in itertools.chain.from_iterable(folder.rglob("*") for folder in folders):
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def watch(process: Process, bucket: LongBucket, folders: list[Path]) -> Iterator[tuple[str, float]]:
    """Waits for the end of a process, and yields times and sizes as they are known."""
    before = 0
    known: set[str] = set()
    while process.is_running():
        time.sleep(0.02)
        if bucket.first_read is None:
            before = partial_bytes(*folders)
        elif "first" not in known and partial_bytes(*folders) > before:
            known.add("first")
            yield "first", bucket.seconds()
        if bucket.last_page is not None and "listed" not in known:
            known.add("listed")
            yield "listed", process.peak


def many_keys(program: Program, flags: argparse.Namespace) -> dict[str, object]:
    shards = max(2, flags.keys // IMAGES_OF_A_SHARD)
    out = program.folder / "out"
    work = program.folder / "work"
    for folder in (out, work):
        folder.mkdir()
    with LongBucket(flags.keys) as bucket:
        command = [str(program.path), "embed", "s3://many/photos/", "-o", str(out / "run.parquet")]
        command += ["--shard", f"0/{shards}", "--work-dir", str(work), "--model", program.model]
        command += shlex.split(flags.flags)
        variables = program.environment | environment(bucket.address)
        bucket.started = time.monotonic()
        process = Process(command, variables, program.folder / "keys.log").start()
        try:
            seen = dict(watch(process, bucket, [out, work]))
        finally:
            if process.code is None:
                process.kill()
        total = bucket.seconds()
    process.check_end()
    name = f"run-{0:05}-of-{shards:05}"
    ids = pyarrow.parquet.read_table(out / f"{name}.parquet", columns=["id"])["id"].to_pylist()
    manifest = json.loads((out / f"{name}.json").read_bytes())
    if not len(ids) == len(set(ids)) == manifest["images"] == manifest["embedded"] > 0:
        raise Wrong(f"{len(ids)} rows, {len(set(ids))} different, and the manifest is {manifest}")
    if bucket.first_read is None or bucket.last_page is None:
        raise Wrong("the bucket is not read or not listed to its end")
    rounded = {name: round(value, 2) for name, value in seen.items()}
    return {
        "keys": flags.keys,
        "shard": f"0/{shards}",
        "images of the shard": len(ids),
        "pages of 1000 keys": bucket.pages,
        "times listed": bucket.listings,
        "seconds to the first image that is read": round(bucket.first_read, 2),
        "seconds to the first embedded image on disk": rounded.get("first"),
        "seconds to the last page": round(bucket.last_page, 2),
        "seconds": round(total, 2),
        "peak memory at the last page, MB": round(seen.get("listed", process.peak) / 1e6, 1),
        "peak memory of a process, MB": round(process.peak / 1e6, 1),
    }


# Report


def report(rows: dict[str, object]) -> None:
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:{width}}  {value}")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", type=Path)
    parser.add_argument("--home", type=Path, help="folder with the converted model, as DINOSERVE_HOME")
    parser.add_argument("--model", default="tiny", help="name of the model")
    parser.add_argument("--images", type=int, default=400, help="images in the real store; 0 skips this part")
    parser.add_argument("--kills", type=int, default=6, help="SIGKILLs at random moments")
    parser.add_argument("--refuse-every", type=int, default=0, metavar="N", help="refuse every Nth request, with kills")
    parser.add_argument("--delay", type=float, default=0.0, metavar="SECONDS", help="delay of requests, with kills")
    parser.add_argument("--keys", type=int, default=20000, help="keys of the simulated bucket; 0 skips this part")
    parser.add_argument("--flags", default="--device cpu", help="more flags of `dinoserve embed`")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON")
    flags = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bulk-"))
    results = []
    try:
        program = Program(flags.program, folder, flags.home, flags.model)
        for part, count in ((many_images, flags.images), (many_keys, flags.keys)):
            if count:
                results.append(part(program, flags))
                if not flags.json:
                    report(results[-1])
    except Wrong as error:
        sys.exit(f"wrong: {error}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if flags.json:
        print(json.dumps(results, indent=2))
    peaks = [result["peak memory of a process, MB"] for result in results]
    if any(isinstance(peak, float) and peak > MOST_MEMORY / 1e6 for peak in peaks):
        sys.exit(f"wrong: a process uses more than {MOST_MEMORY / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
