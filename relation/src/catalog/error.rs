//! Says why a table of a data directory cannot be read, and what would help.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use super::major::Catalog;
use crate::error::Mismatch;

/// The common result of this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What is wrong with a data directory, or with what was asked of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file of a catalog is damaged or cannot be read.
    #[error("catalog {catalog}: {error}")]
    InCatalog {
        /// Which.
        catalog: &'static str,
        /// What is wrong.
        error: crate::Error,
    },
    /// A column list of our own, or a column's default, cannot be understood.
    #[error("{0}")]
    Relation(#[from] crate::Error),
    /// A file or directory cannot be read.
    #[error("{action} {path:?}: {source}")]
    Io {
        /// What was tried, for example "cannot open".
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A file that is no relation is damaged, or of a server that is not supported.
    #[error("file {path:?}: {mismatch}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        mismatch: Mismatch,
    },
    /// The data directory is not at rest.
    #[error("data directory {path:?}: {unrest}")]
    Unrest {
        /// Which.
        path: PathBuf,
        /// Why.
        unrest: Unrest,
    },
    /// Catalogs contradict each other.
    #[error("catalog {catalog}: {mismatch}")]
    Catalog {
        /// Which.
        catalog: &'static str,
        /// How.
        mismatch: Mismatch,
    },
    /// There is no database, table or column of that name.
    #[error("{text}")]
    NotFound {
        /// What there is not.
        text: String,
        /// What may have been meant.
        hint: Option<String>,
    },
    /// The table is there and cannot be read as one.
    #[error("{text}")]
    NotReadable {
        /// Which, and why.
        text: String,
        /// What may help.
        hint: Option<&'static str>,
    },
}

/// Why the files of a data directory may not be read as they are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unrest {
    /// A server is at work on it.
    #[error("its server is running (process {0})")]
    Running(u32),
    /// A base backup on which no server was started yet.
    #[error(
        "expected a server that was shut down, found a base backup that was never recovered (it has a backup_label)"
    )]
    BaseBackup,
    /// There is no server, and it did not say goodbye.
    #[error(
        "expected a server that was shut down, found one that {state} and has no process: it crashed, or runs elsewhere"
    )]
    Crashed {
        /// What `pg_control` says.
        state: &'static str,
    },
    /// A standby: its last changes may be in the WAL alone.
    #[error("expected a server that was shut down, found a standby that was")]
    Standby,
}

impl Unrest {
    const fn hint(&self) -> &'static str {
        match self {
            Self::Running(_) => {
                "leave -D away to read beside the running server: kmer-leader -d \"dbname=...\" -t TABLE; or stop it; \
                 or read its files as they happen to be with --force"
            }
            Self::BaseBackup => {
                "start a server on a copy of it and stop it, so that it is recovered; or read the files as they are with --force"
            }
            Self::Crashed { .. } => {
                "start the server and stop it, so that it recovers; or read the files as the crash left them with --force"
            }
            Self::Standby => {
                "promote it, or read from its primary; or read the files as of its last restart point with --force"
            }
        }
    }
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_path_buf(), source }
    }

    pub(crate) fn file(path: &Path, noun: &'static str, expected: impl Display, found: impl Display) -> Self {
        Self::File { path: path.to_path_buf(), mismatch: mismatch(noun, expected, found) }
    }

    pub(crate) fn catalog(
        catalog: Catalog,
        noun: &'static str,
        expected: impl Display,
        found: impl Display,
    ) -> Self {
        Self::Catalog { catalog: catalog.name(), mismatch: mismatch(noun, expected, found) }
    }

    pub(crate) fn in_catalog(catalog: Catalog, error: crate::Error) -> Self {
        Self::InCatalog { catalog: catalog.name(), error }
    }

    pub(crate) fn not_readable(text: impl Into<String>, hint: Option<&'static str>) -> Self {
        Self::NotReadable { text: text.into(), hint }
    }

    /// What the user can do about it, if something is known to help.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Relation(error) | Self::InCatalog { error, .. } => error.hint(),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("run as the user that the server runs as, mostly postgres")
            }
            Self::Io { .. } | Self::Catalog { .. } => None,
            Self::File { mismatch, .. } => match mismatch.noun {
                PG_VERSION => Some(
                    "versions 13 to 18 can be read; the directory is the one that holds PG_VERSION and base",
                ),
                _ => None,
            },
            Self::Unrest { unrest, .. } => Some(unrest.hint()),
            Self::NotFound { hint, .. } => hint.as_deref(),
            Self::NotReadable { hint, .. } => *hint,
        }
    }
}

/// The noun of errors about the version of a data directory.
pub(crate) const PG_VERSION: &str = "server version";

fn mismatch(noun: &'static str, expected: impl Display, found: impl Display) -> Mismatch {
    Mismatch { noun, expected: expected.to_string(), found: found.to_string() }
}
