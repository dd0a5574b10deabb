//! A connection and its one transaction.

use super::args::DatabaseArgs;
use super::conninfo::{config, environment, hosts};
use super::errors::{failed, not_connected};
use crate::failure::Failure;
use crate::signals::Signals;
use nix::sys::signal::Signal;
use postgres::types::{FromSql, ToSql};
use postgres::{Client, NoTls, SimpleQueryMessage};
use std::time::{Duration, Instant};

/// Versions that are read, by major number.
pub const MAJORS: std::ops::RangeInclusive<i32> = 13..=18;
/// How often a signal is looked for while a statement runs.
const LOOK: Duration = Duration::from_millis(20);

/// A connection.
pub struct Session {
    client: Client,
    /// The server's major version.
    pub major: i32,
    /// The user's `search_path`.
    path: String,
}

/// The `search_path` of our own statements.
const SYSTEM: &str = "pg_catalog, pg_temp";

impl Session {
    /// Connects.
    ///
    /// # Errors
    /// When there is no server, or it does not let us in.
    pub fn open(args: &DatabaseArgs, signals: &Signals) -> Result<Self, Failure> {
        Self::connect(&args.connect, signals)
    }

    /// Connects.
    ///
    /// # Errors
    /// When there is no server, or it does not let us in.
    pub fn connect(args: &super::args::ConnectArgs, signals: &Signals) -> Result<Self, Failure> {
        let config = config(args, &environment)?;
        let hosts = hosts(&config);
        let connected = watch(signals, || {}, &mut |_| {}, move || config.connect(NoTls))?;
        let client = connected.map_err(|e| not_connected(&hosts, &e))?;
        let mut session = Self { client, major: 0, path: String::new() };
        session.close_path()?;
        let number: i32 = session
            .value("ask for the server's version", "SELECT current_setting('server_version_num')::int4")?;
        session.major = number / 10_000;
        Ok(session)
    }

    /// Lets names in our statements stand for the system's objects alone, whatever `search_path` says: who may make a function in a schema of it could
    /// have it run with the rights of our user. The user's path is kept for [`Session::resolve`]. Until then no function is called.
    fn close_path(&mut self) -> Result<(), Failure> {
        let action = "ask for search_path";
        let shown = self.client.simple_query("SHOW search_path").map_err(|e| failed(action, &e))?;
        let path = shown.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        self.path = path.unwrap_or_default().into();
        self.set_path(SYSTEM).map_err(|e| failed("set search_path", &e))
    }

    fn set_path(&mut self, path: &str) -> Result<(), postgres::Error> {
        let statement = "SELECT pg_catalog.set_config('search_path', $1, false)";
        self.client.execute(statement, &[&path]).map(|_| ())
    }

    /// What one query gives under the user's `search_path`. Every name in it must be qualified.
    fn under_path<T>(
        &mut self,
        query: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<T>, postgres::Error>
    where
        T: for<'a> FromSql<'a>,
    {
        let path = self.path.clone();
        self.set_path(&path)?;
        let row = self.client.query_one(query, params)?;
        self.set_path(SYSTEM)?;
        row.try_get(0)
    }

    /// The OID of the table that a name stands for, by the user's `search_path`.
    ///
    /// # Errors
    /// When it is no name.
    pub fn resolve(&mut self, name: &str) -> Result<Option<u32>, postgres::Error> {
        self.under_path("SELECT pg_catalog.to_regclass($1)::pg_catalog.oid", &[&name])
    }

    /// The schema in which the user's `search_path` makes tables, if there is one; as SQL has it.
    ///
    /// # Errors
    /// None but lost connections.
    pub fn schema(&mut self) -> Result<Option<String>, postgres::Error> {
        self.under_path("SELECT pg_catalog.quote_ident(pg_catalog.current_schema())", &[])
    }

    /// Runs queries.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Refuses servers whose files are not read.
    ///
    /// # Errors
    /// Naming what it is.
    pub fn check_server(&mut self) -> Result<(), Failure> {
        let (least, most, major) = (MAJORS.start(), MAJORS.end(), self.major);
        if !MAJORS.contains(&major) {
            let text = format!("server: expected PostgreSQL {least} to {most}, found {major}");
            return Err(Failure::error(text));
        }
        let block: String = self.value("ask for the block size", "SELECT current_setting('block_size')")?;
        if block != relation::BLOCK_SIZE.to_string() {
            return Err(Failure::error(format!("server: expected blocks of 8192 bytes, found {block}")));
        }
        if self.value("ask for the server's state", "SELECT pg_is_in_recovery()")? {
            return Err(Failure::error(
                "server: expected a primary server, found a standby, where a table cannot be locked",
            )
            .hint("connect to the primary, or stop the standby and read its files with -D"));
        }
        Ok(())
    }

    /// Begins the transaction.
    ///
    /// # Errors
    /// When a setting is refused.
    pub fn begin(&mut self, lock_timeout: Option<&str>) -> Result<(), Failure> {
        // What the user or the database set for short statements must not end a long run.
        let mut settings = vec!["statement_timeout", "idle_in_transaction_session_timeout"];
        if self.major >= 17 {
            settings.push("transaction_timeout");
        }
        let begun = self.client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE");
        begun.map_err(|e| failed("begin a transaction", &e))?;
        for name in settings {
            let set = self.client.execute("SELECT set_config($1, '0', true)", &[&name]);
            set.map_err(|e| failed(&format!("set {name}"), &e))?;
        }
        if let Some(time) = lock_timeout {
            let set = self.client.execute("SELECT set_config('lock_timeout', $1, true)", &[&time]);
            set.map_err(|e| match failed("set", &e) {
                Failure::Error(message) => Failure::usage(format!(
                    "--lock-wait-timeout: expected a time like 5s or 500 (ms), found {time:?}: {}",
                    message.error.trim_start_matches("could not set: ")
                )),
                other => other,
            })?;
        }
        Ok(())
    }

    /// One value of one row.
    ///
    /// # Errors
    /// What the server says.
    pub fn value<T: for<'a> postgres::types::FromSql<'a>>(
        &mut self,
        action: &str,
        query: &str,
    ) -> Result<T, Failure> {
        let row = self.client.query_one(query, &[]).map_err(|e| failed(action, &e))?;
        row.try_get(0).map_err(|e| failed(action, &e))
    }

    /// Runs statements that may take long; a signal cancels them.
    ///
    /// # Errors
    /// What the server says, or the signal.
    pub fn run<T: Send>(
        &mut self,
        action: &str,
        signals: &Signals,
        work: impl FnOnce(&mut Client) -> Result<T, postgres::Error> + Send,
    ) -> Result<T, Failure> {
        self.run_patiently(action, signals, Duration::MAX, &mut || {}, work)
    }

    /// The same, and says so once it takes long.
    ///
    /// # Errors
    /// What the server says, or the signal.
    pub fn run_patiently<T: Send>(
        &mut self,
        action: &str,
        signals: &Signals,
        patience: Duration,
        say: &mut dyn FnMut(),
        work: impl FnOnce(&mut Client) -> Result<T, postgres::Error> + Send,
    ) -> Result<T, Failure> {
        let token = self.client.cancel_token();
        let client = &mut self.client;
        let cancel = || _ = token.cancel_query(NoTls);
        let mut patience = Some(patience);
        let mut look = |waited: Duration| {
            if patience.is_some_and(|patience| waited > patience) {
                patience = None;
                say();
            }
        };
        watch(signals, cancel, &mut look, move || work(client))?.map_err(|e| failed(action, &e))
    }

    /// Makes sure that the transaction is there still.
    ///
    /// # Errors
    /// When the connection was lost, and with it the lock.
    pub fn still_held(&mut self) -> Result<(), Failure> {
        let asked = self.client.batch_execute("SELECT 1");
        asked.map_err(|e| {
            let why = match e.as_db_error() {
                Some(db) => db.message().to_owned(),
                None => super::errors::cause(&e),
            };
            Failure::error(format!(
                "the connection was lost while the table was read, and with it the lock: {why}"
            ))
            .hint("rows may have changed meanwhile, so nothing was written; run it again")
        })
    }

    /// Ends the transaction.
    ///
    /// # Errors
    /// What the server says.
    pub fn commit(&mut self) -> Result<(), Failure> {
        self.client.batch_execute("COMMIT").map_err(|e| failed("commit", &e))
    }
}

/// Runs `work` on a thread of its own, which has ended when this returns. A signal makes us `cancel` it.
fn watch<T: Send>(
    signals: &Signals,
    cancel: impl Fn(),
    look: &mut dyn FnMut(Duration),
    work: impl FnOnce() -> T + Send,
) -> Result<T, Failure> {
    std::thread::scope(|scope| {
        let waiting = std::thread::current();
        let thread = scope.spawn(move || {
            let done = work();
            waiting.unpark();
            done
        });
        let (mut caught, start): (Option<Signal>, _) = (None, Instant::now());
        while !thread.is_finished() {
            if let Some(signal) = signals.caught() {
                caught = Some(signal);
            }
            if caught.is_some() {
                cancel();
            }
            look(start.elapsed());
            if !thread.is_finished() {
                std::thread::park_timeout(LOOK);
            }
        }
        let done = thread.join().map_err(|_| Failure::error("a thread ended too early"))?;
        caught.map_or(Ok(done), |signal| Err(Failure::Signal(signal)))
    })
}
