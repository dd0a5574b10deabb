//! kmer-leader: counts in how many rows of a PostgreSQL relation each k-mer occurs, with many processes.

#![forbid(unsafe_code)]

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};
use kmer_leader::book::dump;
use kmer_leader::cli::{AnalysisArgs, Cli, Command, ReadMethod};
use kmer_leader::console::{self, Console, say};
use kmer_leader::failure::{EXIT_SKIPPED, EXIT_USAGE, Failure};
use kmer_leader::format::Form;
use kmer_leader::format::facts::Facts;
use kmer_leader::format::summary_json::summary_json;
use kmer_leader::import::{self, ImportArgs};
use kmer_leader::live::undo::{self, UndoArgs};
use kmer_leader::live::{Live, Request};
use kmer_leader::lookup::lookup;
use kmer_leader::output::{Output, Outputs};
use kmer_leader::partial::merge::merge;
use kmer_leader::passes::lead_all;
use kmer_leader::pgdata::TypeArg;
use kmer_leader::pin::Pin;
use kmer_leader::report::Entries;
use kmer_leader::resume::{ResumeArgs, Taken};
use kmer_leader::segments::SegmentsArgs;
use kmer_leader::signals::Signals;
use kmer_leader::source::Source;
use kmer_leader::status::{self, StatusArgs};
use kmer_leader::torture::{self, TortureArgs};
use kmer_leader::verdict::describe_poison;
use kmer_leader::{
    about, colour, combinations, dry_run, inspect, limits, output, page, plan, resume, segments, summary,
};
use shm_layout::inject::{Point, at};
use shm_layout::process::ignore_file_size_signal;
use shm_layout::segment::Segment;
use std::ffi::OsString;
use std::io::Write;
use std::time::Instant;

fn main() {
    limits::raise_open_files();
    // A file that may grow no further is an error of who writes to it.
    let _ = ignore_file_size_signal();
    let args: Vec<OsString> = std::env::args_os().collect();
    let when = colour::typed(&args);
    colour::decide(when);
    let parsed = Cli::command().color(colour::for_clap(when)).try_get_matches_from(&args);
    let parsed = parsed.and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = parsed.unwrap_or_else(|e| complain(&e, &args));
    let ended = match &cli.command {
        Some(Command::Import(args)) => import(args),
        Some(Command::Resume(args)) => resume(args),
        Some(Command::Segments(args)) => segments(args),
        Some(Command::Status(args)) => status(args),
        Some(Command::Inspect(args)) => inspect::run(args).map(|()| 0),
        Some(Command::Merge(args)) => merge(args),
        Some(Command::Dump(args)) => dump(args).map(|()| 0),
        Some(Command::Lookup(args)) => lookup(args).map(|()| 0),
        Some(Command::Undo(args)) => undo(args),
        Some(Command::Completions(args)) => print(&about::completions(args)),
        Some(Command::Man(args)) => about::man(args).and_then(|page| print(&page)),
        Some(Command::Torture(args)) => torture(args),
        None => analyse(&cli.analysis, None),
    };
    end(ended);
}

/// Ends the process, and says why if it did not go well.
fn end(ended: Result<i32, Failure>) -> ! {
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

/// Prints help or the version, or says what is wrong with the command line.
fn complain(e: &clap::Error, args: &[OsString]) -> ! {
    if !e.use_stderr() {
        let printed = if e.kind() == ErrorKind::DisplayVersion && about::wants_details(args) {
            print(about::details().as_bytes())
        } else {
            e.print().map_err(|e| output::stdout_error(&e)).map(|()| 0)
        };
        end(printed);
    }
    // In our own form, like every other error.
    let text = e.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
    say("error: ", text);
    std::process::exit(EXIT_USAGE);
}

fn resume(args: &ResumeArgs) -> Result<i32, Failure> {
    if args.debug.inject.iter().any(|rule| rule == "list") {
        return args.debug.arm().map(|_| 0);
    }
    args.debug.arm()?;
    let taken = resume::take(args)?;
    let analysis = taken.analysis.clone();
    analyse(&analysis, Some(taken))
}

fn torture(args: &TortureArgs) -> Result<i32, Failure> {
    let text = torture::run(args, &mut |text| say("", text))?;
    let mut output = Output::open(None)?;
    output.write(text.as_bytes())?;
    output.finish()?;
    Ok(0)
}

fn segments(args: &SegmentsArgs) -> Result<i32, Failure> {
    // What cannot be said is not done either.
    let mut output = Output::open(None)?;
    output.write(segments::run(args)?.as_bytes())?;
    output.finish()?;
    Ok(0)
}

fn status(args: &StatusArgs) -> Result<i32, Failure> {
    let mut output = Output::open(None)?;
    status::run(args, &mut |text| output.write(text.as_bytes()))?;
    Ok(0)
}

/// Writes to standard output.
fn print(bytes: &[u8]) -> Result<i32, Failure> {
    let mut output = Output::open(None)?;
    output.write(bytes)?;
    output.finish()?;
    Ok(0)
}

fn analyse(args: &AnalysisArgs, taken: Option<Taken>) -> Result<i32, Failure> {
    let start = Instant::now();
    if taken.is_none() && args.debug.arm()? {
        return Ok(0);
    }
    combinations::check(args)?;
    let signals = Signals::catch()?;
    let mut pin = Pin::begin(args, taken.is_some())?;
    let (mut live, source) = match open_live(args, &signals)? {
        Some((live, source)) => (Some(live), Some(source)),
        None => (None, None),
    };
    // What is read for the plan may be a pipe that gives nothing. A table's lock goes with the connection.
    let mut plan = signals.let_through(|| plan::plan(args, source, taken.is_some()))?;
    if let (Some(live), true) = (&mut live, args.database.save) {
        live.may_save(&plan, args.database.replace, &signals)?;
    }
    let mut console = Console::new(args.quiet);
    plan.source.warnings.iter().for_each(|text| console.say("warning: ", text));
    if args.room.dry_run {
        return print(dry_run::describe(&plan).as_bytes());
    }
    if let Some(note) = &plan.note {
        console.tell(note);
    }
    let resumed = match taken {
        Some(taken) => Some(taken.enter(&mut plan)?),
        None => None,
    };
    let form = Form::new(&args.format, &plan)?;
    let mut outputs = Outputs::open(args, &plan, &signals)?;
    if args.verbose {
        console.say("", &plan.describe());
    }
    let mut dense = outputs.take_dense();
    let (outcome, before) = lead_all(&mut plan, resumed, &signals, &mut console, dense.as_mut())?;
    // What was read was read under the lock; nobody has to wait for it any longer than that.
    let mut live = still_locked(live, args.database.save, &signals)?;
    let segment = &outcome.shared.segment;
    at(Point::ReportBegin)?;
    if !plan.resumable {
        // Nobody attaches any more: without its name it goes with this process, whatever becomes of that.
        Segment::destroy(segment.name())?;
    }
    let saves = live.is_some();
    if outputs.leave_nothing() && dense.is_none() && pin.is_none() && !saves {
        signals.release();
    }
    let mut entries = Entries::collect(&plan, &outcome, before)?;
    let facts = Facts::new(&plan, &outcome, entries.count);
    if let Some(dense) = dense {
        outputs.put_dense(dense.finish(&outcome.shared, &facts)?);
        if outputs.leave_nothing() && pin.is_none() && !saves {
            signals.release();
        }
    }
    if let Some(pin) = &mut pin {
        pin.write(&facts, (outcome.threshold, plan.select.narrows()), &entries)?;
    }
    outputs.write_partial(&plan, &outcome, &facts, &entries)?;
    if plan.count_only {
        entries.unlist();
    }
    outputs.write(&form, &facts, &entries, &mut |done, total| console.writing(done, total))?;
    console.clear();
    let seconds = start.elapsed().as_secs_f64();
    let summary = || summary_json(&plan, &outcome, &facts, seconds);
    outputs.write_summary(summary)?;
    outputs.write_page(|| page::page(&plan, &outcome, &facts, &entries, &summary()?, seconds))?;
    if let Some(live) = &mut live {
        live.save(&plan, &entries, &signals)?;
    }
    at(Point::ReportWritten)?;
    outputs.sync()?;
    signals.hold();
    if let Some(signal) = signals.caught() {
        return Err(Failure::Signal(signal));
    }
    pin.as_mut().map_or(Ok(()), Pin::publish)?;
    // A signal that came when it was saved came too late.
    let _ = live.map_or(Ok(None), |live| live.commit(&signals))?;
    outputs.finish()?;
    if let Some(pin) = pin {
        pin.keep();
    }
    at(Point::OutputRenamed)?;
    Segment::destroy(segment.name())?;
    // The result is whole, and what is left to say may find nobody who reads it.
    if console::is_full() {
        signals.release();
    }
    for line in outcome.scan.messages.lines() {
        console.say("warning: skipped: ", line);
    }
    for unit in &outcome.scan.poisoned {
        console.say("warning: skipped: ", &describe_poison(&outcome.shared, *unit)?);
    }
    if !args.quiet {
        let text = summary::summary(&plan, &outcome, entries.count, seconds);
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
    let sums = &outcome.scan.sums;
    let skipped = sums.damaged_pages + sums.damaged_tuples + outcome.scan.poisoned.len() as u64;
    Ok(if skipped > 0 { EXIT_SKIPPED } else { 0 })
}

/// Opens the table of a running server, if one was named.
fn open_live(args: &AnalysisArgs, signals: &Signals) -> Result<Option<(Live, Source)>, Failure> {
    let database = &args.database;
    if args.pgdata.pgdata.is_some() {
        return Ok(None);
    }
    if database.table.is_none() {
        if database.connect.given() {
            let text = "--table: expected the table to be counted, found none";
            return Err(Failure::usage(text).hint("name it with -t [SCHEMA.]TABLE"));
        }
        return Ok(None);
    }
    if args.resumable {
        let text =
            "--resumable: a run over a running server cannot be resumed, since its lock ends with the leader";
        return Err(Failure::usage(text));
    }
    if args.read_method == ReadMethod::Mmap {
        let text = "--read-method mmap: a running server writes to the files, so each page must be read at one moment";
        return Err(Failure::usage(text).hint("leave it at pread"));
    }
    let column = args.column.as_deref();
    let request = Request {
        database,
        column,
        varbit_as: args.pgdata.dna_type.map(TypeArg::dna_type),
        no_checksums: args.no_checksums,
        unhinted: plan::unhinted(args),
    };
    let quiet = args.quiet;
    let mut tell = |text: &str| {
        if !quiet {
            say("", text);
        }
    };
    Live::begin(&request, signals, &mut tell).map(Some)
}

/// Makes sure that the lock was held until now, and gives it back unless something is to be saved under it.
fn still_locked(live: Option<Live>, saves: bool, signals: &Signals) -> Result<Option<Live>, Failure> {
    let Some(mut live) = live else { return Ok(None) };
    live.still_held()?;
    if saves {
        return Ok(Some(live));
    }
    match live.commit(signals)? {
        Some(signal) => Err(Failure::Signal(signal)),
        None => Ok(None),
    }
}

fn undo(args: &UndoArgs) -> Result<i32, Failure> {
    let signals = Signals::catch()?;
    let removed = undo::undo(args, &signals)?;
    let text = format!(
        "dropped_analyses: {}\ndropped_highfreq_kmers: {}\nfreed_storage_bytes: {}\n",
        removed.analyses, removed.kmers, removed.bytes
    );
    let mut output = Output::open(None)?;
    output.write(text.as_bytes())?;
    output.finish()?;
    Ok(0)
}

fn import(args: &ImportArgs) -> Result<i32, Failure> {
    import::check(args)?;
    let done = import::run(args, &Signals::catch()?).map_err(|e| import::failure(&e))?;
    let skipped =
        if done.skipped > 0 { format!(", {} records skipped", done.skipped) } else { String::new() };
    let toast =
        if done.toast_blocks > 0 { format!(" and {} of TOAST", done.toast_blocks) } else { String::new() };
    let (rows, bases, blocks, seconds) = (done.rows, done.bases, done.heap_blocks, done.seconds);
    say("", &format!("{rows} rows, {bases} bases, {blocks} blocks{toast}{skipped}, {seconds:.2} s"));
    Ok(0)
}
