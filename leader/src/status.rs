//! `kmer-leader status`: shows how far a run is, in another terminal, like a `pg_stat_progress_*` view.
//!
//! It attaches to the run's segment to read it; the run does not know. A run that crashed and may be resumed is shown as it was left. Once attached,
//! `--watch` sees the end of a run too, whose segment has no name any more by then.

use crate::failure::Failure;
use crate::progress::figures::share;
use crate::progress::{Snapshot, WorkerLook, workers};
use crate::segments::of_a_run;
use clap::Args;
use kmer_worker::job::path_of;
use kmer_worker::shared::Shared;
use serde::Serialize;
use shm_layout::takeover::{Listed, State, list, look};
use std::fmt::{Display, Write as _};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

/// Options of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The segment, as kmer-leader segments lists it [default: that of the only run there is]
    #[arg(value_name = "SEGMENT")]
    pub segment: Option<String>,
    /// Directory of the segment, if the run has one
    #[arg(long, value_name = "DIR")]
    pub segment_dir: Option<PathBuf>,
    /// Repeat every so many seconds, until the run is over
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "1")]
    pub watch: Option<crate::debug::Seconds>,
    /// Print JSON: one document, or with --watch one a line
    #[arg(long)]
    pub json: bool,
}

/// What is printed.
#[derive(Serialize)]
struct Document<'a> {
    schema_version: u32,
    segment: &'a str,
    leader: u32,
    state: String,
    relation: String,
    #[serde(flatten)]
    seen: Snapshot,
    workers: Vec<WorkerLook>,
}

type Print<'a> = &'a mut dyn FnMut(&str) -> Result<(), Failure>;

/// Shows the run that was named, or the only one.
///
/// # Errors
/// When there is none, or its segment is damaged.
pub fn run(args: &StatusArgs, print: Print<'_>) -> Result<(), Failure> {
    let name = match &args.segment {
        Some(name) => of_a_run(name, args.segment_dir.as_deref())?,
        None => {
            let mut runs = list(args.segment_dir.as_deref())?;
            runs.retain(|found| matches!(found.state, State::Running | State::Resumable));
            match &runs[..] {
                [] => {
                    let text = "status: expected a run of yours, found none";
                    return Err(Failure::error(text).hint("name its segment if it is another kind of one"));
                }
                [run] => run.name.clone(),
                _ => return print(&several(&runs)),
            }
        }
    };
    let shared = Shared::attach_to_read(&name)?;
    let clear = args.watch.is_some() && !args.json && std::io::stdout().is_terminal();
    loop {
        let text = show(&shared, &name, args)?;
        print(&if clear { format!("\x1b[H\x1b[2J{text}") } else { text })?;
        match args.watch {
            Some(every) if shared.segment.is_led()? => {
                std::thread::sleep(every.0.max(Duration::from_millis(10)));
            }
            _ => return Ok(()),
        }
    }
}

/// A line each of several runs.
fn several(runs: &[Listed]) -> String {
    let mut rows = Vec::new();
    for run in runs {
        let seen = Shared::attach_to_read(&run.name).map_err(Failure::from).and_then(|s| Snapshot::take(&s));
        let (phase, done) = match seen {
            Ok(seen) => (seen.phase, share(seen.blocks_done, seen.blocks_total)),
            // It ended just now, or it is another version's.
            Err(_) => ("", String::new()),
        };
        rows.push(vec![run.name.clone(), run.leader.to_string(), run.state.to_string(), phase.into(), done]);
    }
    table(&["segment", "leader", "state", "phase", "blocks"], &rows)
}

fn show(shared: &Shared, name: &str, args: &StatusArgs) -> Result<String, Failure> {
    // A run that is over has no name any more; its leader may still be at work.
    let listed = look(name).ok();
    let state = match &listed {
        Some(listed) => listed.state.to_string(),
        None if shared.segment.is_led()? => State::Running.to_string(),
        None => "ended".into(),
    };
    let paths: Vec<_> = shared.job.leaves.iter().map(|leaf| path_of(&leaf.path).to_string_lossy()).collect();
    let document = Document {
        schema_version: 1,
        segment: name,
        leader: shared.segment.leader()?,
        state,
        // Text of somebody else's for a terminal.
        relation: paths.join(", ").escape_debug().to_string(),
        seen: Snapshot::take(shared)?,
        workers: workers(shared)?,
    };
    if !args.json {
        return Ok(document.text());
    }
    let text = match args.watch {
        Some(_) => serde_json::to_string(&document),
        None => serde_json::to_string_pretty(&document),
    };
    let text = text.map_err(|e| Failure::error(format!("could not write the status as JSON: {e}")))?;
    Ok(text + "\n")
}

fn known<T: Display>(value: Option<T>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

impl Document<'_> {
    /// As psql shows a row of a view, expanded, and the workers as a table.
    fn text(&self) -> String {
        let seen = &self.seen;
        let mut text = format!("-[ {} ]\n", self.segment);
        let mut field = |name: &str, value: &dyn Display| {
            let _ = writeln!(text, "{name:<16} | {value}");
        };
        field("leader", &self.leader);
        field("state", &self.state);
        field("phase", &seen.phase);
        field("pass", &format!("{} of {}", seen.pass, seen.passes));
        field("relation", &self.relation);
        field("blocks_total", &seen.blocks_total);
        field("blocks_done", &seen.blocks_done);
        field("bytes_total", &seen.bytes_total);
        field("bytes_done", &seen.bytes_done);
        field("stripes_total", &known(seen.stripes_total));
        field("stripes_done", &known(seen.stripes_done));
        field("rows", &seen.rows);
        field("kmers", &seen.kmers);
        field("memory_bytes", &seen.memory_bytes);
        field("workers_asked", &seen.workers_asked);
        field("workers_launched", &seen.workers_launched);
        field("recoveries", &seen.recoveries);
        field("error", &known(seen.error.as_deref().map(str::escape_debug)));
        let rows: Vec<Vec<String>> = self.workers.iter().map(WorkerLook::cells).collect();
        text + &table(&COLUMNS, &rows)
    }
}

const COLUMNS: [&str; 10] =
    ["worker", "pid", "state", "generation", "at", "block", "units", "stripes", "rows", "kmers"];

impl WorkerLook {
    fn cells(&self) -> Vec<String> {
        vec![
            self.worker.clone(),
            self.pid.to_string(),
            self.state.into(),
            self.generation.to_string(),
            known(self.at.as_ref()),
            known(self.block),
            self.units.to_string(),
            self.stripes.to_string(),
            self.rows.to_string(),
            self.kmers.to_string(),
        ]
    }
}

/// A table as psql has them: numbers to the right.
fn table(columns: &[&str], rows: &[Vec<String>]) -> String {
    let width = |at: usize| rows.iter().map(|row| row[at].len()).max().unwrap_or(0).max(columns[at].len());
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let head = columns.iter().zip(&widths).map(|(name, width)| format!(" {name:^width$} "));
    let mut text = head.collect::<Vec<_>>().join("|").trim_end().to_owned() + "\n";
    text += &(widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>().join("+") + "\n");
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| {
            let number = !cell.is_empty() && cell.bytes().all(|b| b.is_ascii_digit());
            if number { format!(" {cell:>width$} ") } else { format!(" {cell:<width$} ") }
        });
        text += cells.collect::<Vec<_>>().join("|").trim_end();
        text.push('\n');
    }
    text
}
