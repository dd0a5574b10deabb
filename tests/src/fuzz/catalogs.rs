//! The catalogs of data directories of every version, with patches in them.
//!
//! The directories are real ones, made small: the control file, the maps, the transaction log, and of each catalog the pages that hold a row of the
//! tables below. `tests/tests/catalogs.rs` makes them from servers (`fuzz/directories/MAJOR.gz`), and sees that every table is found in them.
//!
//! Promise: a lookup in a patched directory ends, with a table all of whose parts are sound, or with an error that says something.

use std::cell::RefCell;
use std::fs;
use std::io::Read;
use std::path::Path;

use relation::catalog::name::TableName;
use relation::catalog::table::Wanted;
use relation::catalog::{DataDirectory, Error, Major, Table};
use tempfile::TempDir;

/// Tables of the directories, each with the column that is asked for.
pub const TABLES: [(&str, Option<&str>); 8] = [
    ("altered", Some("packed")),
    ("parts", None),
    ("mother", None),
    ("domains", Some("seq")),
    ("long_rows", None),
    ("\"My Lab\".\"Reads 1\"", Some("Seq \"2\"")),
    ("a_view", None),
    ("nowhere", None),
];

const PACKED: [&[u8]; 6] = [
    include_bytes!("../../../fuzz/directories/13.gz"),
    include_bytes!("../../../fuzz/directories/14.gz"),
    include_bytes!("../../../fuzz/directories/15.gz"),
    include_bytes!("../../../fuzz/directories/16.gz"),
    include_bytes!("../../../fuzz/directories/17.gz"),
    include_bytes!("../../../fuzz/directories/18.gz"),
];
const PATCH: usize = 8;
const MOST_PATCHES: usize = 64;

/// A file below a data directory: its path and its bytes.
pub type File = (String, Vec<u8>);

/// A data directory that is there once a thread, and how it is when nothing is patched.
pub struct Directory {
    major: Major,
    dir: TempDir,
    files: Vec<File>,
}

impl Directory {
    /// Unpacks the directory of a version.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn unpack(major: Major) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let files = unpack(PACKED[usize::from(major.number()) - 13]);
        let directory = Self { major, dir, files };
        for (path, bytes) in &directory.files {
            let path = directory.dir.path().join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            fs::write(path, bytes).expect("written");
        }
        directory
    }

    /// Looks one of [`TABLES`] up.
    ///
    /// # Errors
    /// Those of [`DataDirectory`].
    ///
    /// # Panics
    /// When what was found cannot be.
    pub fn look_up(&self, table: usize) -> Result<Table, Error> {
        let (name, column) = TABLES[table % TABLES.len()];
        let name = TableName::parse(name).expect("a name");
        let directory = DataDirectory::open(self.dir.path())?;
        let database = directory.database("postgres", false)?;
        let wanted = Wanted { table: &name, column, varbit_as: None, verify_checksums: false };
        let table = directory.table(&database, &wanted)?;
        for leaf in &table.leaves {
            let attribute = leaf.desc.attributes.get(leaf.column).expect("a column of the table");
            assert!(!attribute.dropped && attribute.name == table.column);
            let paths = [Some(&leaf.path), leaf.toast.as_ref()];
            assert!(paths.into_iter().flatten().all(|path| path.starts_with(self.dir.path())));
        }
        Ok(table)
    }

    fn write(&self, file: usize, bytes: &[u8]) {
        fs::write(self.dir.path().join(&self.files[file].0), bytes).expect("written");
    }

    /// Does `work` while the files are patched.
    fn patched<T>(&self, patches: &[u8], seal: bool, work: impl FnOnce(&Self) -> T) -> T {
        let mut changed: Vec<Option<Vec<u8>>> = vec![None; self.files.len()];
        for patch in patches.chunks_exact(PATCH).take(MOST_PATCHES) {
            let file = usize::from(patch[0]) % self.files.len();
            let bytes = changed[file].get_or_insert_with(|| self.files[file].1.clone());
            let place = u32::from_le_bytes([patch[1], patch[2], patch[3], 0]) as usize;
            match patch[0] {
                // The file is cut.
                250.. => bytes.truncate(place),
                _ => {
                    let place = place % self.files[file].1.len().max(1);
                    let room = bytes.iter_mut().skip(place);
                    room.zip(&patch[4..]).for_each(|(byte, new)| *byte = *new);
                }
            }
        }
        for (file, bytes) in changed.iter_mut().enumerate() {
            let Some(bytes) = bytes else { continue };
            if seal {
                self.seal(&self.files[file].0, bytes);
            }
            self.write(file, bytes);
        }
        let done = work(self);
        for (file, bytes) in changed.iter().enumerate() {
            if bytes.is_some() {
                self.write(file, &self.files[file].1);
            }
        }
        done
    }

    /// Makes the checksums of the control file and of the maps right: what lies behind them must hold by itself.
    fn seal(&self, path: &str, bytes: &mut [u8]) {
        let at = match Path::new(path).file_name().and_then(|name| name.to_str()) {
            Some("pg_control") => control_crc_at(self.major),
            Some("pg_filenode.map") => map_crc_at(self.major),
            _ => return,
        };
        if bytes.len() >= at + 4 {
            let sum = crc32c::crc32c(&bytes[..at]);
            bytes[at..at + 4].copy_from_slice(&sum.to_le_bytes());
        }
    }
}

/// Where `pg_control` has its checksum (`pg_control.h`: the structure grew in version 18).
fn control_crc_at(major: Major) -> usize {
    if major.number() < 18 { 288 } else { 292 }
}

/// Where `pg_filenode.map` has its checksum (`relmapper.c`: two more mappings since version 16).
fn map_crc_at(major: Major) -> usize {
    if major.number() < 16 { 504 } else { 520 }
}

/// Files one behind the other: the path and the bytes, each after its length (u32, little endian).
fn unpack(packed: &[u8]) -> Vec<File> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes).expect("a packed directory");
    let mut rest = &bytes[..];
    let mut part = || {
        let (len, behind) = rest.split_first_chunk()?;
        let (part, behind) = behind.split_at(u32::from_le_bytes(*len) as usize);
        rest = behind;
        Some(part.to_vec())
    };
    let mut files = Vec::new();
    while let (Some(path), Some(bytes)) = (part(), part()) {
        files.push((String::from_utf8(path).expect("a path"), bytes));
    }
    files
}

thread_local! {
    static DIRECTORIES: RefCell<Vec<Directory>> = const { RefCell::new(Vec::new()) };
}

/// The first byte chooses version, table and whether checksums are made right. Then patches of eight bytes: the file, three of place, four of what is
/// put there; or, from file 250 on, the place at which it is cut.
pub fn catalogs(data: &[u8]) {
    let Some((choice, patches)) = data.split_first() else { return };
    DIRECTORIES.with_borrow_mut(|directories| {
        if directories.is_empty() {
            directories.extend(Major::all().map(Directory::unpack));
        }
        let directory = &directories[usize::from(choice & 7) % directories.len()];
        let table = usize::from(choice >> 3 & 7);
        let found = directory.patched(patches, choice & 128 == 0, |directory| directory.look_up(table));
        if let Err(e) = found {
            assert!(!e.to_string().is_empty());
        }
    });
}
