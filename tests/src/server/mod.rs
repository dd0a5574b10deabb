//! Starts a throw-away PostgreSQL server and copies the files of its tables.
//!
//! | module | job |
//! |---|---|
//! | here | the server's life: directory, settings, start, stop, crash, statements, backups |
//! | `programs` | finds PostgreSQL's programs, and the user they run as |
//! | `session` | psql sessions that stay open |
//! | `table` | a table's rows, column list, and copies of its files |
//!
//! Promises: the server listens on a Unix socket in its own directory only; it runs as an unprivileged user when the test runs as root
//! (PostgreSQL refuses root); it is stopped and its directory removed when [`Server`] is dropped or the test program ends in any way. A small
//! shell, the guardian, does that: it waits for the end of a pipe whose other end this process alone holds, so a SIGKILL counts too.
//!
//! Does not: keep anything safe. `fsync` is off; nothing here is for real data.
//!
//! Settings that matter for the files: `autovacuum` is off, so rows change only when a test says so; `synchronous_commit` stays on, since a
//! reader sets a hint bit only when the commit record has been flushed.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::unistd::User;
use tempfile::TempDir;

mod programs;
mod session;
mod table;

pub use programs::{bin_dir, bin_dir_of};
pub use session::{HeldSnapshot, Session};
pub use table::{Snapshot, Table, with_suffix};

use crate::head;
use programs::{run_checked, server_user, unprivileged};

/// What [`Server::start_with`] can be told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Give pages checksums (`initdb --data-checksums`).
    pub checksums: bool,
    /// The major version, of those that `tests/servers.sh` fetches; `None`: the server that is installed.
    pub major: Option<u8>,
}

/// A running server with the types `dna2` and `dna4` in its database `postgres`, and the extensions `pageinspect` and `amcheck` if it is the
/// one that is installed.
#[derive(Debug)]
pub struct Server {
    root: PathBuf,
    bin_dir: PathBuf,
    guardian: Child,
    scripts: AtomicU64,
}

const SETTINGS: &str = "
listen_addresses = ''
unix_socket_permissions = 0777
fsync = off
full_page_writes = off
autovacuum = off
synchronous_commit = on
shared_buffers = 64MB
max_wal_size = 2GB
checkpoint_timeout = 1h
checkpoint_completion_target = 0
max_prepared_transactions = 8
max_parallel_workers = 0
jit = off
timezone = 'UTC'
";

const EXTENSIONS: &str = "
CREATE EXTENSION pageinspect;
CREATE EXTENSION amcheck;
";

const DNA_TYPES: &str = "
SET client_min_messages = error;
CREATE TYPE dna2;
CREATE FUNCTION dna2_in(cstring, oid, int4) RETURNS dna2 AS 'varbit_in' LANGUAGE internal IMMUTABLE STRICT;
CREATE FUNCTION dna2_out(dna2) RETURNS cstring AS 'varbit_out' LANGUAGE internal IMMUTABLE STRICT;
CREATE TYPE dna2 (INPUT = dna2_in, OUTPUT = dna2_out, LIKE = varbit);
CREATE TYPE dna4;
CREATE FUNCTION dna4_in(cstring, oid, int4) RETURNS dna4 AS 'varbit_in' LANGUAGE internal IMMUTABLE STRICT;
CREATE FUNCTION dna4_out(dna4) RETURNS cstring AS 'varbit_out' LANGUAGE internal IMMUTABLE STRICT;
CREATE TYPE dna4 (INPUT = dna4_in, OUTPUT = dna4_out, LIKE = varbit);
";

impl Server {
    /// Gives the server that all tests of one test program share; it is started at the first call.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Gives a server with data checksums, shared in the same way.
    pub fn shared_with_checksums() -> &'static Self {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(|| Self::start_with(Options { checksums: true, ..Options::default() }))
    }

    /// Starts a server without data checksums.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(Options::default())
    }

    /// Starts a server.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start; the message carries its log.
    #[must_use]
    pub fn start_with(options: Options) -> Self {
        let bin_dir = options.major.map_or_else(bin_dir, bin_dir_of);
        let user = server_user();
        let root = private_directory(user.as_ref());
        let data = root.join("data");
        let guardian = spawn_guardian(&root, &bin_dir, user.as_ref());
        let server = Self { root, bin_dir, guardian, scripts: AtomicU64::new(0) };
        let mut initdb = unprivileged(&server.program("initdb"), user.as_ref());
        initdb.current_dir(&server.root).arg("-D").arg(&data).args([
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ]);
        if options.checksums {
            initdb.arg("--data-checksums");
        } else if options.major >= Some(18) {
            initdb.arg("--no-data-checksums");
        }
        run_checked(&mut initdb, "initdb");
        let socket = format!("unix_socket_directories = '{}'\n", server.root.display());
        append(&data.join("postgresql.conf"), &(socket + SETTINGS));
        server.pg_ctl("start");
        if options.major.is_none() {
            server.sql(EXTENSIONS);
        }
        server.sql(DNA_TYPES);
        server
    }

    fn program(&self, name: &str) -> PathBuf {
        self.bin_dir.join(name)
    }

    /// Makes a directory that the server may write to, a tablespace for example.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn make_dir(&self, name: &str) -> PathBuf {
        let dir = self.root.join(name);
        fs::create_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        if let Some(user) = server_user() {
            chown(&dir, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("a change of owner");
        }
        dir
    }

    /// Gives the data directory.
    #[must_use]
    pub fn data_directory(&self) -> PathBuf {
        self.root.join("data")
    }

    /// Gives the directory of its socket.
    #[must_use]
    pub fn socket_directory(&self) -> &Path {
        &self.root
    }

    /// Stops the server in order.
    pub fn stop(&self) {
        self.pg_ctl("stop");
    }

    /// Starts the server again.
    pub fn start_again(&self) {
        self.pg_ctl("start");
    }

    /// Stops the server as a crash would: nothing is written out, nothing is said.
    pub fn crash(&self) {
        self.pg_ctl_mode("stop", "immediate");
    }

    fn pg_ctl(&self, action: &str) {
        self.pg_ctl_mode(action, "fast");
    }

    fn pg_ctl_mode(&self, action: &str, mode: &str) {
        let log = self.data_directory().join("server.log");
        let mut command = unprivileged(&self.program("pg_ctl"), server_user().as_ref());
        command
            .current_dir(&self.root)
            .args([action, "-w", "-s", "-m", mode, "-t", "60", "-D"])
            .arg(self.data_directory())
            .arg("-l")
            .arg(&log);
        // The server inherits standard output, so it must not be a pipe that somebody waits on.
        let status = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let log = fs::read_to_string(&log).unwrap_or_default();
        assert!(status.success(), "{command:?}: {status}\n{log}");
    }

    /// Stops the server, runs `work` on its resting files, and starts it again.
    pub fn while_stopped<T>(&self, work: impl FnOnce() -> T) -> T {
        self.stop();
        let result = work();
        self.start_again();
        result
    }

    /// Runs a script with psql, each statement in its own transaction, and gives the rows: one a line, columns separated by `|`.
    ///
    /// # Panics
    /// At the script's first error.
    pub fn sql(&self, script: &str) -> String {
        self.sql_in("postgres", script)
    }

    /// The same in another database.
    ///
    /// # Panics
    /// At the script's first error.
    pub fn sql_in(&self, database: &str, script: &str) -> String {
        let number = self.scripts.fetch_add(1, Ordering::Relaxed);
        let file = self.root.join(format!("script-{number}.sql"));
        fs::write(&file, script).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let mut command = self.psql();
        command.arg("-d").arg(database).arg("-f").arg(&file);
        let rows = run_checked(&mut command, &head(script, 30));
        let _ = fs::remove_file(&file);
        rows
    }

    /// Runs a query of one row and one column.
    ///
    /// # Panics
    /// When the answer is not one line, or not a `T`.
    pub fn value<T: std::str::FromStr>(&self, query: &str) -> T {
        let answer = self.sql(query);
        let answer = answer.strip_suffix('\n').unwrap_or(&answer);
        answer.parse().ok().unwrap_or_else(|| {
            panic!("{query}: expected one value of type {}, found {answer:?}", std::any::type_name::<T>())
        })
    }

    /// Takes a base backup of the running server into a new directory beside its data, and gives that.
    ///
    /// # Panics
    /// When `pg_basebackup` fails.
    #[must_use]
    pub fn base_backup(&self, name: &str) -> PathBuf {
        let backup = self.make_dir(name);
        let mut command = unprivileged(&self.program("pg_basebackup"), server_user().as_ref());
        command.current_dir(&self.root).args(["-U", "postgres", "-c", "fast", "-h"]).arg(&self.root);
        run_checked(command.arg("-D").arg(&backup), "pg_basebackup");
        backup
    }

    /// Runs a check program of the server (`pg_checksums`, ...) on the data directory of a stopped server.
    ///
    /// # Panics
    /// When it exits with an error.
    pub fn check_program(&self, name: &str, args: &[&str]) -> String {
        let mut command = unprivileged(&self.program(name), server_user().as_ref());
        command.current_dir(&self.root).args(args).arg("-D");
        run_checked(command.arg(self.data_directory()), name)
    }

    /// Opens a transaction that needs every row there is now, so that nothing dead from then on is pruned or vacuumed until the guard is
    /// dropped.
    ///
    /// # Panics
    /// When the session does not answer.
    #[must_use]
    pub fn hold_snapshot(&self) -> HeldSnapshot {
        let mut session = self.session();
        session.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 'snapshot';");
        HeldSnapshot { _session: session }
    }

    fn psql(&self) -> Command {
        // Those of other versions come without it.
        let mut command = Command::new(bin_dir().join("psql"));
        command
            .args(["-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-U", "postgres"])
            .arg("-h")
            .arg(&self.root)
            .env("PGDATABASE", "postgres")
            .env_remove("PGOPTIONS");
        command
    }

    /// Says how to connect to the server's database `postgres` as `user`, as a connection string.
    #[must_use]
    pub fn conninfo(&self, user: &str) -> String {
        format!("host={} user={user} dbname=postgres", self.root.display())
    }

    /// Starts a psql session that reads statements from a pipe.
    ///
    /// # Panics
    /// When psql does not start.
    #[must_use]
    pub fn session(&self) -> Session {
        let child = self.psql().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("psql");
        Session { child }
    }

    /// Starts `pgbench` with these arguments on the database `postgres`; its output is collected.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn pgbench(&self, script: &str, args: &[&str]) -> Child {
        let number = self.scripts.fetch_add(1, Ordering::Relaxed);
        let file = self.root.join(format!("bench-{number}.sql"));
        fs::write(&file, script).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        Command::new(self.program("pgbench"))
            .args(["-n", "-U", "postgres", "-h"])
            .arg(&self.root)
            .arg("-f")
            .arg(&file)
            .args(args)
            .arg("postgres")
            .current_dir(&self.root)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("pgbench")
    }

    /// Names a table of this server.
    pub fn table(&self, name: &str) -> Table<'_> {
        Table { server: self, name: name.to_owned() }
    }

    /// Makes a directory that goes with the server at the latest.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn temp_dir(&self) -> TempDir {
        tempfile::Builder::new().prefix("t").tempdir_in(&self.root).expect("a directory in the server's own")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.guardian.stdin.take());
        let _ = self.guardian.wait();
    }
}

fn private_directory(user: Option<&User>) -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    // Short, since the path of a socket has 107 bytes at most.
    let root = PathBuf::from(format!("/tmp/kt-{}-{number}", std::process::id()));
    fs::DirBuilder::new()
        .mode(0o755)
        .create(&root)
        .unwrap_or_else(|error| panic!("{}: {error}", root.display()));
    if let Some(user) = user {
        chown(&root, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
            .unwrap_or_else(|error| panic!("{}: {error}", root.display()));
    }
    root
}

/// Starts the shell that cleans up when the pipe to it ends. It has a process group of its own, so that Ctrl-C at the terminal spares it.
fn spawn_guardian(root: &Path, bin_dir: &Path, user: Option<&User>) -> Child {
    const SCRIPT: &str = r#"root=$1; shift
cat >/dev/null
"$@" stop -w -s -m immediate -t 30 -D "$root/data"
rm -rf "$root""#;
    let pg_ctl = unprivileged(&bin_dir.join("pg_ctl"), user);
    Command::new("sh")
        .args(["-c", SCRIPT, "guardian"])
        .arg(root)
        .arg(pg_ctl.get_program())
        .args(pg_ctl.get_args())
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh")
}

fn append(file: &Path, text: &str) {
    let old = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    fs::write(file, old + text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}
