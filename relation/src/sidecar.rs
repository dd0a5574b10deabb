//! Keeps what a bare relation file does not say in FILE.schema beside it.
//!
//! Small text, one `key = value` a line, `#` begins a comment line: `columns` (as [`crate::TupleDesc`] reads it), `column` (the
//! DNA column), `toast` (path of the TOAST relation, relative to the file's directory) and `checksums` (`on` or `off`).
//! Keys that are not known are refused, so that a misspelt one is not lost.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::error::{Result, own_error};
use crate::file::io_error;

/// More than this is no sidecar; 1600 columns with long names fit.
const MAX_BYTES: u64 = 1 << 20;

/// The contents of FILE.schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sidecar {
    /// The column list.
    pub columns: String,
    /// Name or number of the DNA column.
    pub column: Option<String>,
    /// Where the TOAST relation lies, relative to the relation's directory.
    pub toast: Option<String>,
    /// Whether the pages carry checksums.
    pub checksums: bool,
}

impl Sidecar {
    /// FILE.schema for FILE.
    pub fn path_for(rel: &Path) -> PathBuf {
        let mut name = rel.as_os_str().to_owned();
        name.push(".schema");
        PathBuf::from(name)
    }

    /// The path of the TOAST relation, if one is named.
    pub fn toast_path(&self, rel: &Path) -> Option<PathBuf> {
        let toast = self.toast.as_ref()?;
        Some(rel.parent().map_or_else(|| PathBuf::from(toast), |dir| dir.join(toast)))
    }

    /// Reads the sidecar of a relation; `None` if there is none.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Io`] if it cannot be read, [`crate::ErrorKind::Own`] naming the line that is wrong.
    pub fn load(rel: &Path) -> Result<Option<Self>> {
        let path = Self::path_for(rel);
        let failed = |e| io_error("cannot read", e).in_file(&path);
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
            Ok(meta) if meta.len() > MAX_BYTES => {
                let found = format!("{} bytes", meta.len());
                return Err(own_error("sidecar", "at most 1 MiB", found).in_file(&path));
            }
            Ok(_) => {}
        }
        let text = std::fs::read_to_string(&path).map_err(failed)?;
        Self::parse(&text).map(Some).map_err(|e| e.in_file(&path))
    }

    /// Writes FILE.schema, replacing one that is there.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Io`]; those of [`Sidecar::to_text`].
    pub fn save(&self, rel: &Path) -> Result<()> {
        let path = Self::path_for(rel);
        let text = self.to_text().map_err(|e| e.in_file(&path))?;
        std::fs::write(&path, text).map_err(|e| io_error("cannot write", e).in_file(&path))
    }

    /// The text of FILE.schema.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Own`] for a value that would not come back: with a line break in it, or blanks at its ends.
    pub fn to_text(&self) -> Result<String> {
        let mut text = String::from("# read by kmer-leader: what the relation file itself does not say\n");
        let checksums = Some(if self.checksums { "on" } else { "off" });
        for (key, value) in [
            ("columns", Some(self.columns.as_str())),
            ("column", self.column.as_deref()),
            ("toast", self.toast.as_deref()),
            ("checksums", checksums),
        ] {
            let Some(value) = value else { continue };
            // The same file by a path that does not begin with a blank.
            let here = if key == "toast" && value.starts_with(char::is_whitespace) { "./" } else { "" };
            let value = format!("{here}{value}");
            let wrong = |expected: &str| Err(own_error("sidecar", expected, format!("{key} = {value:?}")));
            if value.contains(['\n', '\r']) {
                return wrong("a value in one line");
            }
            if value.trim() != value {
                return wrong("a value without blanks at its ends");
            }
            let _ = writeln!(text, "{key} = {value}");
        }
        Ok(text)
    }

    fn parse(text: &str) -> Result<Self> {
        let (mut columns, mut column, mut toast, mut checksums) = (None, None, None, None);
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |expected: &str| own_error("sidecar", expected, format!("{line:?}"));
            let (key, value) = line.split_once('=').ok_or_else(|| wrong("key = value"))?;
            let slot = match key.trim() {
                "columns" => &mut columns,
                "column" => &mut column,
                "toast" => &mut toast,
                "checksums" => &mut checksums,
                _ => return Err(wrong("columns, column, toast or checksums")),
            };
            if slot.replace(value.trim().to_owned()).is_some() {
                return Err(wrong("each key once"));
            }
        }
        let checksums = match checksums.as_deref() {
            None | Some("off") => false,
            Some("on") => true,
            Some(other) => return Err(own_error("sidecar", "checksums = on or off", format!("{other:?}"))),
        };
        let columns = columns.ok_or_else(|| own_error("sidecar", "a line columns = ...", "none"))?;
        Ok(Self { columns, column, toast, checksums })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_saved() {
        let dir = tempfile::tempdir().unwrap();
        let rel = dir.path().join("reads");
        assert_eq!(Sidecar::load(&rel).unwrap(), None);
        let full = Sidecar {
            columns: "id int4, seq dna2".into(),
            column: Some("seq".into()),
            toast: Some("reads_toast".into()),
            checksums: true,
        };
        full.save(&rel).unwrap();
        assert_eq!(Sidecar::load(&rel).unwrap().as_ref(), Some(&full));
        assert_eq!(full.toast_path(&rel), Some(dir.path().join("reads_toast")));
        let small = Sidecar { column: None, toast: None, checksums: false, ..full };
        small.save(&rel).unwrap();
        assert_eq!(Sidecar::load(&rel).unwrap(), Some(small));
    }

    #[test]
    fn a_toast_file_is_found_whatever_it_is_called() {
        let rel = Path::new("dir/reads");
        let named = |toast: &str| {
            let columns = "seq dna2".to_owned();
            Sidecar { columns, column: None, toast: Some(toast.to_owned()), checksums: true }
        };
        for name in [" lead", "\tlead", "#x", "a = b", "\"x\"", "./x", "/abs"] {
            let read = Sidecar::parse(&named(name).to_text().unwrap()).unwrap();
            let (read, same) = (read.toast_path(rel).unwrap(), named(name).toast_path(rel).unwrap());
            assert!(read.components().eq(same.components()), "{read:?}");
        }
        for name in ["trail ", "two\nlines", "x\r"] {
            assert!(named(name).to_text().unwrap_err().to_string().starts_with("sidecar: expected a value "));
        }
        // As blanks around a value mean nothing.
        assert_eq!(Sidecar::parse("columns =  a int4  \ntoast= x ").unwrap().toast.as_deref(), Some("x"));
    }

    #[test]
    fn refuses_what_it_cannot_mean() {
        let text = |text: &str| Sidecar::parse(text).unwrap_err().to_string();
        assert_eq!(text("columns"), "sidecar: expected key = value, found \"columns\"");
        assert_eq!(
            text("colums = id int4"),
            "sidecar: expected columns, column, toast or checksums, found \"colums = id int4\""
        );
        assert_eq!(
            text("columns = a\ncolumns = b"),
            "sidecar: expected each key once, found \"columns = b\""
        );
        assert_eq!(text("# nothing\n"), "sidecar: expected a line columns = ..., found none");
        assert_eq!(
            text("columns = a\nchecksums = yes"),
            "sidecar: expected checksums = on or off, found \"yes\""
        );
    }
}
