#!/usr/bin/env python3
"""Runs slurm.sh on a Slurm cluster of this machine, kills workers, and compares every shard with an undisturbed run.

    slurm_test.py PROGRAM FOLDER        as root; needs munged, slurmctld, slurmd and sbatch (Debian: slurm-wlm)

Starts munged, slurmctld and two slurmd on 127.0.0.1 with files in a temporary folder, and ends them. An array of four
shards runs on the two nodes. One worker is killed with SIGKILL in the middle; the job of another is signaled as before
its time limit. Both are queued again and go on from what they had saved. Each Parquet file must have the bytes of the
file that `dinoserve embed --shard I/4` writes without Slurm. A second array then finds all shards finished, a part of
the array is refused, and a canceled task stays canceled.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent / "slurm.sh"
SHARDS = 4
NODES = ("bulk1", "bulk2")
# Seconds until a step of the test has failed. Slurm lets a job that is queued again wait for two minutes.
PATIENCE = 1800

CONFIGURATION = """\
ClusterName=bulk
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={controller}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
StateSaveLocation={folder}/state
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
SlurmdSpoolDir={folder}/%n
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
JobRequeue=1
MinJobAge=86400
MailProg=/bin/true
ReturnToService=2
{nodes}
PartitionName=main Nodes={names} Default=YES MaxTime=INFINITE State=UP
"""


class Failed(Exception):
    """What did not hold."""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_for(what: str, found, seconds: float = PATIENCE):
    """Waits until `found()` is true, and returns it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := found():
            return result
        time.sleep(0.1)
    raise Failed(f"{what}: not within {seconds:.0f} s")


class Cluster:
    """The daemons of a cluster, with all of their files in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemons: list[subprocess.Popen[bytes]] = []
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def __enter__(self) -> "Cluster":
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self) -> None:
        folder = self.folder
        key = folder / "munge.key"
        key.write_bytes(os.urandom(256))
        key.chmod(0o600)
        (folder / "state").mkdir()
        host = socket.gethostname()
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} CPUs=1 RealMemory=1000"
            for name in NODES
        )
        configuration = CONFIGURATION.format(
            host=host, folder=folder, controller=free_port(), nodes=nodes, names=",".join(NODES)
        )
        (folder / "slurm.conf").write_text(configuration)
        files = [
            f"--{name}-file={folder / file}"
            for name, file in [("key", "munge.key"), ("pid", "munged.pid"), ("log", "munged.log"), ("seed", "seed")]
        ]
        # As root, munged refuses folders that others could write to unless it is forced.
        self.daemon("munged", "--foreground", "--force", f"--socket={folder / 'munge.socket'}", *files)
        wait_for("munged", (folder / "munge.socket").exists, 30)
        self.daemon("slurmctld", "-D", "-i")
        for name in NODES:
            self.daemon("slurmd", "-D", "-N", name)

        def all_idle() -> bool:
            self.check()
            return self.run("sinfo", "-h", "-o", "%T %D", fails=True).split() == ["idle", str(len(NODES))]

        wait_for("the nodes are idle", all_idle, 120)

    def daemon(self, *command: str) -> None:
        with open(self.folder / f"{command[0]}-{len(self.daemons)}.out", "wb") as output:
            self.daemons.append(
                subprocess.Popen(
                    command, env=self.environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
                )
            )

    def check(self) -> None:
        for daemon in self.daemons:
            if daemon.poll() is not None:
                raise Failed(f"{' '.join(daemon.args)} ended with {daemon.returncode}\n{self.logs()}")

    def logs(self) -> str:
        files = [*self.folder.glob("*.out"), *self.folder.glob("*.log")]
        return "\n".join(f"== {file.name}\n{file.read_text(errors='replace')[-1500:]}" for file in files)

    def run(self, *command: str, fails: bool = False) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        if done.returncode != 0 and not fails:
            raise Failed(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def job(self, job: str) -> dict[str, str]:
        """Returns the fields of a job; none if the controller has forgotten it."""
        lines = self.run("scontrol", "--oneliner", "show", "job", job, fails=True)
        return dict(field.split("=", 1) for field in lines.split(" ") if "=" in field)

    def __exit__(self, *_: object) -> None:
        self.run("scancel", "--signal=KILL", "--full", "--user=root", fails=True)
        self.run("scancel", "--user=root", fails=True)
        # In reverse, so that the controller still has munged.
        for daemon in reversed(self.daemons):
            with suppress(ProcessLookupError):
                daemon.terminate()
            try:
                daemon.wait(30)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        # slurmstepd outlives its slurmd; those of this cluster have its configuration.
        for process in processes({"SLURM_CONF": str(self.folder / "slurm.conf")}):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def processes(variables: dict[str, str]) -> list[int]:
    """Returns the processes with these environment variables."""
    wanted = {f"{name}={value}".encode() for name, value in variables.items()}
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with suppress(OSError):
                if wanted <= set((folder / "environ").read_bytes().split(b"\0")):
                    found.append(int(folder.name))
    return found


def workers(program: Path, job: str, shard: int) -> list[int]:
    """Returns the processes of the program that work on a shard."""
    found = []
    for process in processes({"SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_ID": str(shard)}):
        with suppress(OSError):
            if os.path.samefile(f"/proc/{process}/exe", program):
                found.append(process)
    return found


def shard_file(folder: Path, shard: int, ending: str = "parquet") -> Path:
    return folder / f"out-{shard:05}-of-{SHARDS:05}.{ending}"


def saved_bytes(folder: Path, shard: int) -> int:
    """Returns the size of what an unfinished shard has saved."""
    sizes = [0]
    for file in folder.glob(f"*{shard:05}-of-{SHARDS:05}*partial*"):
        with suppress(FileNotFoundError):
            sizes.append(file.stat().st_size)
    return sum(sizes)


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def images_of(folder: Path) -> int:
    return sum(json.loads(shard_file(folder, shard, "json").read_text())["embedded"] for shard in range(SHARDS))


def local_run(program: Path, images: Path, model: str, folder: Path) -> float:
    """Embeds all shards, one after the other, and returns the seconds."""
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "JOB_"))}
    started = time.monotonic()
    for shard in range(SHARDS):
        command = [program, "embed", images, "-o", folder / "out.parquet", "--model", model, "--shard"]
        done = subprocess.run([*command, f"{shard}/{SHARDS}"], env=environment, capture_output=True, text=True)
        if not shard_file(folder, shard, "json").exists():
            raise Failed(f"shard {shard} without Slurm ended with {done.returncode}: {done.stderr.strip()}")
    return time.monotonic() - started


class Run:
    """An array, and what is done to it."""

    def __init__(self, cluster: Cluster, program: Path, images: Path, model: str, folder: Path) -> None:
        self.cluster, self.program, self.folder = cluster, program, folder
        self.command = ["--parsable", "--cpus-per-task=1", "--mem=0"]
        self.command += [f"--chdir={cluster.folder}", "--output=job-%A_%a.log", f"--export=ALL,DINOSERVE={program}"]
        self.command += [SCRIPT, images, "-o", folder / "out.parquet", "--model", model]
        self.job = ""

    def submit(self, array: str = f"0-{SHARDS - 1}") -> None:
        command = ["sbatch", f"--array={array}", *self.command]
        self.job = self.cluster.run(*map(str, command)).split(";")[0]

    def task(self, shard: int) -> dict[str, str]:
        return self.cluster.job(f"{self.job}_{shard}")

    def log(self, shard: int) -> str:
        file = self.cluster.folder / f"job-{self.job}_{shard}.log"
        return file.read_text() if file.exists() else ""

    def in_the_middle(self, shard: int, least: int) -> int:
        """Waits until a worker has saved that many bytes, and returns its process."""

        def found() -> int:
            if shard_file(self.folder, shard, "json").exists():
                raise Failed(f"shard {shard} ended before it could be disturbed; give more images")
            running = workers(self.program, self.job, shard)
            return running[0] if running and saved_bytes(self.folder, shard) >= least else 0

        return wait_for(f"shard {shard} is in the middle", found)

    def signal_time_limit(self, shard: int) -> None:
        """Sends the signal that Slurm sends before the time limit."""
        command = ["scancel", "--batch", "--signal=USR1", self.task(shard)["JobId"]]
        # While other tasks of the array wait, Slurm sends it but says that it cannot, and scancel repeats it after 5 s.
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(command, env=self.cluster.environment, capture_output=True, timeout=4)

    def wait_until_queued_again(self, shard: int) -> None:
        def queued() -> bool:
            task = self.task(shard)
            return task.get("Restarts") == "1" and task.get("JobState") == "PENDING"

        wait_for(f"shard {shard} is queued again\n{self.log(shard)}", queued, 60)
        # Slurm waits for two minutes before it starts the job again.
        self.cluster.run("scontrol", "update", f"JobId={self.job}_{shard}", "StartTime=now")

    def wait_for_end(self, *tasks: int, state: str = "COMPLETED") -> None:
        def ended() -> bool:
            self.cluster.check()
            return not self.cluster.run("squeue", "-h", "-j", self.job, fails=True)

        wait_for("the array ends", ended)
        for shard in tasks or range(SHARDS):
            task = self.task(shard)
            if task.get("JobState") != state:
                raise Failed(f"shard {shard}: {task.get('JobState')} {task.get('ExitCode')}\n{self.log(shard)}")


def check(program: Path, images: Path, model: str, folder: Path) -> None:
    local, distributed, files = folder / "local", folder / "slurm", folder / "cluster"
    seconds = local_run(program, images, model, local)
    count = images_of(local)
    rate = count / seconds
    print(f"without Slurm: {count} images in {seconds:.1f} s, {rate:.1f} images/s, one shard after the other")
    half = min(shard_file(local, shard).stat().st_size for shard in range(SHARDS)) // 4

    distributed.mkdir()
    files.mkdir()
    with Cluster(files) as cluster:
        run = Run(cluster, program, images, model, distributed)
        started = time.monotonic()
        run.submit()
        killed = run.in_the_middle(0, half)
        os.kill(killed, signal.SIGKILL)
        print(f"shard 0: worker {killed} killed with {saved_bytes(distributed, 0)} bytes saved")
        stopped = run.in_the_middle(1, half)
        run.signal_time_limit(1)
        print(f"shard 1: worker {stopped} stopped as by the time limit")
        run.wait_until_queued_again(0)
        run.wait_until_queued_again(1)
        run.wait_for_end()
        seconds = time.monotonic() - started
        count = images_of(distributed)
        rate = count / seconds
        print(f"on {len(NODES)} nodes: {count} images in {seconds:.1f} s, {rate:.1f} images/s, all waits included")
        for shard in range(SHARDS):
            print(f"== log of shard {shard}\n{run.log(shard).strip()}")

        for shard in range(SHARDS):
            for ending in ("parquet", "json"):
                pair = [digest(shard_file(where, shard, ending)) for where in (local, distributed)]
                if pair[0] != pair[1]:
                    raise Failed(f"{shard_file(distributed, shard, ending).name} has other bytes than without Slurm")
        print(f"all {SHARDS} shards have the bytes of the run without Slurm")

        before = {file: file.stat().st_mtime_ns for file in distributed.iterdir()}
        run.submit()
        run.wait_for_end()
        if before != {file: file.stat().st_mtime_ns for file in distributed.iterdir()}:
            raise Failed("a second array wrote finished shards again")
        print("a second array found all shards finished, and wrote nothing")

        run.submit("1,3")
        run.wait_for_end(1, 3, state="FAILED")
        print(f"a part of the array was refused: {run.log(1).strip()}")

        (folder / "canceled").mkdir()
        run = Run(cluster, program, images, model, folder / "canceled")
        run.submit()
        run.in_the_middle(2, half)
        cluster.run("scancel", run.job)
        run.wait_for_end(2, state="CANCELLED")
        print(f"shard 2 was canceled with {saved_bytes(folder / 'canceled', 2)} bytes saved:\n{run.log(2).strip()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", type=Path, help="the program dinoserve")
    parser.add_argument("folder", type=Path, help="a folder of images, some hundreds")
    parser.add_argument("--model", default="dinov2-small-focus")
    parser.add_argument("--keep", action="store_true", help="keep the temporary folder")
    arguments = parser.parse_args()
    if missing := [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(name)]:
        sys.exit(f"slurm_test: missing: {', '.join(missing)}")
    if os.getuid() != 0:
        sys.exit("slurm_test: slurmd needs root")
    folder = Path(tempfile.mkdtemp(prefix="slurm-test-"))
    folder.chmod(0o755)
    try:
        check(arguments.program.resolve(), arguments.folder.resolve(), arguments.model, folder)
    except Failed as failed:
        sys.exit(f"slurm_test: {failed}")
    finally:
        if arguments.keep:
            print(f"files: {folder}")
        else:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
