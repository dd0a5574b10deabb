//! A connection and its one transaction.

use super::args::DatabaseArgs;
use super::conninfo::{config, environment, hosts};
use super::errors::{failed, not_connected};
use crate::failure::Failure;
use crate::signals::Signals;
use nix::sys::signal::Signal;
use postgres::{Client, NoTls};
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
}

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
        let mut session = Self { client, major: 0 };
        let number: i32 = session
            .value("ask for the server's version", "SELECT current_setting('server_version_num')::int4")?;
        session.major = number / 10_000;
        Ok(session)
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
