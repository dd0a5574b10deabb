//! Whether and how messages on standard error are coloured: `--color`, NO_COLOR, and whether a terminal looks.
//!
//! `auto` colours when standard error is a terminal, NO_COLOR is unset or empty (no-color.org) and TERM is not `dumb`. The choice is made once,
//! before the command line is parsed, since its errors are messages too.

use clap::ValueEnum;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::sync::OnceLock;

/// When messages are coloured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

static COLOURED: OnceLock<bool> = OnceLock::new();

/// What was typed for `--color`, as far as it can be known before the command line is parsed.
pub fn typed(args: &[OsString]) -> When {
    let words: Vec<&str> =
        args.iter().filter_map(|arg| arg.to_str()).take_while(|arg| *arg != "--").collect();
    let value = words.iter().enumerate().rev().find_map(|(at, word)| match word.strip_prefix("--color") {
        Some("") => words.get(at + 1).copied(),
        Some(rest) => rest.strip_prefix('='),
        None => None,
    });
    value.and_then(|value| When::from_str(value, false).ok()).unwrap_or_default()
}

/// What clap should do for its help.
pub fn for_clap(when: When) -> clap::ColorChoice {
    match when {
        When::Auto => clap::ColorChoice::Auto,
        When::Always => clap::ColorChoice::Always,
        When::Never => clap::ColorChoice::Never,
    }
}

/// Decides for this process.
pub fn decide(when: When) {
    let variable = |name| std::env::var_os(name).unwrap_or_default();
    let auto =
        || std::io::stderr().is_terminal() && variable("NO_COLOR").is_empty() && variable("TERM") != *"dumb";
    let _ = COLOURED.set(match when {
        When::Always => true,
        When::Never => false,
        When::Auto => auto(),
    });
}

/// The word that a message begins with (`error: `), in its colour.
pub fn painted(kind: &str) -> String {
    let colour = match kind.split(':').next() {
        Some("error") => "1;31",
        Some("warning") => "1;33",
        Some("hint") => "1;36",
        _ => return kind.into(),
    };
    if *COLOURED.get().unwrap_or(&false) { format!("\x1b[{colour}m{kind}\x1b[0m") } else { kind.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_choice_before_the_operands_counts() {
        let typed = |words: &str| typed(&words.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert_eq!(typed("kmer-leader r"), When::Auto);
        assert_eq!(typed("kmer-leader --color always r"), When::Always);
        assert_eq!(typed("kmer-leader --color=never r"), When::Never);
        assert_eq!(typed("kmer-leader --color=never --color always"), When::Always);
        assert_eq!(typed("kmer-leader -- --color always"), When::Auto);
        assert_eq!(typed("kmer-leader --color loud"), When::Auto);
        assert_eq!(typed("kmer-leader --color"), When::Auto);
    }
}
