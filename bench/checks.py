"""What must be true before a figure is worth anything, and figures that need a run of their own."""

import os
import re
import subprocess
import sys
import tempfile

import measure
from data import say
from tools import Counted, Leader

SAMPLE_ROWS = 2000


def agree(bench, cases):
    """Two programs that counted the same reads with the same k must have counted the same."""
    for case in cases:
        if isinstance(case.beside, str):
            for other in cases:
                if other.name == case.beside:
                    same_result(bench, case, other)
        if isinstance(case.beside, (int, float, str)):
            continue
        ours, theirs = bench.result(case.ours), bench.result(case.beside)
        if not ours.agrees(theirs):
            sys.exit(f"bench: error: {case.name}: kmer-leader: {ours}; {case.beside.name}: {theirs}")
    say("all programs counted the same")


def same_result(bench, case, other):
    ours, theirs = (bench.result(c.ours).facts["result"] for c in [case, other])
    if ours != theirs:
        sys.exit(f"bench: error: {case.name}: {ours}; {other.name}: {theirs}")


def oracle(leader, inputs):
    """Row counts against a dictionary (a sample of rows) and against grep (the most frequent k-mers, all rows)."""
    with open(inputs["reads_fasta"]) as file:
        rows = [file.readline() and file.readline().strip() for _ in range(SAMPLE_ROWS)]
    with tempfile.TemporaryDirectory(dir=inputs["scratch"]) as directory:
        fasta = os.path.join(directory, "sample.fa")
        with open(fasta, "w") as file:
            file.writelines(f">{i}\n{row}\n" for i, row in enumerate(rows))
        relation = os.path.join(directory, "sample")
        subprocess.run([leader, "import", "-o", relation, fasta], check=True, stderr=subprocess.DEVNULL)
        for k in [8, 12, 16, 21, 31]:
            expected = {}
            for row in rows:
                for kmer in {row[i:i + k] for i in range(len(row) - k + 1)}:
                    expected[kmer] = expected.get(kmer, 0) + 1
            if reported(leader, relation, ["-k", str(k), "--all"]) != expected:
                sys.exit(f"bench: error: k={k}: kmer-leader and the oracle differ on {SAMPLE_ROWS} rows")
    for kmer, found in reported(leader, inputs["reads"], ["-k", "31", "--top", "3"]).items():
        expected = int(subprocess.run(["grep", "-cF", kmer, inputs["reads_fasta"]], capture_output=True, text=True).stdout)
        if found != expected:
            sys.exit(f"bench: error: {kmer}: kmer-leader found {found} rows, grep {expected}")
    say("the oracles agree")


def reported(leader, relation, options):
    done = subprocess.run([leader, "-q", "-j2", *options, relation], capture_output=True, text=True, check=True)
    lines = (line.split("\t") for line in done.stdout.splitlines() if not line.startswith("#"))
    return {kmer: int(count) for kmer, _, count in lines}


def extra(bench, leader, inputs, repeats):
    """Rows of the table that are no ratio of two runs: (what, goal, found, reached)."""
    return [growth(bench, inputs, repeats), start_up(leader, inputs), busy(bench, inputs), lock_waits(leader, inputs)]


def growth(bench, inputs, repeats):
    small, large = (Leader(inputs[name], ["-k", "16"]) for name in ["tenth", "reads"])
    for _ in range(max(3, repeats)):
        bench.run(small)
    bench.run(large)
    ratio = bench.sample(large).median / bench.sample(small).median
    memory = bench.sample(large).peak / max(bench.sample(small).peak, 1)
    found = f"{ratio:.1f} times the time, {memory:.1f} times the memory"
    return ("10 times the rows, default analysis, k=16", "at most 10.5 times the time, linear memory", found, ratio <= 10.5 and memory <= 10.5)


def start_up(leader, inputs):
    examples = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "examples", "amplicons")
    sample = measure.Sample()
    for _ in range(21):
        with tempfile.TemporaryDirectory(dir=inputs["scratch"]) as directory:
            run = measure.run([leader, "-q", "-j2", examples], directory)
            sample.add(run.seconds, run.peak)
    return ("a whole run on a file of 1 block, 2 workers", "under 20 ms", f"{sample.median * 1000:.1f} ms", sample.median < 0.02)


def busy(bench, inputs):
    """How evenly two workers shared 16 rows of very different lengths."""
    shares = []
    for key, counted in bench.counted.items():
        if inputs["genomes"] in key and isinstance(counted, Counted) and counted.facts:
            spans = [w["scan_seconds"] + w["drain_seconds"] for w in counted.facts["workers"]]
            shares.append(min(spans) / max(spans) if max(spans) else 1)
    found = ", ".join(f"{share:.2f}" for share in shares) or "not run"
    return ("4 genomes: busy seconds of the less busy worker by those of the other", "near 1", found, bool(shares) and min(shares) > 0.9)


def lock_waits(leader, inputs):
    """Seconds that workers slept on a futex without a time limit (a lock; waits for a phase have one), by all their seconds."""
    with tempfile.TemporaryDirectory(dir=inputs["scratch"]) as directory:
        trace = os.path.join(directory, "trace")
        tool = Leader(inputs["few_reads"], ["-k", "31"])
        command = ["strace", "-f", "-T", "-e", "trace=futex", "-o", trace, *tool.command(leader, directory)]
        run = measure.run(command, directory)
        waited = 0.0
        with open(trace) as lines:
            for line in lines:
                call = re.search(r"FUTEX_WAIT\w*(?:\|\w+)*, [^,]+, NULL.*<([\d.]+)>$", line)
                waited += float(call.group(1)) if call else 0
        share = waited / (2 * run.seconds)
    return ("time in which a worker waits for a lock, k=31", "under 1 %", f"{100 * share:.3f} %", share < 0.01)
