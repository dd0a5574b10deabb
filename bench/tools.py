"""The programs that are measured: how each is called, and what it says it counted."""

import json
import os
import re
import shutil
import subprocess


class Counted:
    """k-mers in all, and different ones; None where a program does not say."""

    def __init__(self, total, distinct, facts=None):
        self.total, self.distinct, self.facts = total, distinct, facts or {}

    def agrees(self, other):
        return all(a is None or b is None or a == b for a, b in
                   [(self.total, other.total), (self.distinct, other.distinct)])

    def __str__(self):
        return f"{self.total} k-mers, {self.distinct} different"


class Leader:
    """kmer-leader on a relation, or on a FASTA file where it can."""

    name = "kmer-leader"

    def __init__(self, path, options, workers=2, output="/dev/null"):
        self.path, self.options, self.workers, self.output = path, options, workers, output

    def command(self, binary, directory):
        summary = ["--summary-json", os.path.join(directory, "summary.json")]
        output = ["-o", self.output] if self.output else []
        return [binary, "-q", "-j", str(self.workers), *self.options, *output, *summary, self.path]

    def counted(self, run, directory):
        with open(os.path.join(directory, "summary.json")) as file:
            facts = json.load(file)
        return Counted(facts["relation"].get("kmers"), facts["facts"].get("kmers_distinct"), facts)


class Kmc:
    """KMC 3 with 2 threads and 12 GB, every k-mer kept, no canonical form unless asked for, in memory; its database is written."""

    name = "KMC 3"

    def __init__(self, fasta, k, canonical=False):
        self.fasta, self.k, self.strands = fasta, k, [] if canonical else ["-b"]

    def command(self, _, directory):
        scratch = os.path.join(directory, "kmc-scratch")
        os.makedirs(scratch, exist_ok=True)
        return ["kmc", f"-k{self.k}", "-t2", "-m12", "-ci1", *self.strands, "-fm", "-r", self.fasta,
                os.path.join(directory, "kmc-database"), scratch]

    def counted(self, run, _):
        def number(label):
            return int(re.search(label + r"\s*:\s*(\d+)", run.stdout).group(1))

        return Counted(number("Total no. of k-mers"), number("No. of unique k-mers"))


class Jellyfish:
    """Jellyfish 2 with 2 threads, every k-mer kept, no canonical form; its database is written."""

    name = "Jellyfish 2"

    def __init__(self, fasta, k, size):
        self.fasta, self.k, self.size = fasta, k, size

    def command(self, _, directory):
        return ["jellyfish", "count", "-m", str(self.k), "-s", self.size, "-t", "2",
                "-o", os.path.join(directory, "jellyfish-database"), self.fasta]

    def counted(self, run, directory):
        stats = subprocess.run(["jellyfish", "stats", os.path.join(directory, "jellyfish-database")],
                               capture_output=True, text=True, check=True).stdout

        def number(label):
            return int(re.search(label + r":\s*(\d+)", stats).group(1))

        return Counted(number("Total"), number("Distinct"))


def version(name):
    """A program's version, as its package has it."""
    path = shutil.which(name)
    done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", name], capture_output=True, text=True)
    return done.stdout if path and done.returncode == 0 else "unknown"
