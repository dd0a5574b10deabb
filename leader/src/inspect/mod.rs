//! `kmer-leader inspect`: draws the map of a segment, with PostgreSQL's name beside everything that has one.
//!
//! It attaches to read and nothing else: the mapping cannot be written to, no lock is taken, and a run that is under way does not notice. What is
//! seen of one is from no single moment. A crashed run's segment is looked at like a live one's, as long as it has its name; so is a pinned result.
//! What is wrong in a segment is said by the error of whoever reads that part of it.
//!
//! [`page`] is what is said, `run`, `tables` and `pinned` collect it, [`text`] and [`html`] show it.

pub mod html;
pub mod page;
mod pinned;
mod run;
mod tables;
pub mod text;

use crate::failure::Failure;
use crate::output::Output;
use crate::output::same::{Input, refuse_same};
use clap::Args;
use nix::fcntl::OFlag;
use page::Page;
use shm_layout::pin::{PIN_PREFIX, exists, pin_name};
use shm_layout::place;
use shm_layout::takeover::look;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Options of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The segment, as kmer-leader segments lists it, or the name of a pinned result
    #[arg(value_name = "SEGMENT")]
    pub segment: String,
    /// The directory that the segment's file is in, if not /dev/shm
    #[arg(long, value_name = "DIR")]
    pub segment_dir: Option<PathBuf>,
    /// Write one HTML page, which needs nothing else
    #[arg(long)]
    pub html: bool,
    /// Write to FILE, which appears whole or not at all [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Draws the map.
///
/// # Errors
/// When there is no such segment, it was never finished, or it is damaged.
pub fn run(args: &InspectArgs) -> Result<(), Failure> {
    let typed = place::name_in(args.segment_dir.as_deref(), &args.segment)?;
    let name = match pin_name(&typed) {
        Ok(pinned) if exists(&pinned) => pinned,
        _ => typed,
    };
    let page = collect(&name)?;
    refuse_same(&[Input::File(place::path_of(&name))], &[("-o", args.output.as_deref())])?;
    let mut output = Output::open(args.output.as_deref())?;
    let shown = if args.html { html::show(&page) } else { text::show(&page) };
    output.write(shown.as_bytes())?;
    output.finish()
}

/// What there is to say of the segment `name`.
///
/// # Errors
/// As [`run`].
pub fn collect(name: &str) -> Result<Page, Failure> {
    let listed = look(name).map_err(|e| Failure::from(e).hint("kmer-leader segments lists what is there"))?;
    let state = listed.state.to_string();
    let page =
        if name.starts_with(PIN_PREFIX) { pinned::page(name, &state) } else { run::page(name, &state) };
    // A run that ends, or begins its next pass, gives the memory back that is looked at; its first word is the last that a run writes which makes a segment.
    page.map_err(|e| match first_word(name) {
        Ok(0) => unfinished(name),
        Err(cause) if cause.kind() == ErrorKind::NotFound => gone(name),
        _ => e,
    })
}

/// The first eight bytes of a segment.
fn first_word(name: &str) -> std::io::Result<u64> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(place::path_of(name))?;
    let mut word = [0; 8];
    file.read_exact(&mut word)?;
    Ok(u64::from_ne_bytes(word))
}

fn unfinished(name: &str) -> Failure {
    let text = format!(
        "segment {name:?}: expected one that is finished, found one that is being made or taken away"
    );
    Failure::error(text).hint("look again in a moment; kmer-leader segments lists what is there")
}

fn gone(name: &str) -> Failure {
    let text = format!("segment {name:?}: its run ended, or went on to another pass, while it was looked at");
    Failure::error(text).hint("kmer-leader segments lists what is there")
}
