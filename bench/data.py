"""Prepares the inputs of the benchmark in a cache directory; what is there already is used again.

genomes.fa        four genomes of Klebsiella pneumoniae with their plasmids, 16 sequences
reads-N.fa        N reads of 150 bases simulated from them (wgsim, seed fixed), those with an N left out
genomes-plain.fa  the genomes with an A for each N
genomes-plain, reads-N   the same records as relations, made by `kmer-leader import`
"""

import glob
import os
import subprocess
import sys

GENOMES = ["Klebs_HS11286", "Klebs_Kp1084", "MGH78578", "NTUH-K2044"]
PACKAGE = "kleborate-examples"
WGSIM = "-S 7 -e 0.005 -r 0.001 -R 0 -1 150 -2 150".split()


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def find_genomes(folder):
    """The four genome files, from a folder or from Debian's package."""
    if folder is None:
        folder = package_folder()
    found = []
    for name in GENOMES:
        files = sorted(f for f in glob.glob(os.path.join(folder, "**", name + "*"), recursive=True) if os.path.isfile(f))
        if not files:
            sys.exit(f"bench: error: no file {name}* below {folder}; name a folder with --genomes")
        found.append(files[0])
    return found


def package_folder():
    def listing():
        done = subprocess.run(["dpkg", "-L", PACKAGE], capture_output=True, text=True)
        return [line for line in done.stdout.splitlines() if GENOMES[0] in line]

    if not listing():
        say(f"installing {PACKAGE} for its genomes")
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", PACKAGE],
                       stdout=subprocess.DEVNULL, check=False)
    files = listing()
    if not files:
        sys.exit(f"bench: error: package {PACKAGE} is not to be had; name a folder with the genomes by --genomes")
    return os.path.dirname(files[0])


def once(path, make):
    """Makes a file under another name first, so that one that is there is whole."""
    if not os.path.exists(path):
        say(f"making {path}")
        make(path + ".part")
        os.rename(path + ".part", path)
    return path


def genomes(cache, folder):
    def make(out):
        with open(out, "wb") as whole:
            for file in find_genomes(folder):
                tool = {".xz": ["xz", "-dc"], ".gz": ["gzip", "-dc"]}.get(os.path.splitext(file)[1], ["cat"])
                subprocess.run([*tool, file], stdout=whole, check=True)

    return once(os.path.join(cache, "genomes.fa"), make)


def plain(cache, fasta):
    """The same records with an A for each N (there is one), so that they fit a dna2 column."""

    def make(out):
        with open(fasta) as lines, open(out, "w") as changed:
            changed.writelines(line if line.startswith(">") else line.replace("N", "A") for line in lines)

    return once(os.path.join(cache, "genomes-plain.fa"), make)


def reads(cache, genome_file, count):
    """Simulated reads: the first of all pairs, then the second of all pairs."""

    def make(out):
        pair = [os.path.join(cache, f"wgsim-{i}.fq") for i in (1, 2)]
        command = ["wgsim", *WGSIM, "-N", str(count // 2), genome_file, *pair]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with open(out, "w") as fasta:
            for file in pair:
                with open(file) as fastq:
                    for head in fastq:
                        bases = fastq.readline()
                        fastq.readline()
                        fastq.readline()
                        if "N" not in bases:
                            fasta.write(f">{head[1:]}{bases}")
                os.unlink(file)

    return once(os.path.join(cache, f"reads-{count}.fa"), make)


def first_records(cache, fasta, count):
    """The first records of a FASTA file with one line of bases a record."""

    def make(out):
        with open(fasta) as whole, open(out, "w") as part:
            for _ in range(2 * count):
                part.write(whole.readline())

    name = os.path.basename(fasta).removesuffix(".fa")
    return once(os.path.join(cache, f"{name}-first-{count}.fa"), make)


def relation(leader, fasta):
    """The records as a relation beside the FASTA file."""
    out = fasta.removesuffix(".fa")
    if not os.path.exists(out + ".schema"):
        say(f"importing {fasta}")
        subprocess.run([leader, "import", "--force", "-o", out, fasta], check=True, stderr=subprocess.DEVNULL)
    return out
