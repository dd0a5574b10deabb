#!/bin/sh
# Makes the example relations from genomes:  make.sh GENOME.fa[.gz|.xz]...
#
# Cuts the same pieces each time (fixed strides, no random numbers), so the same genomes give the same files:
#   klebs      reads of 150 bases, pieces of 10,000 bases, and whole every sequence shorter than 400,000 bases (plasmids)
#   amplicons  what the 16S primers 341F and 805R amplify, from both strands
# beside this script, or in $OUT. Needs awk and a built kmer-leader ($KMER_LEADER, or the one in PATH).
#
# The files in this directory were made from the four Klebsiella pneumoniae genomes of Debian's package
# kleborate-examples: Klebs_HS11286, Klebs_Kp1084, MGH78578, NTUH-K2044 (.fna.xz), in that order.
set -eu
export LC_ALL=C

if [ $# -eq 0 ]; then
    echo "usage: make.sh GENOME.fa[.gz|.xz]..." >&2
    echo "genomes to try: Debian's package kleborate-examples" >&2
    exit 2
fi
leader=${KMER_LEADER:-kmer-leader}
out=${OUT:-$(dirname "$0")}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# One line for each sequence: its first word, a tab, its bases in upper case.
for genome; do
    case $genome in
        *.gz) gzip -dc -- "$genome" ;;
        *.xz) xz -dc -- "$genome" ;;
        *) cat -- "$genome" ;;
    esac
done | awk '
    /^>/ { if (name != "") print ""; name = substr($1, 2); printf "%s\t", name; next }
    { sub(/\r$/, ""); printf "%s", toupper($0) }
    END { if (name != "") print "" }
' > "$work/sequences"

# cut LENGTH STRIDE: pieces of every sequence, named NAME:FIRST-LAST.
cut_pieces() {
    awk -F '\t' -v len="$1" -v stride="$2" '{
        for (first = stride; first + len - 1 <= length($2); first += stride)
            printf ">%s:%d-%d\n%s\n", $1, first, first + len - 1, substr($2, first, len)
    }' "$work/sequences"
}

{
    cut_pieces 150 5500
    cut_pieces 10000 80000
    awk -F '\t' 'length($2) < 400000 { printf ">%s whole\n%s\n", $1, $2 }' "$work/sequences"
} > "$work/klebs.fa"

awk -F '\t' '
    BEGIN { split("A T C G G C T A N N", pair, " "); for (i = 1; i < 11; i += 2) other[pair[i]] = pair[i + 1] }
    function reverse(bases,   i, base, turned) {
        turned = ""
        for (i = length(bases); i > 0; i--) {
            base = substr(bases, i, 1)
            turned = turned ((base in other) ? other[base] : "N")
        }
        return turned
    }
    # Everything between forward and backward, primers included, at most 600 bases.
    function amplify(name, strand, bases, forward, backward, turn,   at, from, piece) {
        at = 1
        while (match(substr(bases, at), forward)) {
            from = at + RSTART - 1
            at = from + 1
            piece = substr(bases, from, 600)
            if (match(piece, backward)) {
                piece = substr(piece, 1, RSTART + RLENGTH - 1)
                printf ">%s:%d%s\n%s\n", name, from, strand, turn ? reverse(piece) : piece
            }
        }
    }
    {
        amplify($1, "+", $2, "CCTACGGG[ACGT]GGC[AT]GCAG", "GGATTAGATACCC[CGT][AGT]GTAGTC", 0)
        amplify($1, "-", $2, "GACTAC[ACT][ACG]GGGTATCTAATCC", "CTGC[AT]GCC[ACGT]CCCGTAGG", 1)
    }
' "$work/sequences" > "$work/amplicons.fa"

for name in klebs amplicons; do
    if [ ! -s "$work/$name.fa" ]; then
        echo "make.sh: nothing to put into $name" >&2
        continue
    fi
    "$leader" import --force --skip-ambiguous -o "$out/$name" "$work/$name.fa"
done
