"""The least that a run of this shape pays, whatever it computes: two processes read a relation's pages, write so many bytes of shared memory, which is
then given back. Prints a line for each size.

    python3 bench/floor.py RELATION MEGABYTES...

Medians of seven. Nothing is decoded, counted or waited for, so an engine that writes that much into one shared-memory object in this way takes longer
than the sum.
"""

import os
import statistics
import sys
import time

STEP = 1 << 20
ROUNDS = 7
SEGMENT = "/dev/shm/kmer-floor"


def in_two(work):
    """Seconds that two processes take, each with a half."""
    begin = time.monotonic()
    children = []
    for half in (0, 1):
        child = os.fork()
        if child == 0:
            try:
                work(half)
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    return time.monotonic() - begin


def read(relation):
    file = os.open(relation, os.O_RDONLY)
    steps = -(-os.fstat(file).st_size // STEP)
    buffers = [bytearray(STEP)]

    def work(half):
        for step in range(half, steps, 2):
            os.preadv(file, buffers, step * STEP)

    seconds = in_two(work)
    os.close(file)
    return seconds


def write_and_free(megabytes):
    file = os.open(SEGMENT, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.unlink(SEGMENT)
    bytes_of_a_step = os.urandom(STEP)

    def work(half):
        for step in range(half, megabytes, 2):
            os.pwrite(file, bytes_of_a_step, step * STEP)

    written = in_two(work)
    begin = time.monotonic()
    os.close(file)
    return written, time.monotonic() - begin


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    relation, sizes = sys.argv[1], [int(size) for size in sys.argv[2:]]
    print("| MB in the segment | pages read, s | written, s | given back, s | sum, s |\n|---|---|---|---|---|")
    for size in sizes:
        reading, writing, freeing = [], [], []
        for _ in range(ROUNDS):
            reading.append(read(relation))
            written, freed = write_and_free(size)
            writing.append(written)
            freeing.append(freed)
        parts = [statistics.median(seconds) for seconds in (reading, writing, freeing)]
        print(f"| {size} | " + " | ".join(f"{seconds:.2f}" for seconds in [*parts, sum(parts)]) + " |", flush=True)


if __name__ == "__main__":
    main()
