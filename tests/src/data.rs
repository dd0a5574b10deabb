//! Makes repeatable random DNA and the SQL that stores it.
//!
//! A sequence is the text of its letters here ("ACGT", for `dna4` also the IUPAC letters); [`dna2_bits`] and [`dna4_bits`] turn it into the
//! text of a `bit varying` value, by tables written out letter by letter.

/// Steele, Lea and Flood's SplitMix64: small, and the same numbers for a seed everywhere.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Starts the sequence of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Gives 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Gives a number from 0 to `n` - 1; `n` is at least 1.
    pub fn below(&mut self, n: usize) -> usize {
        let n = u64::try_from(n).expect("a usize has at most 64 bits");
        usize::try_from(self.next_u64() % n).expect("less than a usize")
    }

    /// Gives one of the letters of `alphabet`.
    pub fn letter(&mut self, alphabet: &str) -> char {
        let letters: Vec<char> = alphabet.chars().collect();
        letters[self.below(letters.len())]
    }

    /// Gives `n` random letters of `alphabet`.
    pub fn letters(&mut self, alphabet: &str, n: usize) -> String {
        (0..n).map(|_| self.letter(alphabet)).collect()
    }
}

/// Gives the bits of a `dna2` value, 2 a base.
///
/// # Panics
/// At a letter other than A, C, G, T.
#[must_use]
pub fn dna2_bits(letters: &str) -> String {
    let code = |letter| match letter {
        'A' => "00",
        'C' => "01",
        'G' => "10",
        'T' => "11",
        other => panic!("no code in dna2 for {other:?}"),
    };
    letters.chars().map(code).collect()
}

/// Gives the bits of a `dna4` value, 4 a letter: T, G, C, A from the most to the least significant.
///
/// # Panics
/// At a letter that IUPAC does not know.
#[must_use]
pub fn dna4_bits(letters: &str) -> String {
    let code = |letter| match letter {
        'A' => "0001",
        'C' => "0010",
        'G' => "0100",
        'T' => "1000",
        'M' => "0011",
        'R' => "0101",
        'W' => "1001",
        'S' => "0110",
        'Y' => "1010",
        'K' => "1100",
        'V' => "0111",
        'H' => "1011",
        'D' => "1101",
        'B' => "1110",
        'N' => "1111",
        other => panic!("no code in dna4 for {other:?}"),
    };
    letters.chars().map(code).collect()
}

/// Makes `n` rows for a k-mer table: pieces of one small genome with a few errors, so that k-mers come again in other rows; some with
/// repeats inside, some too short for any k-mer, some empty, some NULL.
#[must_use]
pub fn rows(seed: u64, n: usize) -> Vec<Option<String>> {
    let mut rng = Rng::new(seed);
    let genome = rng.letters("ACGT", 800);
    (0..n)
        .map(|_| match rng.below(20) {
            0 => None,
            1 => Some(String::new()),
            2 => Some(piece(&mut rng, &genome, 12)),
            3 => Some(repeats(&mut rng)),
            4 => Some(rng.letter("ACGT").to_string().repeat(40)),
            _ => Some(piece(&mut rng, &genome, 300)),
        })
        .collect()
}

/// Cuts up to `longest` bases out of `genome` and changes one base in about 50.
fn piece(rng: &mut Rng, genome: &str, longest: usize) -> String {
    let length = rng.below(longest + 1);
    let start = rng.below(genome.len() - length);
    genome[start..start + length]
        .chars()
        .map(|base| match rng.below(50) {
            0 => rng.letter("ACGT"),
            _ => base,
        })
        .collect()
}

/// A short motif over and over: few k-mers, many occurrences in the row.
fn repeats(rng: &mut Rng) -> String {
    let motif_length = 1 + rng.below(5);
    let motif = rng.letters("ACGT", motif_length);
    motif.repeat(1 + rng.below(60))
}

/// Puts degenerate letters into about one in `every` places.
pub fn degenerate(rng: &mut Rng, letters: &str, every: usize) -> String {
    letters
        .chars()
        .map(|base| match rng.below(every) {
            0 => rng.letter("MRWSYKVHDBN"),
            _ => base,
        })
        .collect()
}

/// Gives a COPY command with its rows, each a list of fields; `None` is NULL. The fields must not hold tabs, backslashes or line ends.
#[must_use]
pub fn copy(table: &str, columns: &str, rows: &[Vec<Option<String>>]) -> String {
    let mut script = format!("COPY {table} ({columns}) FROM STDIN;\n");
    for row in rows {
        let fields: Vec<&str> = row.iter().map(|field| field.as_deref().unwrap_or("\\N")).collect();
        script += &fields.join("\t");
        script.push('\n');
    }
    script + "\\.\n"
}

/// Gives a COPY command of one column of bits.
#[must_use]
pub fn copy_bits(table: &str, column: &str, bits: &[Option<String>]) -> String {
    let rows: Vec<Vec<Option<String>>> = bits.iter().map(|bits| vec![bits.clone()]).collect();
    copy(table, column, &rows)
}

/// Turns rows of letters into rows of `dna2` bits.
#[must_use]
pub fn all_dna2_bits(rows: &[Option<String>]) -> Vec<Option<String>> {
    rows.iter().map(|row| row.as_deref().map(dna2_bits)).collect()
}

/// Turns rows of letters into rows of `dna4` bits.
#[must_use]
pub fn all_dna4_bits(rows: &[Option<String>]) -> Vec<Option<String>> {
    rows.iter().map(|row| row.as_deref().map(dna4_bits)).collect()
}
