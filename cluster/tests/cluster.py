"""A standalone cluster on loopback: a master and workers as processes, started by the scripts of the pip package.

Each worker has one core and an environment of its own, as nodes have; all lie in a scratch directory that goes at the end. `Cluster.audit`
says what is left of processes and segments.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyspark
import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "cluster"
SPARK = Path(pyspark.__file__).parent
ENGINE = Path(os.environ.get("KMER_TEST_ENGINE", ROOT / "target" / "release" / "kmer-leader"))
LIBC = ctypes.CDLL(None)
KLEBS = ROOT / "examples" / "klebs"
LONG = pytest.mark.skipif("KMER_TEST_ALL" not in os.environ, reason="only with KMER_TEST_ALL")


def wait_for(what: str, true: Callable[[], object], seconds: float = 60) -> None:
    """Waits until it is true."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(0.05)


def leader(*words: str, code: int = 0) -> bytes:
    """What the local engine writes to standard output."""
    ended = subprocess.run([str(ENGINE), *words], capture_output=True, timeout=120)
    assert ended.returncode == code, ended.stderr.decode()
    return ended.stdout


class Node:
    """A worker of the cluster."""

    def __init__(self, cluster: Cluster, name: str, environment: dict[str, str]) -> None:
        self.cluster, self.name, self.environment = cluster, name, environment
        # Nodes are told apart by their address, as where a task that is tried again should not go.
        self.host = f"127.0.0.{2 + int(name.removeprefix('node'))}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it."""
        words = [
            "worker.Worker",
            "--host",
            self.host,
            "--cores",
            "1",
            "--memory",
            "1g",
            "--webui-port",
            "0",
        ]
        directory = self.cluster.scratch / self.name
        words += ["--work-dir", str(directory), self.cluster.url]
        self.process = self.cluster.spawn(self.name, words, {"SPARK_LOCAL_IP": self.host, **self.environment})

    def wait(self) -> None:
        """Waits until the master knows it."""
        wait_for(f"{self.name} to register", lambda: "Successfully registered" in self.cluster.log(self.name))

    def kill(self) -> None:
        """Kills it, its executors and what they run, as the loss of a machine does."""
        assert self.process
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None


class Cluster:
    """Master and two workers."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.scratch.mkdir()
        self.started: list[subprocess.Popen[bytes]] = []
        self.numbers = itertools.count()
        self.master = self.spawn(
            "master", ["master.Master", "--host", "127.0.0.1", "--port", "0", "--webui-port", "0"], {}
        )
        self.nodes: list[Node] = []
        wait_for("the master", lambda: re.search(r"Starting Spark master at (\S+)", self.log("master")))
        self.url = re.findall(r"Starting Spark master at (\S+)", self.log("master"))[0]

    def nodes_of(self, *environments: dict[str, str]) -> list[Node]:
        """Workers with such environments and no others: those that are there already, or new ones."""
        idle = [node for node in self.nodes if node.process]
        self.nodes = []
        for environment in environments:
            same = next((node for node in idle if node.environment == environment), None)
            if same:
                idle.remove(same)
            self.nodes.append(same or Node(self, f"node{next(self.numbers)}", environment))
        for node in idle:
            node.kill()
        fresh = [node for node in self.nodes if node.process is None]
        for node in fresh:
            node.start()
        for node in fresh:
            node.wait()
        return self.nodes

    def nodes_with(self, **environment: str) -> list[Node]:
        """Two nodes with the same environment."""
        return self.nodes_of(environment, environment)

    def log(self, name: str) -> str:
        """What a process has said."""
        return (self.scratch / f"{name}.log").read_text(errors="replace")

    def spawn(self, name: str, words: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        """A Java process of Spark's, in a process group of its own."""
        clean = {key: value for key, value in os.environ.items() if key not in ("KMER_LEADER", "SPARK_HOME")}
        local = {
            "SPARK_DAEMON_MEMORY": "256m",
            "SPARK_LOCAL_IP": "127.0.0.1",
            "PYSPARK_PYTHON": sys.executable,
        }
        local |= {
            "SPARK_LOCAL_DIRS": str(self.scratch / "local"),
            "SPARK_DAEMON_JAVA_OPTS": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
        }
        with open(self.scratch / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                [str(SPARK / "bin" / "spark-class"), f"org.apache.spark.deploy.{words[0]}", *words[1:]],
                env=clean | local | {"SPARK_HOME": str(SPARK)} | environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # They go with the tests, however those end.
                preexec_fn=lambda: LIBC.prctl(1, signal.SIGTERM),
            )
        self.started.append(process)
        return process

    def close(self) -> None:
        """Ends everything, executors with their workers."""
        for process in reversed(self.started):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)


def leftovers(scratch: Path, named: str = "") -> list[str]:
    """Processes that have to do with a directory, and with something of a name."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            except OSError:
                continue
            if str(scratch) in words and named in words:
                found.append(f"{entry.name}: ... {words[-200:]}")
    return found
