//! Starts a throw-away PostgreSQL server and copies the files of its tables.
//!
//! Promises: the server listens on a Unix socket in its own directory only; it runs as an unprivileged user when the test runs as root
//! (PostgreSQL refuses root); it is stopped and its directory removed when [`Server`] is dropped or the test program ends in any way. A small
//! shell, the guardian, does that: it waits for the end of a pipe whose other end this process alone holds, so a SIGKILL counts too.
//!
//! Does not: keep anything safe. `fsync` is off; nothing here is for real data.
//!
//! Settings that matter for the files: `autovacuum` is off, so rows change only when a test says so; `synchronous_commit` stays on, since a
//! reader sets a hint bit only when the commit record has been flushed.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::unistd::{Uid, User};
use tempfile::TempDir;

use crate::head;

/// What [`Server::start_with`] can be told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Give pages checksums (`initdb --data-checksums`).
    pub checksums: bool,
}

/// A running server with the extensions `pageinspect` and `amcheck` and the types `dna2` and `dna4` in its database `postgres`.
#[derive(Debug)]
pub struct Server {
    root: PathBuf,
    bin_dir: PathBuf,
    guardian: Child,
    scripts: AtomicU64,
}

/// Gives the directory of PostgreSQL's server programs: the one of `initdb` on PATH, else the newest below `/usr/lib/postgresql`.
///
/// # Panics
/// When there is none; the message says how to install it.
#[must_use]
pub fn bin_dir() -> PathBuf {
    let on_path = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let mut debian: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|dirs| dirs.flatten().map(|dir| dir.path()).collect())
        .unwrap_or_default();
    debian.sort_by_key(|dir| {
        let major = dir.file_name().and_then(OsStr::to_str);
        std::cmp::Reverse(major.and_then(|name| name.parse::<u32>().ok()))
    });
    on_path
        .chain(debian.into_iter().map(|dir| dir.join("bin")))
        .find(|dir| {
            ["initdb", "pg_ctl", "psql"]
                .iter()
                .all(|name| dir.join(name).exists())
        })
        .expect("PostgreSQL's initdb, pg_ctl and psql are neither on PATH nor in /usr/lib/postgresql/*/bin; install them with tests/install.sh")
}

/// Makes a command that runs as a user PostgreSQL accepts: ourselves, or `postgres` or `nobody` when we are root.
fn unprivileged(program: &Path, user: Option<&User>) -> Command {
    let Some(user) = user else {
        return Command::new(program);
    };
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={}", user.uid))
        .arg(format!("--regid={}", user.gid))
        .arg("--clear-groups")
        .arg(program);
    command
}

fn server_user() -> Option<User> {
    if !Uid::effective().is_root() {
        return None;
    }
    let found = ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten());
    Some(found.expect("root needs a user \"postgres\" or \"nobody\" to start PostgreSQL as"))
}

fn run_checked(command: &mut Command, what: &str) -> String {
    let output =
        command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{what}: {command:?}: {error}"));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{what}: {command:?}: {}\nstdout:\n{}stderr:\n{}",
        output.status,
        head(&stdout, 40),
        head(&stderr, 40)
    );
    stdout
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
max_parallel_workers = 0
jit = off
timezone = 'UTC'
";

const DNA_TYPES: &str = "
CREATE EXTENSION pageinspect;
CREATE EXTENSION amcheck;
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
        SHARED.get_or_init(|| Self::start_with(Options { checksums: true }))
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
        let bin_dir = bin_dir();
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
        }
        run_checked(&mut initdb, "initdb");
        let socket = format!("unix_socket_directories = '{}'\n", server.root.display());
        append(&data.join("postgresql.conf"), &(socket + SETTINGS));
        server.pg_ctl("start");
        server.sql(DNA_TYPES);
        server
    }

    fn program(&self, name: &str) -> PathBuf {
        self.bin_dir.join(name)
    }

    /// Gives the data directory.
    #[must_use]
    pub fn data_directory(&self) -> PathBuf {
        self.root.join("data")
    }

    fn pg_ctl(&self, action: &str) {
        let log = self.data_directory().join("server.log");
        let mut command = unprivileged(&self.program("pg_ctl"), server_user().as_ref());
        command
            .current_dir(&self.root)
            .args([action, "-w", "-s", "-m", "fast", "-t", "60", "-D"])
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
        self.pg_ctl("stop");
        let result = work();
        self.pg_ctl("start");
        result
    }

    /// Runs a script with psql, each statement in its own transaction, and gives the rows: one a line, columns separated by `|`.
    ///
    /// # Panics
    /// At the script's first error.
    pub fn sql(&self, script: &str) -> String {
        let number = self.scripts.fetch_add(1, Ordering::Relaxed);
        let file = self.root.join(format!("script-{number}.sql"));
        fs::write(&file, script).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let mut command = self.psql();
        command.arg("-f").arg(&file);
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
        let mut session = self.psql().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("psql");
        let mut answer = String::new();
        let input = session.stdin.as_mut().expect("its standard input");
        input
            .write_all(b"BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 'held';\n")
            .expect("a session that listens");
        let output = session.stdout.as_mut().expect("its standard output");
        let read = BufReader::new(output).read_line(&mut answer);
        assert!(read.is_ok() && answer == "held\n", "the session said {answer:?}");
        HeldSnapshot { session }
    }

    fn psql(&self) -> Command {
        let mut command = Command::new(self.program("psql"));
        command
            .args(["-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-U", "postgres"])
            .args(["-d", "postgres", "-h"])
            .arg(&self.root)
            .env_remove("PGOPTIONS");
        command
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

/// Keeps dead rows in place until it is dropped; see [`Server::hold_snapshot`].
#[derive(Debug)]
pub struct HeldSnapshot {
    session: Child,
}

impl Drop for HeldSnapshot {
    fn drop(&mut self) {
        drop(self.session.stdin.take());
        let _ = self.session.wait();
    }
}

/// A table by its name.
#[derive(Debug)]
pub struct Table<'s> {
    server: &'s Server,
    name: String,
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
