//! Reads a table of a running server: its files from the disk, everything else from the server.
//!
//! ```text
//! connect -> where are the files? -> BEGIN -> LOCK TABLE ... IN SHARE MODE -> CHECKPOINT
//! -> files of the table, columns -> read -> still there? -> write back -> COMMIT
//! ```
//!
//! The lock keeps every row as it is until the last byte was read: whoever wants to change rows, or the file (VACUUM FULL, TRUNCATE, CLUSTER),
//! waits. Everything that committed before the lock is counted and nothing else, since a transaction that was still in progress then held no
//! lock that conflicts with it, so had not written into the table. After the checkpoint the files and `pg_xact` hold all of that.
//!
//! * [`args`]: options; [`conninfo`]: from them and the environment to a connection; [`pgpass`]: passwords;
//! * [`session`]: statements that a signal interrupts; [`errors`]: what the server says, and hints;
//! * [`table`]: the table, its column, its partitions; [`files`]: where they lie, and that they are this server's;
//! * [`save`]: writes the result back; [`undo`]: `kmer-leader undo`.
//!
//! Threads: the client library runs everything on the thread that calls it. [`session`] starts one for a statement that may take long, and it has
//! ended before the call returns. One that connects, or asks the server to cancel something, may stay behind when the server does not answer. Looking up a host name may leave a sleeping thread of the library behind; workers are started by exec
//! (`std::process::Command`), so it does not matter to them.

pub mod args;
pub mod conninfo;
pub mod errors;
pub mod files;
pub mod pgpass;
pub mod save;
pub mod session;
pub mod table;
pub mod undo;

use crate::failure::Failure;
use crate::signals::Signals;
use crate::source::{Source, TableName};
use args::DatabaseArgs;
use nix::sys::signal::Signal;
use relation::{DnaType, Unhinted};
use session::Session;
use table::Table;

/// A transaction that holds the lock.
pub struct Live {
    session: Session,
    table: TableName,
    /// The table's name as SQL has it.
    quoted: String,
    column: String,
}

/// What is asked of the server.
pub struct Request<'a> {
    /// Which server, which table.
    pub database: &'a DatabaseArgs,
    /// The column, by name or attnum.
    pub column: Option<&'a str>,
    /// How a column of type `bit varying` holds bases; 2 bits a base if it is not said.
    pub varbit_as: Option<DnaType>,
    /// `--no-checksums`.
    pub no_checksums: bool,
    /// What to do with rows whose state is not known.
    pub unhinted: Unhinted,
}

impl Live {
    /// Locks the table, has the server write it out, and finds its files.
    ///
    /// # Errors
    /// What the server says, or what is wrong with the files; with a hint where there is one.
    pub fn begin(
        request: &Request<'_>,
        signals: &Signals,
        say: &mut dyn FnMut(&str),
    ) -> Result<(Self, Source), Failure> {
        let database = request.database;
        let name = database
            .table
            .as_deref()
            .ok_or_else(|| Failure::usage("--table: expected the table to be counted, found none"))?;
        let mut session = Session::open(database, signals)?;
        session.check_server()?;
        // Before anybody waits for our lock.
        let directory = files::directory(&mut session)?;
        session.begin(database.lock_wait_timeout.as_deref())?;
        let table = Table::find(&mut session, name)?;
        table.lock(&mut session, signals, say)?;
        let column = table.column(&mut session, request)?;
        let lsn: i64 = session
            .value("ask for the log's position", "SELECT (pg_current_wal_insert_lsn() - '0/0')::int8")?;
        session.run("write out the table's pages", signals, |client| client.batch_execute("CHECKPOINT"))?;
        let locked = files::Locked { directory, table: &table, column: &column, lsn: lsn.unsigned_abs() };
        let source = files::source(&mut session, locked, request, say)?;
        let name = TableName { attnum: column.attnum, ..table.name.clone() };
        session.idle = false;
        Ok((Self { session, table: name, quoted: table.quoted, column: column.name }, source))
    }

    /// Makes sure that the lock was held until now.
    ///
    /// # Errors
    /// When the connection was lost.
    pub fn still_held(&mut self) -> Result<(), Failure> {
        self.session.still_held()
    }

    /// Ends the transaction. Gives the signal that came meanwhile, if one did.
    ///
    /// # Errors
    /// When the server does not.
    pub fn commit(mut self, signals: &Signals) -> Result<Option<Signal>, Failure> {
        self.session.commit(signals)
    }
}
