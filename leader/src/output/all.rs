//! Everything that a run writes, opened before the work and finished after it.

use super::Output;
use super::same::{STDOUT, files_of, refuse_same};
use crate::cli::AnalysisArgs;
use crate::dense::write::Writer;
use crate::failure::Failure;
use crate::format::Form;
use crate::format::facts::Facts;
use crate::lead::Outcome;
use crate::partial::meta::Meta;
use crate::plan::Plan;
use crate::report::Entries;
use crate::signals::Signals;
use std::path::{Path, PathBuf};

/// Everything that a run writes. All of it is opened before the work begins, and none of it appears before all of it is written.
pub struct Outputs {
    /// None when it goes into the database alone.
    result: Option<Output>,
    histogram: Option<Output>,
    summary: Option<Output>,
    dense: Option<Output>,
    page: Option<Output>,
    partial: Option<Output>,
}

impl Outputs {
    /// Opens what was asked for. A named pipe is waited for, until somebody reads it or one of `signals` comes.
    ///
    /// # Errors
    /// When a file cannot be made.
    pub fn open(args: &AnalysisArgs, plan: &Plan, signals: &Signals) -> Result<Self, Failure> {
        refuse_same(&files_of(&plan.job), &named(args))?;
        let open = |path: Option<&Path>| Output::open_heard(path, Some(signals));
        let file = |path: &Option<PathBuf>| path.as_deref().map(|p| open(Some(p))).transpose();
        Ok(Self {
            result: result(args).map(|path| open(Some(path))).transpose()?,
            histogram: file(&args.select.histogram)?,
            summary: file(&args.format.summary_json)?,
            dense: file(&args.dense)?,
            page: file(&args.page.report)?,
            partial: file(&args.partial.partial)?,
        })
    }

    /// True when nothing would be left of all this if this process ended now.
    pub fn leave_nothing(&self) -> bool {
        let all = [&self.summary, &self.histogram, &self.dense, &self.page, &self.partial, &self.result];
        all.into_iter().flatten().all(Output::leaves_nothing)
    }

    /// Writes the result and the histogram, and tells `written` how many k-mers of how many it has.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn write(
        &mut self,
        form: &Form,
        facts: &Facts,
        entries: &Entries,
        written: &mut dyn FnMut(u64, u64),
    ) -> Result<(), Failure> {
        if let Some(result) = &mut self.result {
            form.write(facts, entries, result, written)?;
        }
        match (&mut self.histogram, &entries.histogram) {
            (Some(output), Some(tally)) => output.write(tally.to_text().as_bytes()),
            _ => Ok(()),
        }
    }

    /// The dense file, if it was asked for, for its writer; it comes back by [`Outputs::put_dense`].
    pub fn take_dense(&mut self) -> Option<Writer> {
        self.dense.take().map(Writer::new)
    }

    /// Takes the dense file back, which is written.
    pub fn put_dense(&mut self, output: Output) {
        self.dense = Some(output);
    }

    /// Writes the counts of a part, if they were asked for.
    ///
    /// # Errors
    /// As [`crate::partial::write::write`].
    pub fn write_partial(
        &mut self,
        plan: &Plan,
        outcome: &Outcome,
        facts: &Facts,
        entries: &Entries,
    ) -> Result<(), Failure> {
        let Some(output) = &mut self.partial else { return Ok(()) };
        crate::partial::write::write(&Meta::new(plan, outcome, facts)?, entries, output)
    }

    /// Writes the summary, if it was asked for.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn write_summary(&mut self, text: impl FnOnce() -> Result<String, Failure>) -> Result<(), Failure> {
        self.summary.as_mut().map_or(Ok(()), |output| output.write(text()?.as_bytes()))
    }

    /// Writes the page about the run, if it was asked for.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn write_page(&mut self, text: impl FnOnce() -> Result<String, Failure>) -> Result<(), Failure> {
        self.page.as_mut().map_or(Ok(()), |output| output.write(text()?.as_bytes()))
    }

    /// Brings all of it to where it can be lost no more: what can fail for lack of room fails before anything appears, here or elsewhere.
    ///
    /// # Errors
    /// As [`Output::sync`].
    pub fn sync(&mut self) -> Result<(), Failure> {
        let Self { summary, histogram, dense, page, partial, result } = self;
        [summary, histogram, dense, page, partial, result].into_iter().flatten().try_for_each(Output::sync)
    }

    /// Makes all of it stay.
    ///
    /// # Errors
    /// As [`Output::finish`].
    pub fn finish(mut self) -> Result<(), Failure> {
        self.sync()?;
        let all = [self.summary, self.histogram, self.dense, self.page, self.partial, self.result];
        all.into_iter().flatten().try_for_each(Output::finish)
    }
}

/// Where the result goes, if it goes anywhere but into the database.
fn result(args: &AnalysisArgs) -> Option<&Path> {
    let elsewhere = args.database.save || args.partial.partial.is_some();
    args.output.as_deref().or_else(|| (!elsewhere).then_some(Path::new(STDOUT)))
}

/// The outputs with the options that name them.
fn named(args: &AnalysisArgs) -> [(&'static str, Option<&Path>); 6] {
    [
        ("-o", result(args)),
        ("--histogram", args.select.histogram.as_deref()),
        ("--summary-json", args.format.summary_json.as_deref()),
        ("--dense", args.dense.as_deref()),
        ("--report", args.page.report.as_deref()),
        ("--partial", args.partial.partial.as_deref()),
    ]
}
