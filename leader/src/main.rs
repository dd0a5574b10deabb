//! kmer-leader: counts in how many rows of a PostgreSQL relation each k-mer occurs, with many processes.

#![forbid(unsafe_code)]

use clap::Parser;
use kmer_leader::cli::{AnalysisArgs, Cli, Command};
use kmer_leader::failure::{EXIT_SKIPPED, EXIT_USAGE, Failure};
use kmer_leader::import::{self, ImportArgs};
use kmer_leader::lead::{Signals, describe_poison, lead};
use kmer_leader::output::Output;
use kmer_leader::{plan, report, summary};
use std::io::Write;
use std::time::Instant;

fn main() {
    let cli = Cli::try_parse().unwrap_or_else(|e| complain(&e));
    let ended = match &cli.command {
        Some(Command::Import(args)) => import(args),
        None => analyse(&cli.analysis),
    };
    let failure = match ended {
        Ok(code) => std::process::exit(code),
        Err(failure) => failure,
    };
    if let Some(message) = failure.message() {
        say("error: ", &message.error);
        if let Some(hint) = &message.hint {
            say("hint: ", hint);
        }
    }
    match failure {
        Failure::Signal(signal) => shm_layout::process::die_by(signal),
        other => std::process::exit(other.exit_code()),
    }
}

/// Says something on standard error. When that is closed there is nobody to tell.
fn say(kind: &str, text: &str) {
    let _ = writeln!(std::io::stderr(), "kmer-leader: {kind}{text}");
}

/// Prints help, or says what is wrong with the command line.
fn complain(e: &clap::Error) -> ! {
    if !e.use_stderr() {
        e.exit();
    }
    // In our own form, like every other error.
    let text = e.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
    say("error: ", text);
    std::process::exit(EXIT_USAGE);
}

fn analyse(args: &AnalysisArgs) -> Result<i32, Failure> {
    let start = Instant::now();
    let signals = Signals::catch()?;
    let plan = plan::plan(args)?;
    let mut output = Output::open(args.output.as_deref())?;
    let quiet = args.quiet;
    let outcome = lead(&plan, &signals, &mut |text| {
        if !quiet {
            say("", text);
        }
    })?;
    report::write(&plan, &outcome, &mut output)?;
    if let Some(signal) = signals.caught() {
        return Err(Failure::Signal(signal));
    }
    output.finish()?;
    for line in outcome.scan.messages.lines() {
        say("warning: skipped: ", line);
    }
    for unit in &outcome.scan.poisoned {
        say("warning: skipped: ", &describe_poison(&outcome.shared, *unit)?);
    }
    if !quiet {
        let text = summary::summary(&plan, &outcome, start.elapsed().as_secs_f64());
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
    let sums = &outcome.scan.sums;
    let skipped = sums.damaged_pages + sums.damaged_tuples + outcome.scan.poisoned.len() as u64;
    Ok(if skipped > 0 { EXIT_SKIPPED } else { 0 })
}

fn import(args: &ImportArgs) -> Result<i32, Failure> {
    let done = import::run(args).map_err(|e| {
        let failure = Failure::error(&e);
        match e.downcast_ref::<import::ImportError>().and_then(import::ImportError::hint) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })?;
    let skipped =
        if done.skipped > 0 { format!(", {} records skipped", done.skipped) } else { String::new() };
    let toast =
        if done.toast_blocks > 0 { format!(" and {} of TOAST", done.toast_blocks) } else { String::new() };
    let (rows, bases, blocks, seconds) = (done.rows, done.bases, done.heap_blocks, done.seconds);
    say("", &format!("{rows} rows, {bases} bases, {blocks} blocks{toast}{skipped}, {seconds:.2} s"));
    Ok(0)
}
