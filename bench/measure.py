"""Runs a command and measures it: wall seconds, and the peak of memory of all its processes together.

Memory is what only these processes have: the anonymous pages of the command and all its descendants, and what the file system of
shared memory (/dev/shm) holds more than before. It is sampled 20 times a second.
"""

import os
import statistics
import subprocess
import sys
import threading
import time

SHM = "/dev/shm"
INTERVAL = 0.05


class Run:
    """What one run came to."""

    def __init__(self, seconds, peak, stdout, stderr):
        self.seconds, self.peak, self.stdout, self.stderr = seconds, peak, stdout, stderr


def shm_used():
    stat = os.statvfs(SHM)
    return (stat.f_blocks - stat.f_bfree) * stat.f_frsize


def descendants(pid):
    family = [pid]
    for parent in family:
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children") as children:
                    family += [int(child) for child in children.read().split()]
        except OSError:
            pass
    return family


def anonymous(pid):
    try:
        with open(f"/proc/{pid}/status") as status:
            for line in status:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def run(command, directory):
    """Runs a command; ends the benchmark if it fails."""
    before, peak, done = shm_used(), [0], threading.Event()
    start = time.perf_counter()
    child = subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)

    def watch():
        while not done.wait(INTERVAL):
            now = sum(map(anonymous, descendants(child.pid))) + shm_used() - before
            peak[0] = max(peak[0], now)

    watcher = threading.Thread(target=watch)
    watcher.start()
    stdout, stderr = child.communicate()
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    if child.returncode != 0:
        sys.exit(f"bench: error: exit code {child.returncode}: {' '.join(command)}\n{stderr}")
    return Run(seconds, peak[0], stdout, stderr)


class Sample:
    """The seconds of several runs of the same thing, and the highest of their peaks of memory."""

    def __init__(self):
        self.seconds, self.peaks = [], []

    def add(self, seconds, peak):
        self.seconds.append(seconds)
        self.peaks.append(peak)

    @property
    def median(self):
        return statistics.median(self.seconds)

    @property
    def peak(self):
        return max(self.peaks)

    def text(self):
        """Median, and from the least to the most."""
        digits = 3 if self.median < 1 else 2
        low, high = min(self.seconds), max(self.seconds)
        spread = f" ({low:.{digits}f} to {high:.{digits}f})" if len(self.seconds) > 1 else ""
        return f"{self.median:.{digits}f}{spread}"
