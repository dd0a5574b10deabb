//! Bugs planted on purpose, to see that the harnesses find them: only in builds with `--cfg planted_bugs`, and there the one that the environment
//! names (`KMER_PLANTED`). `tests/planted.sh` builds and runs them all.

/// False only in builds with `--cfg no_recovery`, which leave out what a run in peace does for the sake of deaths and damage alone, so that its cost
/// can be measured: `bench/recovery.sh`. Never in a build for use.
pub const RECOVERS: bool = cfg!(not(no_recovery));

/// True when `bug` is the one to show. Always false, and gone from the program, unless built with `--cfg planted_bugs`.
#[inline(always)]
pub fn is(bug: &str) -> bool {
    #[cfg(planted_bugs)]
    {
        static PLANTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
        PLANTED.get_or_init(|| std::env::var("KMER_PLANTED").ok()).as_deref() == Some(bug)
    }
    #[cfg(not(planted_bugs))]
    {
        let _ = bug;
        false
    }
}
