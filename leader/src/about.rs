//! What the program tells of itself: its version and what it can do here, completions for shells, manual pages.

use crate::cli::Cli;
use crate::failure::Failure;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use relation::catalog::Major;
use std::ffi::OsString;
use std::path::PathBuf;

/// Options of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Options of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Directory for a page of each subcommand [default: the main page to standard output]
    pub dir: Option<PathBuf>,
}

/// The script that a shell reads to complete our options.
pub fn completions(args: &CompletionsArgs) -> Vec<u8> {
    let mut script = Vec::new();
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command, name.clone(), &mut script);
    if args.shell == Shell::Bash {
        // The script looks for its subcommands under a name in which each dash is taken for one of them.
        let (cases, wanted) = (name.replace('-', "__subcmd__"), name.replace('-', "__"));
        let text = String::from_utf8_lossy(&script).replace(&format!("{cases}__"), &format!("{wanted}__"));
        script = text.replace(&format!("{cases})"), &format!("{wanted})")).into_bytes();
    }
    script
}

/// The main manual page; with a directory all pages are written there, and what is returned is empty.
///
/// # Errors
/// When a page cannot be written.
pub fn man(args: &ManArgs) -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    match &args.dir {
        Some(dir) => clap_mangen::generate_to(Cli::command(), dir)
            .map_err(|e| Failure::io("write manual pages into", dir, &e))?,
        None => clap_mangen::Man::new(Cli::command())
            .render(&mut page)
            .map_err(|e| Failure::error(format!("could not write the manual page: {e}")))?,
    }
    Ok(page)
}

/// Whether details are asked for beside the version: `-V -v`, `-Vv`, `--version --verbose`.
pub fn wants_details(args: &[OsString]) -> bool {
    let cluster =
        |word: &str| word.strip_prefix('-').is_some_and(|rest| !rest.starts_with('-') && rest.contains('v'));
    args.iter().skip(1).filter_map(|arg| arg.to_str()).any(|word| word == "--verbose" || cluster(word))
}

/// Version, build, vector instructions, and what of PostgreSQL can be read.
pub fn details() -> String {
    let versions: Vec<String> = Major::all().map(|major| major.number().to_string()).collect();
    let (first, last) =
        (versions.first().cloned().unwrap_or_default(), versions.last().cloned().unwrap_or_default());
    let kind = if cfg!(debug_assertions) { "with debug assertions" } else { "release" };
    let lines = [
        format!("kmer-leader {}", env!("CARGO_PKG_VERSION")),
        format!("build: {}-{}, {kind}", std::env::consts::ARCH, std::env::consts::OS),
        format!(
            "segment: layout {}, build {:016x} (kmer-worker must be of the same)",
            shm_layout::segment::LAYOUT_VERSION,
            kmer_worker::job::build_id()
        ),
        format!("vector instructions in use: {}", kmer::vector_level()),
        "relation files: PostgreSQL 8.3 and newer, pages of 8192 bytes, little endian".into(),
        format!("data directories: PostgreSQL {first} to {last}"),
    ];
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_wanted_in_every_spelling() {
        let wants = |words: &str| wants_details(&words.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert!(
            wants("kmer-leader -V -v")
                && wants("kmer-leader -Vv")
                && wants("kmer-leader --version --verbose")
        );
        assert!(!wants("kmer-leader -V") && !wants("kmer-leader --version"));
    }
}
