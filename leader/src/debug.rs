//! Options for tests and for people who study crashes: injected faults, and capacities so small that every path is taken.

use crate::failure::Failure;
use crate::output::Output;
use clap::Args;
use shm_layout::inject::{POINTS, Rule, Who, arm};
use std::time::Duration;

/// Options of no use in earnest.
#[derive(Clone, Debug, Default, Args)]
pub struct DebugArgs {
    /// Make a process die, stop, fail or wait at a named point; 'list' lists them (docs/crash-safety.md)
    ///
    /// A rule is POINT, perhaps :worker=N or :leader, perhaps :nth=K, perhaps :again, then :ACTION: kill, stop, segv, exit, error or
    /// delay=MS. May be given several times.
    #[arg(long, value_name = "RULE", hide_short_help = true, help_heading = "Tests")]
    pub inject: Vec<String>,
    /// Blocks of a unit
    #[arg(long, value_name = "N", hide = true, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub unit_blocks: Option<u64>,
    /// Bytes of a chunk of the arena, a multiple of 4096
    #[arg(long, value_name = "N", hide = true, value_parser = chunk_bytes)]
    pub chunk_bytes: Option<usize>,
    /// Objects over which the segment's chunks are dealt
    #[arg(long, value_name = "N", hide = true, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub objects: Option<u8>,
    /// There are 2^N stripes
    #[arg(long, value_name = "N", hide = true, value_parser = clap::value_parser!(u32).range(0..=13))]
    pub stripe_bits: Option<u32>,
    /// 2^N units share each block
    #[arg(long, value_name = "N", hide = true, value_parser = clap::value_parser!(u32).range(0..=4))]
    pub part_bits: Option<u32>,
    /// Windows of a long row that each of them takes at a time
    #[arg(long, value_name = "N", hide = true, value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    pub stretch: Option<u64>,
    /// 2^N passes share the stripes
    #[arg(long, value_name = "N", hide = true, value_parser = clap::value_parser!(u32).range(0..=8))]
    pub pass_bits: Option<u32>,
    /// Sorted keys are written as sums, however few they are
    #[arg(long, hide = true)]
    pub summed: bool,
    /// Bytes of bases after which a unit stores a batch
    #[arg(long, value_name = "N", hide = true)]
    pub batch_bytes: Option<u64>,
}

fn chunk_bytes(text: &str) -> Result<usize, String> {
    let bytes = text.parse().ok().filter(|n: &usize| n.is_multiple_of(4096) && (4096..=1 << 24).contains(n));
    bytes.ok_or_else(|| "expected a multiple of 4096".into())
}

/// Seconds, as a number with or without a fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(pub Duration);

impl std::str::FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let seconds = text.parse().ok().and_then(|s: f64| Duration::try_from_secs_f64(s).ok());
        seconds.map(Self).ok_or_else(|| "expected a number of seconds".into())
    }
}

impl DebugArgs {
    /// Makes this process, the leader, obey the rules; true when they were only to be listed.
    ///
    /// # Errors
    /// A rule that is none.
    pub fn arm(&self) -> Result<bool, Failure> {
        if self.inject.iter().any(|rule| rule == "list") {
            let mut output = Output::open(None)?;
            POINTS
                .iter()
                .try_for_each(|(_, name, what)| output.write(format!("{name:<18} {what}\n").as_bytes()))?;
            output.finish()?;
            return Ok(true);
        }
        let rules = self.inject.iter().map(|rule| rule.parse());
        let rules: Vec<Rule> =
            rules.collect::<Result<_, _>>().map_err(|e| Failure::usage(format!("--inject: {e}")))?;
        arm(&rules, Who::Leader, false).map_err(|e| Failure::error(format!("--inject: {e}")))?;
        Ok(false)
    }
}
