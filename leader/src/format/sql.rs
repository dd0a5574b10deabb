//! The two tables of pg_kmersearch: how they are made where they are missing, and how a result gets into them.
//!
//! Keys: `kmersearch_highfreq_kmer` is keyed by table, column, k, occur_bitlen and uintkey, `kmersearch_highfreq_kmer_meta` by table, column, k and
//! occur_bitlen: one analysis for each way to count a column. `uintkey` is a bigint: a key of 64 bits is its signed value there.

use super::facts::Facts;
use crate::failure::Failure;
use crate::plan::Plan;
use crate::report::Entry;
use kmer::params::Params;

/// The table of k-mers.
pub const HIGHFREQ: &str = "kmersearch_highfreq_kmer";
/// The table of analyses.
pub const META: &str = "kmersearch_highfreq_kmer_meta";

/// Makes the tables where they are missing.
pub const CREATE_TABLES: &str = "\
CREATE TABLE IF NOT EXISTS kmersearch_highfreq_kmer (
    table_oid oid NOT NULL,
    column_name name NOT NULL,
    kmer_size integer NOT NULL,
    occur_bitlen integer NOT NULL,
    uintkey bigint NOT NULL,
    appearance_nrow bigint NOT NULL,
    detection_reason text,
    created_at timestamp with time zone DEFAULT now(),
    PRIMARY KEY (table_oid, column_name, kmer_size, occur_bitlen, uintkey)
);
CREATE TABLE IF NOT EXISTS kmersearch_highfreq_kmer_meta (
    table_oid oid NOT NULL,
    column_name name NOT NULL,
    kmer_size integer NOT NULL,
    occur_bitlen integer NOT NULL,
    max_appearance_rate real NOT NULL,
    max_appearance_nrow integer NOT NULL,
    analysis_timestamp timestamp with time zone DEFAULT now(),
    PRIMARY KEY (table_oid, column_name, kmer_size, occur_bitlen)
);
";

/// Refuses a rate that its column, a `real`, cannot hold. Row counts are refused with the command line.
///
/// # Errors
/// Exit code 2.
pub fn must_fit(rate: f64) -> Result<(), Failure> {
    if rate > 0.0 && rate as f32 == 0.0 {
        let text = format!(
            "--max-appearance-rate: expected 0 or at least 1e-45, since {META} holds no less, found {rate:e}"
        );
        return Err(Failure::usage(text));
    }
    Ok(())
}

/// What is behind the row count in a row for COPY.
pub const COPY_BEHIND: &str = "\tthreshold";

/// Whose k-mers they are.
#[derive(Clone, Debug)]
pub struct Target {
    table_oid: u32,
    column: String,
}

impl Target {
    /// The table and column of a plan.
    ///
    /// # Errors
    /// When the table's OID is known to nobody.
    pub fn new(plan: &Plan, typed: Option<u32>) -> Result<Self, Failure> {
        let oid = typed.or(plan.table_oid()).ok_or_else(|| {
            Failure::usage("--table-oid: expected the OID of the table, which a file does not tell")
                .hint("ask the database: SELECT 'schema.table'::regclass::oid")
        })?;
        Ok(Self { table_oid: oid, column: plan.source.column.clone() })
    }

    /// What is before the key in a row for COPY.
    pub fn copy_front(&self, params: Params) -> String {
        let Self { table_oid, column } = self;
        let column = copy_text(column);
        format!("{table_oid}\t{column}\t{}\t{}\t", params.k(), params.occur_bitlen())
    }

    /// A script up to the rows.
    pub fn script_head(&self, facts: &Facts) -> String {
        let version = env!("CARGO_PKG_VERSION");
        let facts = facts.lines("-- ");
        format!(
            "-- kmer-leader {version}; for psql -v ON_ERROR_STOP=1 -f FILE\n{facts}\nBEGIN;\n{CREATE_TABLES}\
             CREATE TEMPORARY TABLE kmer_leader_rows (uintkey bigint NOT NULL, appearance_nrow bigint NOT NULL) ON COMMIT DROP;\n\
             COPY kmer_leader_rows (uintkey, appearance_nrow) FROM stdin;\n"
        )
    }

    /// A script behind the rows.
    pub fn script_tail(&self, facts: &Facts) -> String {
        let (oid, column) = (self.table_oid, quote(&self.column));
        let Facts { k, occur_bitlen, max_appearance_rate, max_appearance_nrow, .. } = facts;
        format!(
            "\\.\n\
             DELETE FROM {HIGHFREQ} WHERE table_oid = {oid} AND column_name = {column} AND kmer_size = {k} AND occur_bitlen = {occur_bitlen};\n\
             INSERT INTO {HIGHFREQ} (table_oid, column_name, kmer_size, occur_bitlen, uintkey, appearance_nrow, detection_reason)\n    \
             SELECT {oid}, {column}, {k}, {occur_bitlen}, uintkey, appearance_nrow, 'threshold' FROM kmer_leader_rows;\n\
             INSERT INTO {META} (table_oid, column_name, kmer_size, occur_bitlen, max_appearance_rate, max_appearance_nrow)\n    \
             VALUES ({oid}, {column}, {k}, {occur_bitlen}, {max_appearance_rate}, {max_appearance_nrow})\n    \
             ON CONFLICT (table_oid, column_name, kmer_size, occur_bitlen) DO UPDATE SET\n    \
             max_appearance_rate = EXCLUDED.max_appearance_rate, max_appearance_nrow = EXCLUDED.max_appearance_nrow, analysis_timestamp = now();\n\
             COMMIT;\n"
        )
    }
}

/// A string constant.
pub fn quote(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') {
        return format!("E'{}'", doubled.replace('\\', "\\\\"));
    }
    format!("'{doubled}'")
}

/// A field of COPY's text form.
fn copy_text(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
}

/// A key as the bigint that has the same bits.
pub fn bigint(key: u64) -> i64 {
    key.cast_signed()
}

/// Lines of key and row count, with something before and behind.
pub fn append_rows(entries: &[Entry], front: &str, behind: &str, text: &mut Vec<u8>) {
    text.reserve(entries.len() * (front.len() + behind.len() + 32));
    let mut digits = itoa::Buffer::new();
    for (key, count) in entries {
        text.extend_from_slice(front.as_bytes());
        text.extend_from_slice(digits.format(bigint(*key)).as_bytes());
        text.push(b'\t');
        text.extend_from_slice(digits.format(*count).as_bytes());
        text.extend_from_slice(behind.as_bytes());
        text.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        assert_eq!(quote("seq"), "'seq'");
        assert_eq!(quote("o'x"), "'o''x'");
        assert_eq!(quote("a\\b'"), "E'a\\\\b'''");
        assert_eq!(copy_text("a\tb\\"), "a\\tb\\\\");
    }

    #[test]
    fn keys_of_64_bits_are_signed() {
        let mut text = Vec::new();
        append_rows(&[(0, 1), (u64::MAX, 7), (1 << 63, 2)], "5\t", "\tx", &mut text);
        let expected = "5\t0\t1\tx\n5\t-1\t7\tx\n5\t-9223372036854775808\t2\tx\n";
        assert_eq!(String::from_utf8(text).expect("ASCII"), expected);
    }
}
