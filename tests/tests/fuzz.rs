//! The bodies of `fuzz/` on real seeds, on the corpus that fuzzing came to, and on some thousand simple mutations of both; what fuzzing found is among
//! the seeds (`fuzz/seeds`).
//!
//! With `KMER_FUZZ_SEEDS=DIR` all of them are written into `DIR/BODY`, for `fuzz/run.sh` to begin with. With `KMER_FUZZ_KEEP=DIR` the files in `DIR/BODY`
//! become the corpus that is kept, `fuzz/corpora/BODY.gz`: inputs one behind the other, each after its length (u32, little endian).

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use kmer_tests::data::Rng;
use kmer_tests::fuzz::BODIES;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn corpus_file(body: &str) -> PathBuf {
    root().join("fuzz/corpora").join(format!("{body}.gz"))
}

/// The corpus that is kept.
fn corpus(body: &str) -> Vec<Vec<u8>> {
    let mut bytes = Vec::new();
    let packed = fs::File::open(corpus_file(body)).unwrap_or_else(|e| panic!("the corpus of {body}: {e}"));
    flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes).expect("a packed corpus");
    let (mut inputs, mut rest) = (Vec::new(), &bytes[..]);
    while let Some((len, behind)) = rest.split_first_chunk() {
        let (input, behind) = behind.split_at(u32::from_le_bytes(*len) as usize);
        inputs.push(input.to_vec());
        rest = behind;
    }
    inputs
}

/// Packs the files of a directory as the corpus that is kept.
fn keep(body: &str) {
    let Some(dir) = std::env::var_os("KMER_FUZZ_KEEP") else { return };
    let files = fs::read_dir(Path::new(&dir).join(body)).expect("a corpus").flatten();
    let mut inputs: Vec<Vec<u8>> = files.map(|entry| fs::read(entry.path()).expect("an input")).collect();
    inputs.sort();
    let file = fs::File::create(corpus_file(body)).expect("created");
    let mut packer = flate2::write::GzEncoder::new(file, flate2::Compression::best());
    for input in inputs {
        let len = u32::try_from(input.len()).expect("a short input");
        packer.write_all(&len.to_le_bytes()).and_then(|()| packer.write_all(&input)).expect("written");
    }
    packer.finish().expect("written");
}

/// Seeds of a body: files kept for it, and what the example relations are made of.
fn seeds(body: &str) -> Vec<Vec<u8>> {
    let kept = fs::read_dir(root().join("fuzz/seeds").join(body)).into_iter().flatten().flatten();
    let mut seeds: Vec<Vec<u8>> = kept.map(|entry| fs::read(entry.path()).expect("a seed")).collect();
    let relation = |name: &str| fs::read(root().join("examples").join(name)).expect("an example");
    let first = |choice: u8, name: &str| [vec![choice], relation(name)[..8192].to_vec()].concat();
    match body {
        "page" => seeds.extend([
            first(3, "klebs"),
            first(0x83, "klebs"),
            first(3, "amplicons"),
            first(0, "klebs.toast"),
        ]),
        // The last tuple of a page begins where its first line pointer says.
        "tuple" => seeds.extend(["klebs", "amplicons"].map(|name| {
            let page = relation(name);
            let pointer = u32::from_le_bytes(page[24..28].try_into().expect("4 bytes"));
            let (offset, len) = ((pointer & 0x7fff) as usize, (pointer >> 17) as usize);
            [vec![3], page[offset..offset + len].to_vec()].concat()
        })),
        "toast" => seeds.push(relation("klebs.toast")[..16384].to_vec()),
        // Every table in the directory of every version; a cut file; a byte of the control file, with its checksum as it was and made right.
        "catalogs" => {
            seeds.extend((0..6 * 8).map(|n| vec![n % 6 + n / 6 * 8]));
            seeds.extend((0..6).map(|major| vec![major, 251, 0, 32, 0, 0, 0, 0, 0]));
            seeds.extend([0, 128].map(|seal| vec![seal | 2, 0, 8, 0, 0, 1, 2, 3, 4]));
        }
        "segment" => seeds.extend([vec![], vec![0; 11], vec![255; 22]]),
        "command_line" => seeds.extend(
            [
                "-k\x0021\0--all\0rel",
                "--workers\x004\0rel\0-o\0x",
                "torture\0--kills\x003\0rel\0--\0-k\x005",
                "resume\0kmer.x",
            ]
            .map(|line| line.as_bytes().to_vec()),
        ),
        _ => seeds.extend([vec![0x1b; 40], vec![3, 0, 0, 0, 65, 0, 66, 1, 2, 3], (0..200).collect()]),
    }
    seeds
}

fn mutated(rng: &mut Rng, seed: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=rng.below(6) {
        let at = rng.below(bytes.len().max(1));
        match rng.below(5) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at.min(bytes.len()), rng.next_u64() as u8),
            2 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][rng.below(5)],
            _ if !bytes.is_empty() => bytes[at] ^= 1 << rng.below(8),
            _ => {}
        }
        // Headers and line pointers lie at the beginning.
        let place = rng.below(64);
        if rng.below(2) == 0 && place < bytes.len() {
            bytes[place] = rng.next_u64() as u8;
        }
    }
    bytes
}

fn write(body: &str, seeds: &[Vec<u8>]) {
    let Some(dir) = std::env::var_os("KMER_FUZZ_SEEDS") else { return };
    let dir = Path::new(&dir).join(body);
    fs::create_dir_all(&dir).expect("a directory for seeds");
    for (number, seed) in seeds.iter().enumerate() {
        fs::write(dir.join(format!("seed-{number}")), seed).expect("a seed");
    }
}

#[test]
fn seeds_and_their_mutations_come_to_an_end() {
    let mut rng = Rng::new(70);
    for (name, body) in BODIES {
        keep(name);
        let mut seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has no seed");
        let corpus = corpus(name);
        assert!(corpus.len() > 10, "{name} has a corpus of {}", corpus.len());
        seeds.extend(corpus);
        seeds.iter().for_each(|seed| body(seed));
        write(name, &seeds);
        let rounds = if matches!(*name, "toast" | "catalogs" | "segment") { 300 } else { 3000 };
        for _ in 0..rounds {
            let seed = &seeds[rng.below(seeds.len())];
            body(&mutated(&mut rng, seed));
        }
        println!("{name}: {} seeds, {rounds} mutations", seeds.len());
    }
}
