"""Runs of the program, and what it needs: a folder of models and ONNX Runtime."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from store import PROXY_VARIABLES, die_with_parent

ROOT = Path(__file__).resolve().parents[2]
# Variables that choose a store or a shard.
CHOOSING = ("AWS_", "GOOGLE_", "AZURE_", "JOB_COMPLETION", "COMPLETIONS", "SLURM_", "RANK", "WORLD_SIZE", "DINOSERVE_")
PATIENCE = 180
Process = subprocess.Popen[str]


class Failed(Exception):
    """A check found something else than expected."""


def check(holds: bool, what: str) -> None:
    if not holds:
        raise Failed(what)


@dataclass
class Run:
    """A run that has ended."""

    code: int
    text: str

    def expect(self, code: int, *words: str) -> "Run":
        """Checks the exit code, and that all words are printed."""
        check(self.code == code, f"the exit code is {self.code}, not {code}:\n{self.text}")
        for word in words:
            check(word.lower() in self.text.lower(), f"nothing is printed about {word}:\n{self.text}")
        return self


class Program:
    """`dinoserve` with a model, in an environment without other settings."""

    def __init__(self, path: Path, folder: Path, home: Path | None = None, model: str = "tiny"):
        self.path = path.resolve()
        self.folder = folder
        self.model = model
        kept = {name: value for name, value in os.environ.items() if not name.startswith(CHOOSING)}
        self.environment = {name: value for name, value in kept.items() if name.lower() not in PROXY_VARIABLES}
        self.environment |= {"ORT_DYLIB_PATH": runtime(), "DINOSERVE_LOG": "warn"}
        self.home = home or self.make_home()
        self.environment["DINOSERVE_HOME"] = str(self.home)

    def make_home(self) -> Path:
        """Makes a folder with the tiny model of the tests, which has random weights."""
        source = ROOT / "tests" / "golden" / "tiny"
        config = json.loads((source / "config.json").read_text())
        home = self.folder / "home"
        (home / "catalog").mkdir(parents=True)
        lines = ['name = "tiny"', 'summary = "random weights"', 'licence = "none"', 'ffn = "mlp"', "native_grid = 37"]
        lines += [f"dim = {config['hidden_size']}", f"depth = {config['num_hidden_layers']}"]
        lines += [f"heads = {config['num_attention_heads']}", f"registers = {config.get('num_register_tokens', 0)}"]
        lines += [f"ffn_hidden = {config['mlp_ratio'] * config['hidden_size']}", "embed_size = 224", "map_size = 518"]
        (home / "catalog" / "tiny.toml").write_text("\n".join(lines) + "\n")
        command = ["models", "convert", "tiny", "--from", str(source / "model.safetensors")]
        self.run(command, {"DINOSERVE_HOME": str(home)}).expect(0)
        return home

    def start(self, arguments: list[str], environment: dict[str, str] | None = None) -> Process:
        return subprocess.Popen(
            [self.path, *arguments],
            env=self.environment | (environment or {}),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            preexec_fn=die_with_parent,
        )

    def run(self, arguments: list[str], environment: dict[str, str] | None = None, patience: float = PATIENCE) -> Run:
        return finish(self.start(arguments, environment), patience)

    def embedding(self, source: str | list[str], output: str | Path, *flags: str, work: str = "work") -> list[str]:
        """Returns the arguments that embed a source."""
        sources = [source] if isinstance(source, str) else source
        folder = self.folder / work
        folder.mkdir(exist_ok=True)
        end = ["--work-dir", str(folder), "--model", self.model, "--device", "cpu"]
        return ["embed", *sources, "-o", str(output), *flags, *end]


def finish(process: Process, patience: float = PATIENCE) -> Run:
    """Waits for the end of a run."""
    try:
        text, _ = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        process.kill()
        text, _ = process.communicate()
        raise Failed(f"it does not end within {patience:.0f} s:\n{text}") from None
    return Run(process.returncode, text)


def runtime() -> str:
    """Returns the library of ONNX Runtime that `deploy/setup.py` installed."""
    if path := os.environ.get("ORT_DYLIB_PATH"):
        return path
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dinoserve"
    home = Path(os.environ.get("DINOSERVE_HOME") or cache)
    found = sorted(home.glob("runtime/onnxruntime-[0-9]*/libonnxruntime.*"))
    if not found:
        raise SystemExit(f"there is no ONNX Runtime in {home}; run deploy/setup.py")
    return str(found[-1])
