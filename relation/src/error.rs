//! Says what is wrong with a relation, where, and how much of it is unusable because of that.
//!
//! Promises
//! - The text is `relation "FILE": noun: expected X, found Y (block B, item I, attribute "A")`, lower case, without a full
//!   stop; parts that are not known are left out. Names taken from files are escaped.
//! - [`Error::extent`] depends on the kind alone: the same damage always makes the same part unusable.
//!
//! What it does not do: print, count or decide. Whether reading on makes sense for the caller is the caller's choice.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The common result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a part of a format should have been and what stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The part that is wrong, as PostgreSQL's headers call it ("line pointer", "t_hoff", "pglz data").
    pub noun: &'static str,
    /// What it should have been.
    pub expected: String,
    /// What it is.
    pub found: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}, found {}", self.noun, self.expected, self.found)
    }
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum ErrorKind {
    /// A call of the operating system on the whole file failed.
    #[error("{action}: {source}")]
    Io {
        /// What was tried, for example "cannot open".
        action: &'static str,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A block could not be read; other blocks may be readable.
    #[error("cannot read: {0}")]
    Read(#[source] io::Error),
    /// The file ended before the size it had when it was opened.
    #[error("file shrank: {0}")]
    Shrank(Mismatch),
    /// The file is not what it was when it was opened.
    #[error("file changed while it was read: {0}")]
    Changed(Mismatch),
    /// The file is no heap relation (a directory, an index, a WAL segment, text, ...).
    #[error("{0}")]
    NotHeap(String),
    /// The page as a whole cannot be trusted: header, line pointers, overlaps.
    #[error("{0}")]
    Page(Mismatch),
    /// The page's checksum is not the one of its bytes.
    #[error("checksum: expected {expected:#06x}, found {found:#06x}")]
    Checksum {
        /// The sum computed from the bytes.
        expected: u16,
        /// The sum stored in the page.
        found: u16,
    },
    /// A tuple's header or its attributes do not fit.
    #[error("{0}")]
    Tuple(Mismatch),
    /// A value's bytes are damaged: varlena header, compressed data, bit string.
    #[error("{0}")]
    Value(Mismatch),
    /// The chunks of a value in a TOAST relation do not fit together.
    #[error("{0}")]
    Toast(Mismatch),
    /// A row's value could not be got from the TOAST relation; the place is the row's, the cause has its own.
    #[error("value {value_id}: {cause}")]
    Detoast {
        /// The value's id (`va_valueid`).
        value_id: u32,
        /// What was wrong, and where in the TOAST relation.
        cause: Error,
    },
    /// A value lies in a TOAST relation, and none was given.
    #[error("value {value_id} lies in a toast relation, which was not given")]
    NoToast {
        /// The value's id (`va_valueid`).
        value_id: u32,
        /// The TOAST relation's oid (`va_toastrelid`).
        toast_relid: u32,
    },
    /// Nobody says whether a transaction committed.
    #[error("tuple: {witness} do not say whether transaction {xid} committed")]
    Undecided {
        /// Who was asked: the hint bits, or the transaction logs.
        witness: &'static str,
        /// The transaction (or multixact) in question.
        xid: u32,
    },
    /// A column list cannot be read, or a column is not in it.
    #[error("{0}")]
    Columns(String),
    /// A file of our own making (sidecar, TOAST index) cannot be understood.
    #[error("{0}")]
    Own(Mismatch),
    /// An error of the caller's row sink, carried through.
    #[error("{0}")]
    Sink(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The part of a relation that an error makes unusable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Extent {
    /// One tuple; the others of its page are good.
    Tuple,
    /// One page; the others of the relation are good.
    Page,
    /// Everything: reading on cannot give a meaningful answer.
    Relation,
}

/// An error with its place. Small (one pointer), so that results stay cheap on the good path.
#[derive(Debug)]
pub struct Error {
    inner: Box<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: Option<PathBuf>,
    block: Option<u32>,
    item: Option<u16>,
    attribute: Option<String>,
    kind: ErrorKind,
    hint: Option<String>,
}

impl Error {
    /// An error of this kind without a place.
    #[cold]
    pub fn new(kind: ErrorKind) -> Self {
        Self {
            inner: Box::new(Inner { file: None, block: None, item: None, attribute: None, kind, hint: None }),
        }
    }

    /// An error that a row sink wants to stop with; [`Extent::Relation`].
    pub fn from_sink(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(ErrorKind::Sink(source.into()))
    }

    /// Names the file, unless one is named already.
    #[must_use]
    pub fn in_file(mut self, file: &Path) -> Self {
        self.inner.file.get_or_insert_with(|| file.to_path_buf());
        self
    }

    /// Names the block (counted from 0), unless one is named already.
    #[must_use]
    pub fn at_block(mut self, block: u32) -> Self {
        self.inner.block.get_or_insert(block);
        self
    }

    /// Names the line pointer (counted from 1), unless one is named already.
    #[must_use]
    pub fn at_item(mut self, item: u16) -> Self {
        self.inner.item.get_or_insert(item);
        self
    }

    /// Names the attribute, unless one is named already.
    #[must_use]
    pub fn at_attribute(mut self, name: &str) -> Self {
        self.inner.attribute.get_or_insert_with(|| name.to_owned());
        self
    }

    /// Adds advice on what to do, unless there is some already.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.inner.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.inner.kind
    }

    /// The file it is about.
    pub fn file(&self) -> Option<&Path> {
        self.inner.file.as_deref()
    }

    /// The block it is about, counted from 0.
    pub fn block(&self) -> Option<u32> {
        self.inner.block
    }

    /// The line pointer it is about, counted from 1.
    pub fn item(&self) -> Option<u16> {
        self.inner.item
    }

    /// The attribute it is about.
    pub fn attribute(&self) -> Option<&str> {
        self.inner.attribute.as_deref()
    }

    /// What the user can do about it, if something is known to help.
    pub fn hint(&self) -> Option<&str> {
        self.inner.hint.as_deref()
    }

    /// The part of the relation that is unusable because of it.
    pub fn extent(&self) -> Extent {
        match &self.inner.kind {
            // What is lost of the TOAST relation costs this row its value, unless all of it is lost.
            ErrorKind::Detoast { cause, .. } => match cause.extent() {
                Extent::Relation => Extent::Relation,
                Extent::Page | Extent::Tuple => Extent::Tuple,
            },
            ErrorKind::Tuple(_)
            | ErrorKind::Value(_)
            | ErrorKind::Toast(_)
            | ErrorKind::NoToast { .. }
            | ErrorKind::Undecided { .. } => Extent::Tuple,
            ErrorKind::Read(_) | ErrorKind::Page(_) | ErrorKind::Checksum { .. } => Extent::Page,
            ErrorKind::Io { .. }
            | ErrorKind::Shrank(_)
            | ErrorKind::Changed(_)
            | ErrorKind::NotHeap(_)
            | ErrorKind::Columns(_)
            | ErrorKind::Own(_)
            | ErrorKind::Sink(_) => Extent::Relation,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.inner;
        if let Some(file) = &inner.file {
            write!(f, "relation {file:?}: ")?;
        }
        write!(f, "{}", inner.kind)?;
        let mut before = " (";
        if let Some(block) = inner.block {
            write!(f, "{before}block {block}")?;
            before = ", ";
        }
        if let Some(item) = inner.item {
            write!(f, "{before}item {item}")?;
            before = ", ";
        }
        if let Some(attribute) = &inner.attribute {
            write!(f, "{before}attribute {attribute:?}")?;
            before = ", ";
        }
        if before == ", " {
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.inner.kind {
            ErrorKind::Io { source, .. } | ErrorKind::Read(source) => Some(source),
            ErrorKind::Sink(source) => Some(source.as_ref()),
            ErrorKind::Detoast { cause, .. } => Some(cause),
            _ => None,
        }
    }
}

/// Builds the page-, tuple-, value- and TOAST-level errors in one line each.
macro_rules! mismatch {
    ($($name:ident => $kind:ident),*) => {$(
        #[cold]
        pub(crate) fn $name(noun: &'static str, expected: impl fmt::Display, found: impl fmt::Display) -> Error {
            Error::new(ErrorKind::$kind(Mismatch { noun, expected: expected.to_string(), found: found.to_string() }))
        }
    )*};
}

mismatch!(page_error => Page, tuple_error => Tuple, value_error => Value, toast_error => Toast,
    shrank_error => Shrank, changed_error => Changed, own_error => Own);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_names_every_known_place() {
        let error = page_error("line pointer", "lp_off + lp_len <= 8192", 9000)
            .in_file(Path::new("base/5/16384"))
            .at_block(12)
            .at_item(3)
            .at_attribute("seq");
        assert_eq!(
            error.to_string(),
            "relation \"base/5/16384\": line pointer: expected lp_off + lp_len <= 8192, found 9000 \
             (block 12, item 3, attribute \"seq\")"
        );
        assert_eq!(error.extent(), Extent::Page);
        assert_eq!((error.block(), error.item()), (Some(12), Some(3)));
    }

    #[test]
    fn text_leaves_out_what_is_not_known() {
        let error = value_error("pglz data", "an offset", 0);
        assert_eq!(error.to_string(), "pglz data: expected an offset, found 0");
        let error = error.at_attribute("a\nb");
        assert_eq!(error.to_string(), "pglz data: expected an offset, found 0 (attribute \"a\\nb\")");
    }

    #[test]
    fn the_first_place_named_stays() {
        let error = tuple_error("t_hoff", 24, 25).at_block(1).at_block(2);
        assert_eq!(error.block(), Some(1));
    }
}
