//! Opens a data directory, sees whether it is at rest, and finds its databases.

use std::path::{Path, PathBuf};

use super::control::{Control, State};
use super::error::{Error, Result, Unrest};
use super::filenode_map::FilenodeMap;
use super::major::{Catalog, Major};
use super::scan::Scan;
use crate::visibility::Oracle;
use crate::xact::PgXact;

/// The tablespaces that every server has (`pg_tablespace.dat`).
const PG_DEFAULT: u32 = 1663;
const PG_GLOBAL: u32 = 1664;

/// A data directory.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    /// The server's major version.
    pub major: Major,
    /// What `pg_control` says.
    pub control: Control,
    /// Why its files may not be read as they are; `None` when the server was shut down.
    pub unrest: Option<Unrest>,
    oracle: PgXact,
}

/// A database of a data directory.
#[derive(Debug, Clone)]
pub struct Database {
    /// Its oid.
    pub oid: u32,
    /// Its name.
    pub name: String,
    pub(super) tablespace: u32,
}

impl DataDirectory {
    /// Opens a data directory, at rest or not.
    ///
    /// # Errors
    /// When it is none, is of another version or build, or its `pg_control` is damaged.
    pub fn open(path: &Path) -> Result<Self> {
        // The working directory may change, and workers get the path.
        let path = std::path::absolute(path).map_err(|e| Error::io("cannot find", path, e))?;
        let major = Major::read(&path)?;
        let control = Control::read(&path, major)?;
        let unrest = unrest(&path, control.state);
        let oracle = PgXact::open(&path)?;
        let oracle = if unrest.is_none() {
            oracle.until(control.next_xid)
        } else {
            oracle.open_from(control.next_xid)
        };
        Ok(Self { path, major, control, unrest, oracle })
    }

    /// Its path, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses a directory whose server is not at rest.
    ///
    /// # Errors
    /// [`Error::Unrest`].
    pub fn require_rest(&self) -> Result<()> {
        match &self.unrest {
            None => Ok(()),
            Some(unrest) => Err(Error::Unrest { path: self.path.clone(), unrest: unrest.clone() }),
        }
    }

    pub(super) fn scan(&self, verify_checksums: bool) -> Scan<'_> {
        Scan {
            major: self.major,
            segment_blocks: self.control.segment_blocks,
            verify_checksums,
            oracle: &self.oracle,
        }
    }

    /// Who knows the transactions of this directory.
    pub fn oracle(&self) -> &dyn Oracle {
        &self.oracle
    }

    /// Finds a database by its name.
    ///
    /// # Errors
    /// When there is none of that name; the hint lists those there are.
    pub fn database(&self, name: &str, verify_checksums: bool) -> Result<Database> {
        let global = self.path.join("global");
        let file = FilenodeMap::read(&global, self.major)?.get(Catalog::Database.oid())?;
        let mut all = Vec::new();
        let columns = ["oid", "datname", "dattablespace", "datconnlimit"];
        self.scan(verify_checksums).rows(
            Catalog::Database,
            &global.join(file.to_string()),
            columns,
            |[oid, name, space, limit]| {
                let database = Database { oid: oid.oid()?, name: name.name()?, tablespace: space.oid()? };
                all.push((database, limit.int4()?));
                Ok(())
            },
        )?;
        match all.iter().find(|(database, _)| database.name == name) {
            // DATCONNLIMIT_INVALID_DB
            Some((_, -2)) => Err(Error::not_readable(
                format!("database {name:?}: dropping it was interrupted"),
                Some("drop it again with the server"),
            )),
            Some((database, _)) => Ok(database.clone()),
            None => {
                let mut names: Vec<_> =
                    all.iter().map(|(database, _)| format!("{:?}", database.name)).collect();
                names.sort();
                let hint = Some(format!("the databases are {}", names.join(", ")));
                Err(Error::NotFound { text: format!("database {name:?} does not exist"), hint })
            }
        }
    }

    /// The directory in which a tablespace keeps a database's files.
    pub(super) fn tablespace_dir(&self, database: &Database, tablespace: u32) -> PathBuf {
        match if tablespace == 0 { database.tablespace } else { tablespace } {
            PG_DEFAULT => self.path.join("base").join(database.oid.to_string()),
            PG_GLOBAL => self.path.join("global"),
            other => {
                let version = format!("PG_{}_{}", self.major.number(), self.major.catalog_version());
                self.path
                    .join("pg_tblspc")
                    .join(other.to_string())
                    .join(version)
                    .join(database.oid.to_string())
            }
        }
    }
}

/// Why the files may not be read as they are.
fn unrest(pgdata: &Path, state: State) -> Option<Unrest> {
    if let Some(pid) = postmaster(pgdata) {
        return Some(Unrest::Running(pid));
    }
    if pgdata.join("backup_label").exists() {
        return Some(Unrest::BaseBackup);
    }
    match state {
        State::ShutDown => None,
        // What it replayed since its last restart point may be in its WAL alone.
        State::ShutDownInRecovery => Some(Unrest::Standby),
        other => Some(Unrest::Crashed { state: other.words() }),
    }
}

/// The process of the server that is at work on a data directory: the one in `postmaster.pid`, if it lives and works in that directory.
/// Whether another user's process does cannot be seen; then its being alive counts.
fn postmaster(pgdata: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(pgdata.join("postmaster.pid")).ok()?;
    // A stand-alone backend's is negative.
    let pid = text.lines().next()?.trim().trim_start_matches('-').parse().ok()?;
    let process = PathBuf::from(format!("/proc/{pid}"));
    if !process.exists() {
        return None;
    }
    match (std::fs::canonicalize(process.join("cwd")), std::fs::canonicalize(pgdata)) {
        (Ok(works_in), Ok(pgdata)) if works_in != pgdata => None,
        _ => Some(pid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_running_if_its_process_works_in_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let write = |text: &str| std::fs::write(dir.path().join("postmaster.pid"), text).unwrap();
        let running = || unrest(dir.path(), State::InProduction);
        let crashed = Some(Unrest::Crashed { state: "was in production" });
        assert_eq!(running(), crashed);
        for stale in ["", "no number\n", "4194304000\n", "999999999\n/data\n"] {
            write(stale);
            assert_eq!(running(), crashed, "{stale:?}");
        }
        // Alive, but somewhere else: the number was given to another process.
        write(&format!("{}\n", std::process::id()));
        assert_eq!(running(), crashed);
        let mut child =
            std::process::Command::new("sleep").arg("60").current_dir(dir.path()).spawn().unwrap();
        write(&format!("{}\n/data\n", child.id()));
        assert_eq!(running(), Some(Unrest::Running(child.id())));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(running(), crashed);
        assert_eq!(unrest(dir.path(), State::ShutDown), None);
        assert_eq!(unrest(dir.path(), State::ShutDownInRecovery), Some(Unrest::Standby));
        std::fs::write(dir.path().join("backup_label"), "").unwrap();
        assert_eq!(unrest(dir.path(), State::ShutDown), Some(Unrest::BaseBackup));
        assert_eq!(running(), Some(Unrest::BaseBackup));
    }
}
