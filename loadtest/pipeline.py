#!/usr/bin/env python3
"""Compares the rate of `dinoserve embed` with that of the bare pipeline, `dinoserve bench`.

    pip install -r tests/bulk/requirements.txt
    python3 loadtest/pipeline.py PROGRAM PHOTOGRAPH… [--images 400] [--rounds 3] [--model NAME] [--home DIR]

In alternating rounds: `bench` with the photographs; `embed` of a folder with copies of them; `embed` of the same from an
object store (SeaweedFS) each of whose answers takes 20 ms more. Prints JSON with the rates and the median ratios to
`bench` within a round.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "bulk"))

from store import PROXY_VARIABLES, FaultyStore, Store

DELAY = 0.02


def run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return done.stdout + done.stderr


def embed(program: str, model: list[str], source: str, environment: dict[str, str]) -> float:
    """Embeds a source into a new file, and returns images a second."""
    with tempfile.TemporaryDirectory() as folder:
        output = str(Path(folder) / "out.npy")
        printed = run([program, "embed", source, "-o", output, *model], environment)
    found = re.search(r"\(([\d.,]+) images/s\)", printed)
    assert found, printed
    return float(found[1].replace(",", ""))


def bench(program: str, model: list[str], photographs: list[str], environment: dict[str, str]) -> float:
    command = [program, "bench", *photographs, "--sizes", "224", "--rounds", "1", "--seconds", "15", "--json", *model]
    return json.loads(run(command, environment))["rows"][0]["pipeline_rate"]


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("program")
    parser.add_argument("photographs", nargs="+")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="dinov2-small-focus")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--home")
    options = parser.parse_args()
    plain = {name: value for name, value in os.environ.items() if name.lower() not in PROXY_VARIABLES}
    if options.home:
        plain["DINOSERVE_HOME"] = options.home
    model = ["--model", options.model, "--device", options.device]
    files = [Path(photograph) for photograph in options.photographs]
    rates: dict[str, list[float]] = {"bench": [], "folder": [], "store": []}
    with tempfile.TemporaryDirectory() as folder, Store() as store, FaultyStore(store.address, delay=DELAY) as proxy:
        store.client.make_bucket("photos")
        for index in range(options.images):
            file = files[index % len(files)]
            name = f"{index:04}{file.suffix}"
            (Path(folder) / name).write_bytes(file.read_bytes())
            store.client.put("photos", f"all/{name}", file.read_bytes())
        remote = plain | proxy.environment()
        for _ in range(options.rounds):
            rates["bench"].append(bench(options.program, model, options.photographs, plain))
            rates["folder"].append(embed(options.program, model, folder, plain))
            rates["store"].append(embed(options.program, model, "s3://photos/all/", remote))
            print({name: values[-1] for name, values in rates.items()}, file=sys.stderr)
    ratios = {
        name: round(statistics.median(a / b for a, b in zip(rates[name], rates["bench"])), 3)
        for name in ("folder", "store")
    }
    print(json.dumps({"images/s": rates, "ratio to bench": ratios}, indent=2))


if __name__ == "__main__":
    main()
