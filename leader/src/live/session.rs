//! A connection and its one transaction.

use super::args::DatabaseArgs;
use super::conninfo::{CONNECT_TIMEOUT, config, environment, hosts};
use super::errors::{failed, not_connected};
use crate::failure::Failure;
use crate::signals::Signals;
use nix::sys::signal::Signal;
use postgres::types::{FromSql, ToSql};
use postgres::{CancelToken, Client, Config, NoTls, SimpleQueryMessage};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Versions that are read, by major number.
pub const MAJORS: std::ops::RangeInclusive<i32> = 13..=18;
/// How often a signal is looked for while a statement runs.
const LOOK: Duration = Duration::from_millis(20);
/// A server that does not do what it was asked to for so long does not hear.
const DEAF: Duration = Duration::from_secs(3);

/// A connection.
pub struct Session {
    client: Client,
    /// The server's major version.
    pub major: i32,
    /// The user's `search_path`.
    path: String,
    /// Nothing has to be cleaned up here yet: a signal that the server does not hear may end the process.
    pub idle: bool,
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
        let client = connect_within(config, signals)?;
        let mut session = Self { client, major: 0, path: String::new(), idle: true };
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
        let mut settings = vec!["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"];
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
        let (done, caught) = self.watched(patience, signals, say, work)?;
        match caught {
            Some(signal) => Err(Failure::Signal(signal)),
            None => done.map_err(|e| failed(action, &e)),
        }
    }

    /// What came of statements that may take long, and the signal that cancelled them, if one did.
    fn watched<T: Send>(
        &mut self,
        patience: Duration,
        signals: &Signals,
        say: &mut dyn FnMut(),
        work: impl FnOnce(&mut Client) -> Result<T, postgres::Error> + Send,
    ) -> Result<(Result<T, postgres::Error>, Option<Signal>), Failure> {
        let mut cancel = Cancel { token: self.client.cancel_token(), running: None };
        let (client, idle) = (&mut self.client, self.idle);
        let mut patience = Some(patience);
        let mut look = |waited: Duration| {
            if patience.is_some_and(|patience| waited > patience) {
                patience = None;
                say();
            }
        };
        let mut stop = |signal: Signal, since: Instant| {
            cancel.send();
            if idle && since.elapsed() > DEAF {
                shm_layout::process::die_by(signal);
            }
        };
        watch(signals, &mut stop, &mut look, move || work(client))
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

    /// Ends the transaction. A signal makes the server wait no longer for standbys that are to have it as well: what it has committed it has. Gives
    /// the signal that came meanwhile, if one did.
    ///
    /// # Errors
    /// What the server says, or the signal, when it did not commit.
    pub fn commit(&mut self, signals: &Signals) -> Result<Option<Signal>, Failure> {
        let work = |client: &mut Client| client.batch_execute("COMMIT");
        match self.watched(Duration::MAX, signals, &mut || {}, work)? {
            (Ok(()), caught) => Ok(caught),
            (Err(_), Some(signal)) => Err(Failure::Signal(signal)),
            (Err(e), None) => Err(failed("commit", &e)),
        }
    }
}

/// Sends the server requests to cancel what it does, one at a time and each on a thread of its own: one that is stopped takes the connection and says nothing.
struct Cancel {
    token: CancelToken,
    running: Option<JoinHandle<()>>,
}

impl Cancel {
    fn send(&mut self) {
        if self.running.as_ref().is_none_or(JoinHandle::is_finished) {
            let token = self.token.clone();
            self.running = Some(std::thread::spawn(move || _ = token.cancel_query(NoTls)));
        }
    }
}

/// Connects on a thread of its own, which is left to itself when a signal comes or the time is over: the library's own limit is for the connection, not for
/// what is said over it.
fn connect_within(config: Config, signals: &Signals) -> Result<Client, Failure> {
    let hosts = hosts(&config);
    let each = config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT);
    let limit = each * u32::try_from(config.get_hosts().len().max(1)).unwrap_or(1) + LOOK;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || _ = sender.send(config.connect(NoTls)));
    let start = Instant::now();
    loop {
        match receiver.recv_timeout(LOOK) {
            Ok(connected) => return connected.map_err(|e| not_connected(&hosts, &e)),
            Err(RecvTimeoutError::Disconnected) => return Err(Failure::error("a thread ended too early")),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Some(signal) = signals.caught() {
            return Err(Failure::Signal(signal));
        }
        if start.elapsed() > limit {
            let seconds = each.as_secs();
            let text = format!(
                "could not connect to the server at {hosts}: expected an answer within {seconds} s, found none"
            );
            return Err(Failure::error(text)
                .hint("is it stopped, or something else that listens there? connect_timeout and PGCONNECT_TIMEOUT have seconds"));
        }
    }
}

/// Runs `work` on a thread of its own, which has ended when this returns. When a signal came, `stop` is called again and again with the time since.
/// Gives what the work came to, and the signal.
fn watch<T: Send>(
    signals: &Signals,
    stop: &mut dyn FnMut(Signal, Instant),
    look: &mut dyn FnMut(Duration),
    work: impl FnOnce() -> T + Send,
) -> Result<(T, Option<Signal>), Failure> {
    std::thread::scope(|scope| {
        let waiting = std::thread::current();
        let thread = scope.spawn(move || {
            let done = work();
            waiting.unpark();
            done
        });
        let (mut caught, start): (Option<(Signal, Instant)>, _) = (None, Instant::now());
        while !thread.is_finished() {
            caught = caught.or_else(|| signals.caught().map(|signal| (signal, Instant::now())));
            if let Some((signal, since)) = caught {
                stop(signal, since);
            }
            look(start.elapsed());
            if !thread.is_finished() {
                std::thread::park_timeout(LOOK);
            }
        }
        let done = thread.join().map_err(|_| Failure::error("a thread ended too early"))?;
        Ok((done, caught.map(|(signal, _)| signal)))
    })
}
