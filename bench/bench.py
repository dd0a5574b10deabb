#!/usr/bin/env python3
"""Measures kmer-leader beside KMC 3 and Jellyfish on the same reads: one command, one table. See README.md beside this file."""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile

import checks
import data
import measure
import report
from cases import cases
from tools import Jellyfish, Kmc, Leader

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def arguments():
    parser = argparse.ArgumentParser(prog="bench/run.sh", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="200,000 reads, one repeat, no Jellyfish: is everything in order?")
    parser.add_argument("--reads", type=int, help="how many reads are simulated (default: 4,000,000)")
    parser.add_argument("--repeats", type=int, help="how often everything is run (default: 3)")
    parser.add_argument("--only", default="", help="cases whose names begin so, separated by commas")
    parser.add_argument("--cache", default=os.path.join(TOP, "target", "bench"), help="where inputs are kept (default: target/bench)")
    parser.add_argument("--genomes", help="folder with the four genomes (default: Debian's package kleborate-examples)")
    parser.add_argument("--out", help="folder for table.md and plot.svg (default: the cache)")
    args = parser.parse_args()
    args.reads = args.reads or (200_000 if args.quick else 4_000_000)
    args.repeats = args.repeats or (1 if args.quick else 3)
    args.out = args.out or args.cache
    return args


def takes_fasta(leader, directory):
    tiny = os.path.join(TOP, "examples", "tiny.fa")
    done = subprocess.run([leader, "-q", "-j0", tiny], cwd=directory, capture_output=True, check=False)
    return done.returncode == 0


def prepare(args, leader, scratch):
    """Makes the inputs; a name for each."""
    os.makedirs(args.cache, exist_ok=True)
    genomes = data.genomes(args.cache, args.genomes)
    plain = data.plain(args.cache, genomes)
    reads = data.reads(args.cache, genomes, args.reads)
    few = min(200_000, args.reads)
    few_reads = data.first_records(args.cache, reads, few)
    tenth = data.first_records(args.cache, reads, args.reads // 10)
    return {
        "genomes_fasta": plain, "genomes": data.relation(leader, plain),
        "reads_fasta": reads, "reads": data.relation(leader, reads),
        "few": few, "few_fasta": few_reads, "few_reads": data.relation(leader, few_reads),
        "tenth": data.relation(leader, tenth),
        "takes_fasta": takes_fasta(leader, scratch), "scratch": scratch,
    }


class Bench:
    """Runs cases and keeps their samples; the same command is measured once a round, whatever it is compared with."""

    def __init__(self, leader, scratch):
        self.leader, self.scratch, self.samples, self.counted = leader, scratch, {}, {}

    def key(self, tool):
        return tuple(tool.command(self.leader, "scratch"))

    def run(self, tool):
        directory = tempfile.mkdtemp(dir=self.scratch)
        done = measure.run(tool.command(self.leader, directory), directory)
        counted = tool.counted(done, directory)
        shutil.rmtree(directory)
        before = self.counted.setdefault(self.key(tool), counted)
        if not before.agrees(counted):
            sys.exit(f"bench: error: {tool.name} counted {before} and then {counted}")
        self.samples.setdefault(self.key(tool), measure.Sample()).add(done.seconds, done.peak)
        data.say(f"{done.seconds:8.2f} s {done.peak / 1e6:7.0f} MB  {' '.join(self.key(tool)[:1] + self.key(tool)[1:12])[-110:]}")

    def sample(self, tool):
        return self.samples[self.key(tool)]

    def result(self, tool):
        return self.counted[self.key(tool)]


def rounds(bench, rows, repeats):
    """All programs in turn, several times, in another order each time; Jellyfish, which takes minutes, once."""
    tools = {}
    for case in rows:
        for tool in [case.ours, case.beside]:
            if isinstance(tool, (Leader, Kmc, Jellyfish)):
                tools[bench.key(tool)] = tool
    for number in range(repeats):
        order = list(tools.values())
        random.Random(number).shuffle(order)
        for tool in order:
            if number == 0 or not isinstance(tool, Jellyfish):
                bench.run(tool)


def main():
    args = arguments()
    leader = os.path.join(TOP, "target", "release", "kmer-leader")
    scratch = os.path.join(args.cache, "scratch")
    shutil.rmtree(scratch, ignore_errors=True)
    os.makedirs(scratch)
    inputs = prepare(args, leader, scratch)
    help_text = subprocess.run([leader, "--help"], capture_output=True, text=True, check=True).stdout
    rows = cases(inputs, help_text, args.quick)
    chosen = [case for case in rows if any(case.name.startswith(name) for name in args.only.split(","))]
    bench = Bench(leader, scratch)
    rounds(bench, chosen, args.repeats)
    checks.agree(bench, chosen)
    checks.oracle(leader, inputs)
    extra = checks.extra(bench, leader, inputs, args.repeats) if not args.only else []
    table = report.table(bench, rows, chosen, extra, args)
    os.makedirs(args.out, exist_ok=True)
    with open(os.path.join(args.out, "table.md"), "w") as file:
        file.write(table)
    with open(os.path.join(args.out, "plot.svg"), "w") as file:
        file.write(report.plot(bench, chosen))
    shutil.rmtree(scratch)
    print(table)


if __name__ == "__main__":
    main()
