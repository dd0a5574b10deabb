#!/usr/bin/env python3
"""What 64 workers and 1 TB would do: a calculation and two small simulations, from figures that were measured on 2 cores.

    python3 bench/scaling.py [--workers 64] [--terabytes 1] [--memory-gb 1024] [--scan-mb 90] ...

Every figure that goes in is an option; the defaults are those of docs/scaling.md. The same arguments give the same output.
"""

import argparse
import heapq
import math
import random

BLOCK = 8192


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = lambda name, default, text: parser.add_argument(name, type=float, default=default, help=f"{text} (default: {default:g})")
    add("--workers", 64, "worker processes, a core each")
    add("--terabytes", 1, "bytes of the relation, in 10^12")
    add("--memory-gb", 1024, "shared memory that the run may use, in 10^9 bytes")
    add("--row-bytes", 126, "bytes of the relation for each row of 150 bases")
    add("--kmers-per-row", 120, "k-mers of a row")
    add("--bytes-per-kmer", 1.25, "bytes of the arena for each k-mer")
    add("--scan-mb", 140, "relation bytes that one worker scans in a second, in 10^6")
    add("--drain-mkmers", 90, "k-mers that one worker drains in a second while a stripe's table fits its cache, in 10^6")
    add("--claim-us", 2, "microseconds that a claim holds the mutex, its cache lines coming from another core")
    add("--handoff-us", 8, "microseconds from the release of a contended mutex until the next owner runs")
    add("--unit-blocks", 512, "blocks of a unit")
    add("--stripe-bits", 13, "there are 2^this stripes")
    add("--stripe-kmers", 600e3, "k-mers of a stripe whose table fits the cache")
    add("--launch-ms", 0.4, "milliseconds to start one worker")
    add("--pwrite-gb", 3.3, "bytes that pwrite stores in one file of shared memory in a second, however many write, in 10^9")
    add("--map-gb", 1.5, "bytes that one worker stores through its mapping in a second, in 10^9")
    add("--disk-gb", 7, "bytes that the disks deliver in a second, in 10^9")
    return parser.parse_args()


def claims(a, units, seed=1):
    """Simulates workers that claim units one after the other. Returns (share of their time spent waiting, idle at the end in s)."""
    rng = random.Random(seed)
    work = a.unit_blocks * BLOCK / (a.scan_mb * 1e6)
    hold, handoff = a.claim_us * 1e-6, a.handoff_us * 1e-6
    ready = [(rng.random() * work, worker) for worker in range(int(a.workers))]
    heapq.heapify(ready)
    free, waited, end = 0.0, 0.0, 0.0
    finished = [0.0] * int(a.workers)
    for _ in range(units):
        now, worker = heapq.heappop(ready)
        start = now if free <= now else free + handoff
        waited += start - now
        free = start + hold
        done = free + work * rng.lognormvariate(0, 0.3)
        finished[worker] = done
        end = max(end, done)
        heapq.heappush(ready, (done, worker))
    idle = sum(end - last for last in finished)
    return waited / (end * a.workers), idle / a.workers


def balance(a, skew, seed=1):
    """Stripes of uneven sizes, in the drain's order, to whoever is free. Returns how much longer it takes than an even share."""
    rng = random.Random(seed)
    sizes = [rng.lognormvariate(0, skew) for _ in range(2 ** int(a.stripe_bits))]
    most = 2 * sum(sizes) / len(sizes)
    large, others = sorted((s for s in sizes if s > most), reverse=True), [s for s in sizes if s <= most]
    last = min(len(others), max(64, len(sizes) // 16))
    sizes = large + others[: len(others) - last] + sorted(others[len(others) - last :], reverse=True)
    loads = [0.0] * int(a.workers)
    heapq.heapify(loads)
    for size in sizes:
        heapq.heappush(loads, heapq.heappop(loads) + size)
    return max(loads) / (sum(sizes) / a.workers) - 1, max(sizes) / (sum(sizes) / len(sizes))


def seconds(value):
    return f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.0f} s" if value < 600 else f"{value / 60:.0f} min"


def amount(value):
    for unit, size in [("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)]:
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.0f} B"


def main():
    a = arguments()
    heap = a.terabytes * 1e12
    rows = heap / a.row_bytes
    kmers = rows * a.kmers_per_row
    units = math.ceil(heap / (a.unit_blocks * BLOCK))
    spool = kmers * a.bytes_per_kmer
    stripes = 2 ** int(a.stripe_bits)
    passes = math.ceil(spool / (a.memory_gb * 1e9))
    scan = heap / (a.workers * a.scan_mb * 1e6)
    disk = heap / (a.disk_gb * 1e9)
    per_stripe = kmers / stripes
    waiting, idle = claims(a, min(units, 200_000))
    print(f"{a.workers:.0f} workers, a relation of {amount(heap)}: {rows / 1e9:.1f}e9 rows, {kmers / 1e12:.2f}e12 k-mers\n")
    print("| question | figure |\n|---|---|")
    show = lambda what, figure: print(f"| {what} | {figure} |")
    show("units, and how long one takes a worker", f"{units:,}, {seconds(a.unit_blocks * BLOCK / (a.scan_mb * 1e6))}")
    rate = a.workers * a.scan_mb * 1e6 / (a.unit_blocks * BLOCK)
    show("claims a second, and how busy the mutex is", f"{rate:,.0f}, {100 * rate * a.claim_us * 1e-6:.2f} %")
    show("share of a worker's time spent waiting for the mutex (simulated)", f"{100 * waiting:.5f} %")
    show("idle at the end of the scan, mean of a worker (simulated)", seconds(idle))
    limit = a.unit_blocks * BLOCK / (a.scan_mb * 1e6) / ((a.claim_us + a.handoff_us) * 1e-6)
    show("workers at which the mutex is always taken", f"{limit:,.0f}")
    show("unit words; one look at all of them at 10 GB/s", f"{amount(8 * units)}, {seconds(8 * units / 10e9)}")
    show("time to start all workers", seconds(a.workers * a.launch_ms / 1e3))
    show("records in the arena; chunks of 64 KiB", f"{amount(spool)}, {spool / 65536 / 1e6:.1f} million")
    record_rate = a.scan_mb * 1e6 * spool / heap
    show("records that all workers write in a second, and what pwrite would take", f"{amount(a.workers * record_rate)}, {amount(a.pwrite_gb * 1e9)}")
    show("workers at which pwrite would be all that they do", f"{a.pwrite_gb * 1e9 / record_rate:.0f}")
    show("share of a worker's time that it writes through the mapping", f"{100 * record_rate / (a.map_gb * 1e9):.0f} %")
    show(f"passes with {amount(a.memory_gb * 1e9)} of shared memory", f"{passes}")
    show("scan of one pass: by processors, by disks", f"{seconds(scan)}, {seconds(disk)}")
    show("memory traffic of the scan (records written, copied once, relation read)",
         f"{amount(a.workers * a.scan_mb * 1e6 * (1 + 3 * spool / heap))}/s")
    show("k-mers of a stripe, beside those whose table fits a cache", f"{per_stripe / 1e6:,.0f} million, {per_stripe / a.stripe_kmers:,.0f} times as many")
    show("bytes of one stripe in one unit", amount(spool / units / stripes))
    show("index of the sections, share of the records", f"{100 * 24 * stripes * units / spool:.1f} %")
    show("drain if tables fitted the cache", seconds(kmers / (a.workers * a.drain_mkmers * 1e6)))
    for skew in [0.2, 0.5, 1.0]:
        longer, largest = balance(a, skew)
        show(f"drain longer than an even share, largest stripe {largest:.1f} times the mean (simulated)", f"{100 * longer:.2f} %")
    show("rows that a run can number", f"{2**32:,}: {'enough' if rows < 2**32 else 'too few'}")


if __name__ == "__main__":
    main()
