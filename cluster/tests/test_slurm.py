"""The script for Slurm, with stand-ins for what Slurm has: nodes that are all this one, and a spool directory."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import ENGINE, KLEBS, LONG, PACKAGE, SPARK, leader, leftovers, wait_for

# As srun does: what is read goes to all tasks, a SIGTERM becomes their SIGKILL, and it ends when all have.
SRUN = """
while [ "${1#--}" != "$1" ]; do
    case $1 in --ntasks=*) number=${1#*=} ;; esac
    shift
done
exec 5<&0
for ((task = 0; task < number; task++)); do
    SLURM_PROCID=$task setsid "$@" <&5 &
    tasks+=" -$!"
done
echo "$tasks" > "$0.tasks"
exec 5<&-
trap 'kill -KILL $tasks; exit 143' TERM
wait
"""
SCONTROL = """
case $2 in
    hostnames) echo 127.0.0.1 ;;
    job) printf 'JobId=%s JobName=x\\n   Command=%s\\n   WorkDir=/\\n' "$3" "$KMER_TEST_COMMAND" ;;
esac
"""


@pytest.fixture
def environment(scratch: Path, tmp_path: Path) -> dict[str, str]:
    """Of a job on two nodes, with a core each."""
    for name, text in [("scontrol", SCONTROL), ("srun", SRUN)]:
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/bash\n{text}\n")
        program.chmod(0o755)
    path = f"{tmp_path / 'bin'}:{ENGINE.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return os.environ | {
        "PATH": path,
        "SPARK_HOME": str(SPARK),
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "TMPDIR": str(scratch),
        "SLURM_CPUS_ON_NODE": "1",
        "SLURM_JOB_NODELIST": "here",
        "SLURM_JOB_NUM_NODES": "2",
        "SPARK_DAEMON_MEMORY": "256m",
        # What a driver that is killed leaves goes with the tests.
        "SPARK_SUBMIT_OPTS": f"-Djava.io.tmpdir={scratch}",
        "KMER_SPARK_CONF": "--conf spark.executor.memory=512m --conf spark.driver.memory=512m",
    }


@pytest.fixture(autouse=True)
def nothing_of_the_job_is_left(scratch: Path) -> Iterator[None]:
    """Of the cluster: neither directory nor process, on no node."""
    yield
    assert not list(scratch.glob("kmer-spark-*"))
    wait_for("the end of the job's processes", lambda: not leftovers(scratch, f"{scratch}/kmer-spark-"), 10)


@pytest.fixture
def words(scratch: Path) -> list[str]:
    """What is asked."""
    asked = ["--relation", str(KLEBS), "--part-size", "128K", "-R", "0.001"]
    return [*asked, "--segment-dir", str(scratch / "segments")]


def test_a_cluster_in_a_job(environment: dict[str, str], words: list[str], tmp_path: Path) -> None:
    output, script = tmp_path / "output", str(PACKAGE / "slurm.sh")
    asked = [script, *words, "-o", str(output)]
    ended = subprocess.run(asked, capture_output=True, text=True, env=environment, timeout=180)
    assert ended.returncode == 0, ended.stderr
    assert output.read_bytes() == leader("-q", "-R", "0.001", str(KLEBS))
    ended = subprocess.run([*asked, "-k", "99"], capture_output=True, text=True, env=environment, timeout=180)
    assert ended.returncode == 2 and "--kmer-size: expected a number from 4 to 32" in ended.stdout


def test_the_package_of_a_script_that_was_copied(environment: dict[str, str], tmp_path: Path) -> None:
    """As sbatch does; the allocation is missing, which is told when the package was found."""
    copy = tmp_path / "spool" / "job00042" / "slurm_script"
    copy.parent.mkdir(parents=True)
    shutil.copy(PACKAGE / "slurm.sh", copy)
    nothing = environment | {"SLURM_JOB_NODELIST": "", "KMER_TEST_COMMAND": "(null)", "SLURM_JOB_ID": "42"}

    def said(**more: str) -> str:
        ended = subprocess.run(
            ["/bin/bash", str(copy)], capture_output=True, text=True, env=nothing | more, cwd="/", timeout=60
        )
        assert ended.returncode == 2
        return ended.stderr

    found = "slurm.sh: error: SLURM_JOB_NODELIST: expected the nodes of an allocation, found none"
    assert said().startswith("slurm.sh: error: kmer_spark.py: expected it beside slurm.sh or where")
    assert said(KMER_SPARK_DIR=str(PACKAGE)).startswith(found)
    assert said(KMER_TEST_COMMAND=f"{PACKAGE}/slurm.sh --relation /scratch/reads -k 31").startswith(found)
    assert said(SLURM_SUBMIT_DIR=str(PACKAGE.parent)).startswith(found)
    assert said(SLURM_SUBMIT_DIR=str(PACKAGE)).startswith(found)
    assert said(SLURM_SUBMIT_DIR="/", KMER_SPARK_DIR="/").endswith(
        "expected a directory with kmer_spark.py, found /\n"
    )


def test_without_slurms_programs_nothing_is_left(
    environment: dict[str, str], words: list[str], tmp_path: Path
) -> None:
    script = [str(PACKAGE / "slurm.sh"), *words, "-o", "-"]
    (tmp_path / "bin" / "scontrol").unlink()
    ended = subprocess.run(script, capture_output=True, text=True, env=environment, timeout=60)
    assert ended.returncode == 127 and "scontrol: command not found" in ended.stderr
    environment.pop("SLURM_JOB_NODELIST")
    assert subprocess.run(script, capture_output=True, env=environment, timeout=60).returncode == 2


def _tell(script: subprocess.Popen[bytes], _: Path, number: signal.Signals) -> None:
    script.send_signal(number)


def _tell_all_here(script: subprocess.Popen[bytes], _: Path, number: signal.Signals) -> None:
    os.killpg(script.pid, number)


def _tell_the_workers(_: subprocess.Popen[bytes], tasks: Path, number: signal.Signals) -> None:
    for group in tasks.read_text().split():
        os.killpg(-int(group), number)


@pytest.mark.parametrize(
    ("number", "tell", "code"),
    [
        (signal.SIGTERM, _tell, 143),
        pytest.param(signal.SIGINT, _tell, 130, marks=LONG),
        # As scancel does, and Slurm at the end of the time.
        (signal.SIGTERM, _tell_the_workers, 1),
        # Nothing can be done here then, but the nodes see to theirs.
        pytest.param(signal.SIGKILL, _tell_all_here, -9, marks=LONG),
    ],
)
def test_a_signal_is_heard_while_the_job_runs(
    environment: dict[str, str],
    words: list[str],
    scratch: Path,
    tmp_path: Path,
    number: signal.Signals,
    tell: Callable[[subprocess.Popen[bytes], Path, signal.Signals], None],
    code: int,
) -> None:
    engine = tmp_path / "kmer-leader"
    engine.write_text(
        f'#!/bin/bash\n[ "$1" != -V ] || exec {ENGINE} -V\n[ "$2" != --dry-run ] || exit 0\n'
        f'touch {tmp_path}/at-work\nexec -a "$0 {scratch}" sleep 600\n'
    )
    engine.chmod(0o755)
    asked = [str(PACKAGE / "slurm.sh"), *words, "--engine", str(engine), "-o", str(tmp_path / "output")]
    with (tmp_path / "said").open("wb") as said:
        script = subprocess.Popen(
            asked, stdout=said, stderr=said, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
        )
    try:
        wait_for("a unit", (tmp_path / "at-work").exists, 120)
        assert len(list(scratch.glob("kmer-spark-0-*.*"))) == 2
        tell(script, tmp_path / "bin" / "srun.tasks", number)
        assert script.wait(timeout=25) == code, (tmp_path / "said").read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(script.pid, signal.SIGKILL)
        script.wait()
    wait_for("the nodes' directories to go", lambda: not list(scratch.glob("kmer-spark-0-*.*")), 20)
    if number == signal.SIGKILL:
        for directory in scratch.glob("kmer-spark-0-*"):
            shutil.rmtree(directory)
    assert not (tmp_path / "output").exists()
