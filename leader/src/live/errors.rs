//! What the server or the way to it says, as an error of ours, with a hint where there is one.

use crate::failure::Failure;
use postgres::Error;
use postgres::error::SqlState;
use std::error::Error as _;

/// The error of an action, like "lock table ...".
pub fn failed(action: &str, e: &Error) -> Failure {
    let Some(db) = e.as_db_error() else {
        if e.is_closed() {
            return Failure::error(format!("could not {action}: the server closed the connection"))
                .hint("the server's log says why");
        }
        return Failure::error(format!("could not {action}: {}", cause(e)));
    };
    let detail = db.detail().map(|text| format!(" ({})", tidy(text))).unwrap_or_default();
    let failure = Failure::error(format!("could not {action}: {}{detail}", tidy(db.message())));
    match (hint(action, db.code()), db.hint()) {
        (Some(hint), _) => failure.hint(hint),
        (None, Some(hint)) => failure.hint(tidy(hint)),
        (None, None) => failure,
    }
}

/// The last of the causes, which says what happened.
pub fn cause(e: &Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(inner) = source {
        text = inner.to_string();
        source = inner.source();
    }
    tidy(&text)
}

/// Server texts in our manner: one line, no full stop.
fn tidy(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches('.').to_owned()
}

fn hint(action: &str, code: &SqlState) -> Option<&'static str> {
    if *code == SqlState::LOCK_NOT_AVAILABLE
        || (*code == SqlState::QUERY_CANCELED && action.starts_with("lock "))
    {
        return Some(
            "another session holds the table; wait longer with --lock-wait-timeout, or see pg_locks",
        );
    }
    if *code == SqlState::READ_ONLY_SQL_TRANSACTION {
        return Some("connect to the primary server");
    }
    if *code != SqlState::INSUFFICIENT_PRIVILEGE {
        return None;
    }
    Some(match action.split(' ').next() {
        Some("write") => {
            "CHECKPOINT needs a superuser or, from PostgreSQL 15 on, a member of pg_checkpoint: GRANT pg_checkpoint TO ..."
        }
        Some("ask") => {
            "where the data directory is needs a superuser or a member of pg_read_all_settings: GRANT pg_read_all_settings TO ..."
        }
        Some("lock") => {
            "LOCK TABLE ... IN SHARE MODE needs the table's owner, or UPDATE, DELETE, TRUNCATE or (from 17 on) MAINTAIN on it"
        }
        Some("save") => {
            "the tables are made in the first schema of search_path, so CREATE there, or INSERT and DELETE on the tables, is needed"
        }
        _ => return None,
    })
}

/// The error of connecting.
pub fn not_connected(hosts: &str, e: &Error) -> Failure {
    let text = match e.as_db_error() {
        Some(db) => tidy(db.message()),
        None => cause(e),
    };
    let failure = Failure::error(format!("could not connect to the server at {hosts}: {text}"));
    match e.as_db_error().map(postgres::error::DbError::code) {
        Some(code) if *code == SqlState::INVALID_CATALOG_NAME => failure.hint("name the database with --dbname"),
        Some(code) if *code == SqlState::INVALID_PASSWORD || *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            failure.hint("say who to connect as with --username; a password is taken from PGPASSWORD or ~/.pgpass")
        }
        Some(_) => failure,
        None if text.contains("password") => failure.hint("a password is taken from PGPASSWORD or ~/.pgpass"),
        None => failure.hint("is the server running there? name its socket's directory with --host and its port with --port; a server that is stopped is read with -D"),
    }
}
