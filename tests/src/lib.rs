//! Runs the engine on files of real PostgreSQL servers and compares it with oracles that share no code with it.
//!
//! Promises: what a test starts (servers, engine processes, temporary directories) is gone when the test ends, also when it panics; a server
//! and its directory go even when the test program is killed; two test programs may run at the same time; a failure prints the command, how
//! it ended, and the head of what it wrote.
//!
//! Does not: build anything. The engine's binaries must be there ([`engine::bin`]), and PostgreSQL and KMC are installed by
//! `tests/install.sh`.
//!
//! * [`server`]: a throw-away PostgreSQL server, tables in it, and copies of their files;
//! * [`data`]: repeatable random sequences and the SQL that puts them into tables;
//! * [`oracle`]: counts rows by the plainest code that can be; [`kmc`] and [`sql_counts`](oracle::sql_counts) do it by programs of others;
//! * [`case`]: a copied table and the rows in it;
//! * [`output`]: reads what the engine printed, and checks its form;
//! * [`engine`]: runs the engine under a leak audit;
//! * [`pinned`]: names for what tests pin;
//! * [`fuzz`]: what is fuzzed;
//! * [`fault`]: runs it with injected faults, and through deaths of the leader.
//!
//! Helpers of tests panic where a library would return an error: the panic is the test's failure.
#![forbid(unsafe_code)]

pub mod case;
pub mod data;
pub mod engine;
pub mod fault;
pub mod fuzz;
pub mod kmc;
pub mod oracle;
pub mod output;
pub mod pinned;
pub mod server;

/// Shows the head of a long text: at most `lines` lines, 300 characters of each, and how much was left out.
#[must_use]
pub fn head(text: &str, lines: usize) -> String {
    let mut shown = String::new();
    for line in text.lines().take(lines) {
        let cut: String = line.chars().take(300).collect();
        let mark = if cut.len() < line.len() { "..." } else { "" };
        shown += &format!("{cut}{mark}\n");
    }
    if shown.len() < text.len() {
        shown += &format!("... ({} bytes in all)\n", text.len());
    }
    shown
}
