//! Options that name a server, a table and what to do with the result there.

use clap::Args;

/// Which database.
#[derive(Clone, Debug, Default, Args)]
pub struct ConnectArgs {
    /// Database: a name, a connection string like 'host=... dbname=...', or a URI [default: PGDATABASE, else the user's name]
    #[arg(short = 'd', long, value_name = "DBNAME", help_heading = "The database")]
    pub dbname: Option<String>,
    /// Host of the server, or directory of its Unix socket [default: PGHOST, else the local socket]
    #[arg(short = 'h', long, value_name = "HOST", help_heading = "The database")]
    pub host: Option<String>,
    /// Port of the server [default: PGPORT, else 5432]
    #[arg(short = 'p', long, value_name = "PORT", help_heading = "The database")]
    pub port: Option<u16>,
    /// User to connect as [default: PGUSER, else the system's user name]
    #[arg(short = 'U', long, value_name = "NAME", help_heading = "The database")]
    pub username: Option<String>,
}

/// Which table, and what to do there.
#[derive(Clone, Debug, Default, Args)]
pub struct DatabaseArgs {
    /// The server.
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// Table to count, as [SCHEMA.]NAME or by its OID
    #[arg(short = 't', long, value_name = "TABLE", help_heading = "The database")]
    #[arg(conflicts_with_all = ["relations", "schema", "toast"])]
    pub table: Option<String>,
    /// Give up when the table cannot be locked in this time, like 5s or 500 (ms) [default: wait]
    #[arg(
        long,
        value_name = "TIME",
        requires = "table",
        conflicts_with = "pgdata",
        help_heading = "The database"
    )]
    pub lock_wait_timeout: Option<String>,
    /// Write the result into kmersearch_highfreq_kmer and kmersearch_highfreq_kmer_meta, instead of standard output
    #[arg(long, requires = "table", help_heading = "The database")]
    #[arg(conflicts_with_all = ["all", "min_rows", "max_rows", "top", "count_only", "pgdata"])]
    pub save: bool,
    /// With --save or --pin: replace what is there of an earlier analysis
    #[arg(long, help_heading = "The database")]
    pub replace: bool,
}

impl ConnectArgs {
    /// Whether any of the options was given.
    pub fn given(&self) -> bool {
        self.dbname.is_some() || self.host.is_some() || self.port.is_some() || self.username.is_some()
    }
}
