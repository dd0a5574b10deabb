"""What is measured: each case is a row of the table, with the goal that it was given."""

from tools import Jellyfish, Kmc, Leader

# What the extension pg_kmersearch (July 2025, 2 parallel workers, 200,000 reads of 150 bases) took, by the literature.
EXTENSION_SECONDS = {16: 15.4, 8: 77.4}


class Case:
    """Ours, and what it is compared with: another program, another case of ours, or a figure."""

    def __init__(self, name, what, ours, beside=None, goal=None, memory_goal=None):
        self.name, self.what, self.ours, self.beside = name, what, ours, beside
        self.goal, self.memory_goal = goal, memory_goal


# Every k-mer is counted and kept in the segment, and written to nobody.
KEPT = ["--all", "--count-only"]


def written(help_text, path):
    """How every k-mer gets into a file: in the dense form that kmer-leader reads back, or as text by a build that has no such form."""
    if "--dense" in help_text:
        return "--dense", [*KEPT, "--dense", path], "/dev/null"
    return "as text", ["--all"], path


def cases(data, help_text, quick):
    """All cases, in the order of the table."""
    ours = lambda path, k, options, **more: Leader(path, ["-k", str(k), *options], **more)
    all_of = lambda path, k: ours(path, k, KEPT)
    reads, fasta = data["reads"], data["reads_fasta"]
    rows = []
    for k in [31, 21, 16, 12, 8]:
        limit = 2.5e9 if k == 31 else None
        rows.append(Case(f"kept-{k}", f"k={k}, every k-mer counted and kept", all_of(reads, k), Kmc(fasta, k), 10, limit))
    form, options, output = written(help_text, data["scratch"] + "/written")
    rows.append(Case("written-31", f"k=31, every k-mer written ({form})", ours(reads, 31, options, output=output),
                     Kmc(fasta, 31), 6))
    rows.append(Case("default-16", "default analysis, k=16", ours(reads, 16, []), Kmc(fasta, 16), 12, 1e9))
    for k in [16, 8]:
        rows.append(Case(f"extension-{k}", f"first {data['few']:,} reads, default analysis, k={k}, beside the extension's figure",
                         ours(data["few_reads"], k, []), EXTENSION_SECONDS[k], 100))
    if data["takes_fasta"]:
        rows.append(Case("fasta-31", "the FASTA file itself, k=31, every k-mer kept", all_of(fasta, 31), Kmc(fasta, 31), 8))
        both = [*KEPT, "--count", "occurrences", "--canonical"]
        rows.append(Case("canonical-31", "what KMC counts by default: the FASTA file, k=31, canonical occurrences",
                         ours(fasta, 31, both), Kmc(fasta, 31, canonical=True)))
    for k in [16, 31]:
        rows.append(Case(f"genomes-{k}", f"4 genomes as 16 rows of up to 5.4 Mb, k={k}, every k-mer kept",
                         all_of(data["genomes"], k), Kmc(data["genomes_fasta"], k), 8))
    rows.append(Case("memory-16", "default analysis, k=16, --memory 256M, beside without", ours(reads, 16, ["--memory", "256M"]),
                     "default-16", 1 / 3))
    rows.append(Case("alone-31", "k=31 kept, 2 workers beside 1", all_of(reads, 31),
                     ours(reads, 31, KEPT, workers=1), 1.9))
    rows.append(Case("alone-16", "default analysis, k=16, 2 workers beside 1", ours(reads, 16, []),
                     ours(reads, 16, [], workers=1), 1.9))
    if not quick:
        rows.append(Case("jellyfish-31", "k=31, every k-mer kept, beside Jellyfish", all_of(reads, 31),
                         Jellyfish(fasta, 31, "200M")))
        rows.append(Case("jellyfish-16", "k=16, every k-mer kept, beside Jellyfish", all_of(reads, 16),
                         Jellyfish(fasta, 16, "200M")))
    return rows
