//! Makes a [`Source`] of a table in a data directory whose server does not run.
//!
//! The table is found in the catalogs by [`relation::catalog`]; its rows are judged by the transaction logs, as of the moment the server was shut
//! down: what had committed counts, what was in progress, rolled back or only prepared does not.
//!
//! Promise: a directory that is not at rest is refused, and named for what it is, unless `--force` is given; then a warning says so.

use crate::cli::AnalysisArgs;
use crate::failure::Failure;
use crate::source::{Leaves, NewLeaf, Source, TableName};
use clap::{Args, ValueEnum};
use kmer_worker::job::{Snapshot, Transactions};
use relation::catalog::name::{SEARCH_PATH, TableName as Name};
use relation::catalog::table::Wanted;
use relation::catalog::{self, DataDirectory, Table, Unrest};
use relation::visibility::Oracle;
use relation::{DnaType, ReadOptions};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a bit string column holds bases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TypeArg {
    /// 2 bits a base
    Dna2,
    /// 4 bits a base
    Dna4,
}

/// Options about data directories.
#[derive(Clone, Debug, Default, Args)]
pub struct PgdataArgs {
    /// Data directory of a server that does not run: read the table's files there
    #[arg(short = 'D', long, value_name = "DIR", requires_all = ["dbname", "table"], help_heading = "The database")]
    #[arg(conflicts_with_all = ["relations", "schema", "toast", "host", "port", "username"])]
    pub pgdata: Option<PathBuf>,
    /// How the table's column of type bit varying holds bases [default: dna2]
    #[arg(long = "type", value_enum, value_name = "TYPE", requires = "table", help_heading = "The database")]
    pub dna_type: Option<TypeArg>,
    /// With --pgdata: read the files as they are, though the server runs, crashed, or the directory is a backup that was not recovered
    #[arg(long, requires = "pgdata", help_heading = "The database")]
    pub force: bool,
}

/// A data directory whose server must not run until everything is read.
#[derive(Clone, Debug)]
pub struct AtRest {
    path: PathBuf,
    stamp: u32,
}

impl AtRest {
    fn of(directory: &DataDirectory) -> Self {
        Self { path: directory.path().to_path_buf(), stamp: directory.control.stamp }
    }

    /// Looks whether it has rested since: a server that starts changes what is committed without a change to the table's files.
    ///
    /// # Errors
    /// When it has not.
    pub fn check(&self) -> Result<(), Failure> {
        let now = DataDirectory::open(&self.path)?;
        let found = match &now.unrest {
            Some(unrest) => unrest.to_string(),
            None if now.control.stamp != self.stamp => "its server was started meanwhile".into(),
            None => return Ok(()),
        };
        let text =
            format!("data directory {:?}: expected it at rest until the end, found that {found}", self.path);
        Err(Failure::error(text).hint(
            "run it again while the server is stopped, or count the table of the running server: without -D",
        ))
    }
}

/// The source of a table in the data directory `pgdata`, in database `dbname`.
///
/// # Errors
/// When the directory is not at rest or damaged, or the table is not there or none that can be read.
pub fn open(
    pgdata: &Path,
    dbname: &str,
    table: &str,
    args: &AnalysisArgs,
    options: &ReadOptions,
) -> Result<Source, Failure> {
    let name = Name::parse(table).map_err(|what| {
        Failure::usage(format!("--table: {what}, found {table:?}")).hint(format!(
            "write it as [SCHEMA.]TABLE, or as an oid; without a schema it is looked for in {SEARCH_PATH:?}"
        ))
    })?;
    let directory = DataDirectory::open(pgdata)?;
    if !args.pgdata.force {
        directory.require_rest()?;
    }
    let verify_checksums = !args.no_checksums && (args.checksums || directory.control.checksums);
    let wanted = Wanted {
        table: &name,
        column: args.column.as_deref(),
        varbit_as: args.pgdata.dna_type.map(TypeArg::dna_type),
        verify_checksums,
    };
    let database = directory.database(dbname, verify_checksums)?;
    let table = directory.table(&database, &wanted)?;
    source(&directory, table, &ReadOptions { verify_checksums, ..*options })
}

impl TypeArg {
    /// The type.
    pub fn dna_type(self) -> DnaType {
        match self {
            Self::Dna2 => DnaType::Dna2,
            Self::Dna4 => DnaType::Dna4,
        }
    }
}

fn source(directory: &DataDirectory, table: Table, options: &ReadOptions) -> Result<Source, Failure> {
    let (next_xid, control) = (directory.control.next_xid, directory.control.stamp);
    let snapshot = match directory.unrest {
        None => Snapshot::ShutDown { next_xid, control },
        Some(_) => Snapshot::Open { next_xid },
    };
    let data_directory = directory.path().as_os_str().as_bytes().to_vec();
    let transactions = Transactions { data_directory, snapshot };
    let oracle: Arc<dyn Oracle> = Arc::new(transactions.open()?);
    let mut leaves = Leaves::new(directory.control.segment_blocks);
    match directory.unrest {
        Some(Unrest::Running(_)) => leaves = leaves.beside_server(0),
        Some(_) => {}
        None => leaves = leaves.at_rest(AtRest::of(directory)),
    }
    for leaf in &table.leaves {
        let toast = leaf.toast.as_deref();
        let new = NewLeaf { path: &leaf.path, desc: &leaf.desc, column: leaf.column, toast };
        leaves.add(&new, options, Some(&oracle)).map_err(|e| with_hint(e, &leaf.path))?;
    }
    let warning = directory.unrest.as_ref().map(|unrest| {
        format!("data directory {:?}: {unrest}; its files are read as they are (--force)", directory.path())
    });
    Ok(Source {
        leaves,
        transactions: Some(transactions),
        stream: None,
        long_rows: false,
        column: table.column,
        dna: table.dna,
        verify_checksums: options.verify_checksums,
        table: Some(TableName {
            oid: table.oid,
            schema: table.schema,
            name: table.name,
            attnum: table.attnum,
        }),
        warnings: warning.into_iter().collect(),
    })
}

/// A file that is not there may lie where a copy of the directory alone does not reach.
fn with_hint(failure: Failure, path: &Path) -> Failure {
    if path.exists() || !path.components().any(|part| part.as_os_str() == "pg_tblspc") {
        return failure;
    }
    failure.hint("the table is in a tablespace: the symbolic links in pg_tblspc must lead to its files, or to a copy of them")
}

impl From<catalog::Error> for Failure {
    fn from(e: catalog::Error) -> Self {
        let failure = Self::error(&e);
        match e.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
