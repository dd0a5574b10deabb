//! Runs the engine on files of real PostgreSQL servers and compares it with oracles that share no code with it.
//!
//! Promises: what a test starts (servers, engine processes, temporary directories) is gone when the test program ends, also when a test
//! panics and also when the program is killed; two test programs may run at the same time; a failure prints the command, its exit, and
//! the head of what it wrote.
//!
//! Does not: build anything. The engine's binaries must be there ([`engine::bin`]), and PostgreSQL and KMC are installed by
//! `tests/install.sh`.
//!
//! * [`server`]: a throw-away PostgreSQL server, tables in it, and copies of their files;
//! * [`data`]: repeatable random sequences and the SQL that puts them into tables;
//! * [`oracle`]: counts rows by the plainest code that can be; [`kmc`] and [`sql_counts`](oracle::sql_counts) do it by programs of others;
//! * [`output`]: reads what the engine printed, and checks its form;
//! * [`engine`]: runs the engine under a leak audit.
//!
//! Helpers of tests panic where a library would return an error: the panic is the test's failure.
#![forbid(unsafe_code)]

pub mod data;
pub mod engine;
pub mod kmc;
pub mod oracle;
pub mod output;
pub mod server;

/// Shows the head of a long text: at most `lines` lines and 4,000 characters, and how much was left out.
#[must_use]
pub fn head(text: &str, lines: usize) -> String {
    let mut shown: String = text.lines().take(lines).flat_map(|line| [line, "\n"]).collect();
    if shown.chars().count() > 4000 {
        shown = shown.chars().take(4000).collect();
    }
    if shown.len() < text.len() {
        shown += &format!("... ({} bytes in all)\n", text.len());
    }
    shown
}
