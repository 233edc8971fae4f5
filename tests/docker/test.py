#!/usr/bin/env python3
"""Builds the image as it ships, runs it confined, and brings docker-compose.yml up with Prometheus.

    tests/docker/test.py            needs a Docker engine; base images that it lacks are made, for which see bases.sh

DINOSERVE_DOCKER_BUILD    further flags of `docker build`, such as --cpu-shares=128
DINOSERVE_SKIPPED         a file that a line is added to for what could not be tried

Needs only Python's standard library. What can be tried must pass; the rest is said to be skipped, and why.
"""

import http.client
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

# No folder of compiled modules in the source.
sys.dont_write_bytecode = True

from compose import check_compose, check_grafana
from engine import (
    GALLERY,
    GOLDEN,
    HERE,
    IMAGE,
    LABEL,
    LARGEST_WITHOUT_MODEL,
    NAME,
    OPENVINO,
    PHOTOGRAPH,
    PNG,
    ROOT,
    SMALL,
    STAGES,
    USER,
    ask,
    check,
    default_of,
    docker,
    fail,
    free_port,
    golden_embedding,
    metric,
    picture_size,
    run,
    say,
    skip,
    wait,
    works,
)


def obstacle() -> str | None:
    """Why nothing can be tried here."""
    if not shutil.which("docker"):
        return "there is no docker"
    if not works("docker", "version"):
        return "no Docker engine answers"
    images = [default_of("RUST_IMAGE"), default_of("BASE_IMAGE")]
    missing = [image for image in images if not works("docker", "image", "inspect", image)]
    if missing and os.geteuid() != 0:
        return f"{missing[0]} is not there, and only root can make it"
    if missing and not shutil.which("debootstrap"):
        return f"{missing[0]} is not there, and there is no debootstrap to make it"
    return None


def build(tag: str, *arguments: str) -> None:
    proxies = ["http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"]
    passed = [flag for name in proxies if name in os.environ for flag in ("--build-arg", name)]
    # The classic builder, which is the stricter one.
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
    further = shlex.split(os.environ.get("DINOSERVE_DOCKER_BUILD", ""))
    command = ["docker", "build", "--network=host", *further, *passed, *arguments, "--label", LABEL, "-t", tag, str(ROOT)]
    run(*command, env=environment, timeout=3600)


def build_images() -> None:
    images = [(IMAGE, []), (SMALL, ["MODEL=none"]), (OPENVINO, ["RUNTIME=openvino", "DEVICE=openvino"])]
    for image, values in images:
        arguments = [flag for value in values for flag in ("--build-arg", value)]
        started = time.monotonic()
        build(STAGES[image], "--target=files", *arguments)
        build(image, *arguments)
        megabytes = int(docker("image", "inspect", "--format", "{{.Size}}", image)) / 1e6
        say(f"{image} is built and has {megabytes:.1f} MB", started)
    check(megabytes * 1e6 <= LARGEST_WITHOUT_MODEL, f"{SMALL} is larger than {LARGEST_WITHOUT_MODEL / 1e6:.0f} MB")
    # What earlier runs built, gigabytes each. What is named, which is what was just built, stays.
    docker("image", "prune", "--force", "--filter", f"label={LABEL}")


def check_image() -> None:
    config = json.loads(docker("image", "inspect", IMAGE))[0]["Config"]
    check(config["User"] == f"{USER}:{USER}", f"the user is {config['User']}")
    check(config["StopSignal"] == "SIGTERM", "the stop signal is not SIGTERM")
    check(config["Healthcheck"]["Test"] == ["CMD", "/usr/local/bin/dinoserve", "health"], "the health check is another")
    version = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    labels = config["Labels"]
    label = labels["org.opencontainers.image.version"]
    check(label == version, f"the image says that it is version {label}, but it is {version}: see VERSION in the Dockerfile")
    check(labels["org.opencontainers.image.licenses"] == "Apache-2.0", "the licence is another")
    said = docker("run", "--rm", IMAGE, "--version")
    check(version in said, f"the program says {said}")
    # An image without a model says so at once, and says which there are.
    done = subprocess.run(["docker", "run", "--rm", "--network=none", SMALL], capture_output=True, text=True, timeout=60)
    check(done.returncode != 0, "an image without a model serves")
    check("no model" in done.stderr and "dinov2-base" in done.stderr, f"without a model it says {done.stderr}")
    say(f"without a model it says: {done.stderr.strip().splitlines()[-1]}")


# One container


class Container:
    """A server in a container with as few rights as there can be, and not even a writable /tmp."""

    def __init__(self, *arguments: str, image: str = IMAGE):
        self.started = time.monotonic()
        confined = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges:true", "--pids-limit=256"]
        docker("run", "--detach", "--name", NAME, *confined, *arguments, image)

    def state(self) -> dict:
        return json.loads(docker("container", "inspect", NAME))[0]["State"]

    def wait_until_healthy(self) -> None:
        def healthy() -> bool:
            state = self.state()
            if not state["Running"] or state["Health"]["Status"] == "unhealthy":
                fail(f"the container is {state['Status']}\n{run('sh', '-c', f'docker logs {NAME} 2>&1')}")
            return state["Health"]["Status"] == "healthy"

        wait("a healthy container", 120, healthy)

    def address(self) -> str:
        """Where it is published, which a restart changes."""
        return "http://" + docker("port", NAME, "8080/tcp").splitlines()[0]


def remove_container() -> None:
    subprocess.run(["docker", "rm", "--force", "--volumes", NAME], capture_output=True)


def cosine_to_reference(address: str) -> float:
    """The cosine of the photograph's embedding to the reference, which must be close to 1."""
    vector = json.loads(ask(address, "/v1/embed", PHOTOGRAPH))["data"][0]["embedding"]
    expected = golden_embedding()
    check(len(vector) == len(expected) == 384, f"the embedding has {len(vector)} numbers")
    cosine = sum(x * y for x, y in zip(vector, expected)) / sum(y * y for y in expected) ** 0.5
    check(cosine > 0.9999, f"the embedding has a cosine of {cosine} to the reference")
    return cosine


def check_openvino() -> None:
    """An image whose model is run by OpenVINO."""
    container = Container("--publish", "127.0.0.1::8080", image=OPENVINO)
    container.wait_until_healthy()
    log = run("sh", "-c", f"docker logs {NAME} 2>&1")
    check("openvino:CPU" in log, f"the log names no OpenVINO\n{log}")
    say(f"OpenVINO runs the model: cosine {cosine_to_reference(container.address()):.6f}", container.started)
    remove_container()


def check_serving() -> None:
    """What it answers, and that a gallery on a named volume outlives a restart."""
    volume = ["--volume", f"{NAME}:{GALLERY}", "--env", f"DINOSERVE_GALLERY={GALLERY}"]
    container = Container("--publish", "127.0.0.1::8080", *volume)
    container.wait_until_healthy()
    say("healthy: read-only, without capabilities, as user 65532", container.started)
    pid = container.state()["Pid"]
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
        check(set(fields["Uid"].split()) == {str(USER)}, f"it runs as {fields['Uid']}")
        check(int(fields["CapEff"], 16) == 0 and fields["NoNewPrivs"] == "1", "it may do more than it should")
    address = container.address()
    for query, reference in (("size=224&resize=crop", "crop224"), ("size=448&resize=fit", "fit448")):
        size = picture_size(ask(address, f"/v1/pca?{query}", PHOTOGRAPH, Accept="image/png"))
        expected = picture_size((GOLDEN / f"chelsea_{reference}_input.png").read_bytes())
        check(size == expected, f"the map for {query} has {size} pixels and should have {expected}")
    say(f"maps have the right sizes, and the embedding a cosine of {cosine_to_reference(address):.6f} to the reference")
    ask(address, "/v1/embed", (GOLDEN.parent / "formats/heic/rgb420.heic").read_bytes())
    say("a HEIC is decoded")
    ask(address, "/v1/gallery/chelsea?label=cat", PHOTOGRAPH, method="PUT")
    text = ask(address, "/metrics").decode()
    check(metric(text, "dinoserve_images_total") >= 3, "the metrics do not count the images")

    started = time.monotonic()
    docker("restart", "--time=40", NAME)
    container.wait_until_healthy()
    say("restarted and healthy", started)
    address = container.address()
    item = json.loads(ask(address, "/v1/gallery/chelsea"))
    check(item["label"] == "cat", f"after a restart the item is {item}")
    found = json.loads(ask(address, "/v1/knn?k=1", PHOTOGRAPH))
    check("chelsea" in json.dumps(found), f"after a restart the neighbour is {found}")
    say("the gallery on a named volume is there after the restart")
    remove_container()
    docker("volume", "rm", NAME)


# Stopping under load


class Client(threading.Thread):
    """Sends photographs one after the other, until nobody listens."""

    def __init__(self, port: int):
        super().__init__(daemon=True)
        self.port, self.answered, self.refused, self.late, self.failed = port, 0, 0, 0, []
        self.start()

    def run(self) -> None:
        connection, asked = None, False
        while not self.failed:
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
                try:
                    connection.connect()
                    asked = False
                except OSError:
                    # Nothing was accepted, so nothing is lost.
                    return
            try:
                connection.request("POST", "/v1/embed", PHOTOGRAPH, PNG)
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException) as error:
                if asked:
                    self.failed.append(repr(error))
                else:
                    # Made in the moment in which the port was closed, so that nobody accepted it.
                    self.late += 1
                return
            asked = True
            if answer.status == 200 and len(json.loads(body)["data"][0]["embedding"]) == 384:
                self.answered += 1
            elif answer.status == 503:
                self.refused += 1
            else:
                self.failed.append(f"{answer.status} {body[:200]}")
            if answer.will_close:
                connection.close()
                connection = None


def check_stop() -> None:
    # On the host's network: the proxy of a published port accepts connections for which nobody listens any more.
    port = free_port()
    container = Container("--network=host", "--env=DINOSERVE_HOST=127.0.0.1", f"--env=DINOSERVE_PORT={port}")
    container.wait_until_healthy()
    clients = [Client(port) for _ in range(4)]
    time.sleep(3)
    check(all(client.is_alive() for client in clients), f"before the stop: {[client.failed for client in clients]}")
    started = time.monotonic()
    docker("stop", "--time=40", NAME)
    took = time.monotonic() - started
    for client in clients:
        client.join(timeout=10)
        check(not client.is_alive(), "a client still waits for its answer")
    failed = [failure for client in clients for failure in client.failed]
    answered, refused = sum(client.answered for client in clients), sum(client.refused for client in clients)
    check(not failed, f"the stop lost requests: {failed}")
    check(sum(client.late for client in clients) <= 1, "several new connections were closed without an answer")
    check(answered >= len(clients), f"there were {answered} answers")
    code = container.state()["ExitCode"]
    check(code == 0, f"the stopped container has exit code {code}")
    check(took < 35, f"the stop took {took:.1f} s")
    say(f"stopped in {took:.1f} s under load with exit code 0: {answered} answered, {refused} refused, none lost")
    remove_container()


def main() -> None:
    began = time.monotonic()
    if reason := obstacle():
        return skip(reason)
    run("sh", str(HERE / "bases.sh"), default_of("RUST_IMAGE"), default_of("BASE_IMAGE"))
    say("the base images are there", began)
    try:
        say("building, which takes a quarter of an hour when neither crates nor program are cached")
        build_images()
        check_image()
        check_serving()
        check_stop()
        check_openvino()
        check_compose()
        check_grafana()
    finally:
        remove_container()
        subprocess.run(["docker", "volume", "rm", "--force", NAME], capture_output=True)
    say("everything else holds", began)


if __name__ == "__main__":
    main()
