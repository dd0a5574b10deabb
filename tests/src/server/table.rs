//! Tables of a server: their rows, their column lists, and copies of their files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::Server;
use crate::data;
use crate::fault::within;

/// A table by its name.
#[derive(Debug)]
pub struct Table<'s> {
    pub(super) server: &'s Server,
    pub(super) name: String,
}

/// A copy of a table's files, in a directory that is removed with it.
#[derive(Debug)]
pub struct Snapshot {
    dir: TempDir,
    /// The heap's first file; `.1`, `.2`, ... lie beside it.
    pub heap: PathBuf,
    /// The TOAST table's first file, when the table has one with at least one page.
    pub toast: Option<PathBuf>,
    /// The column list in the form of the engine's `--schema`, dropped columns included.
    pub schema: String,
}

impl Server {
    /// Makes a table of these columns and fills its column `seq` with the bits of random rows.
    pub fn fill(&self, table: &str, columns: &str, seed: u64, rows: usize) {
        let bits = data::all_dna2_bits(&data::rows(seed, rows));
        self.sql(&(format!("CREATE TABLE {table} ({columns});\n") + &data::copy_bits(table, "seq", &bits)));
    }

    /// Waits until a query gives `true`.
    ///
    /// # Panics
    /// When it does not come to that.
    pub fn until(&self, query: &str) {
        let holds = || self.value::<String>(query) == "t";
        assert!(within(Duration::from_secs(30), holds), "never true: {query}");
    }
}

impl Snapshot {
    /// Gives the directory the copies lie in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// Lists a table's attributes as the engine's `--schema` wants them. A dropped one keeps its length and alignment. The value of a DNA column in
/// rows from before the column is given as the bytes behind a varlena header: the bit length, little endian, and the bits.
const SCHEMA_QUERY: &str = "
SELECT string_agg(quote_ident(attname) || ' ' || CASE
         WHEN attisdropped
         THEN format('dropped(%s,%s)', attlen, CASE attalign WHEN 'c' THEN 1 WHEN 's' THEN 2 WHEN 'i' THEN 4 ELSE 8 END)
         WHEN atthasmissing AND atttypid::regtype::text IN ('bit varying', 'dna2', 'dna4')
         THEN format('%s missing(%s)', format_type(atttypid, atttypmod), encode(
                substr(sent, 4, 1) || substr(sent, 3, 1) || substr(sent, 2, 1) || substr(sent, 1, 1) || substr(sent, 5), 'hex'))
         ELSE format_type(atttypid, atttypmod) END, ', ' ORDER BY attnum)
FROM pg_attribute, LATERAL (SELECT CASE WHEN atthasmissing AND atttypid::regtype::text IN ('bit varying', 'dna2', 'dna4')
       THEN varbit_send((attmissingval::text::text[])[1]::bit varying) END) missing(sent)
WHERE attnum > 0 AND attrelid = ";

impl Table<'_> {
    /// Gives the table's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives the DNA column of every visible row as the text of its bits ("0110..."), `None` for NULL.
    #[must_use]
    pub fn sequences(&self, column: &str) -> Vec<Option<String>> {
        let query = format!(
            "SELECT CASE WHEN {column} IS NULL THEN 'N' ELSE 'V' || {column}::text END FROM {};",
            self.name
        );
        self.server.sql(&query).lines().map(|line| line.strip_prefix('V').map(str::to_owned)).collect()
    }

    /// Lets the server settle the hint bits of every tuple, flushes everything, and copies the table's files.
    ///
    /// # Panics
    /// When the table or a file is not there.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let name = &self.name;
        let regclass = format!("'{name}'::regclass");
        let toast_name: String = self.server.value(&format!(
            "SELECT CASE reltoastrelid WHEN 0 THEN '' ELSE reltoastrelid::regclass::text END FROM pg_class WHERE oid = {regclass};"
        ));
        let mut script = format!("SET enable_indexonlyscan = off;\nSELECT count(*) FROM {name};\n");
        if !toast_name.is_empty() {
            script += &format!("SELECT count(*) FROM {toast_name};\n");
        }
        self.server.sql(&(script + "CHECKPOINT;"));
        let dir = self.server.temp_dir();
        let heap = self.copy_relation(&regclass, dir.path());
        let toast = (!toast_name.is_empty())
            .then(|| self.copy_relation(&format!("'{toast_name}'::regclass"), dir.path()))
            .filter(|file| fs::metadata(file).is_ok_and(|meta| meta.len() > 0));
        Snapshot { schema: self.schema(), dir, heap, toast }
    }

    /// Gives the column list in the form of the engine's `--schema`.
    #[must_use]
    pub fn schema(&self) -> String {
        self.server.value(&format!("{SCHEMA_QUERY}'{}'::regclass;", self.name))
    }

    /// Gives the path of the table's first file in the data directory.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        let query = format!("SELECT pg_relation_filepath('{}');", self.name);
        self.server.data_directory().join(self.server.value::<String>(&query))
    }

    fn copy_relation(&self, regclass: &str, to: &Path) -> PathBuf {
        let query = format!("SELECT pg_relation_filepath({regclass});");
        let first = self.server.data_directory().join(self.server.value::<String>(&query));
        let name = first.file_name().expect("a file name");
        let target = to.join(name);
        for segment in 0.. {
            let (from, to) = if segment == 0 {
                (first.clone(), target.clone())
            } else {
                (with_suffix(&first, segment), with_suffix(&target, segment))
            };
            if segment > 0 && !from.exists() {
                break;
            }
            fs::copy(&from, &to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        }
        target
    }
}

/// Names a later segment of a relation: `FILE.1`, `FILE.2`, ...
#[must_use]
pub fn with_suffix(first: &Path, segment: u32) -> PathBuf {
    let mut name = first.as_os_str().to_owned();
    name.push(format!(".{segment}"));
    PathBuf::from(name)
}
