//! The sections of the page: what is drawn, and the same in numbers.

use super::About;
use super::chart::{Chart, both};
use super::scale::{Scale, label};
use super::text::{Table, escape, grouped};
use crate::progress::figures::bytes;
use kmer::codec::write_kmer;
use kmer_worker::trace::{Event, What};
use std::collections::BTreeSet;
use std::fmt::{Display, Write as _};

/// Workers that have a line of their own in the timeline; more are in the table only.
const LINES: usize = 64;
/// Pixels of such a line.
const LINE: f64 = 20.0;
/// Pixels of a bar that is too short for a gap behind it.
const SHORT: f64 = 3.0;

fn section(title: &str, explained: &str, figure: &str, tables: &str) -> String {
    format!("<section><h2>{title}</h2><p>{explained}</p><figure>{figure}</figure>{tables}</section>")
}

fn details(what: &str, table: &str) -> String {
    format!("<details><summary>{what}</summary>{table}</details>")
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

impl About<'_> {
    fn worker(&self, slot: u16) -> String {
        let shared = &self.outcome.shared;
        if usize::from(slot) + 1 == shared.slots.len() {
            "leader".into()
        } else if Some(slot) == shared.feeder_slot() {
            "feeder".into()
        } else {
            format!("worker {slot}")
        }
    }

    /// How many k-mers are in how many rows.
    pub(super) fn spectrum(&self) -> String {
        let points: Vec<(u32, u64)> = self.entries.histogram.iter().flat_map(|tally| tally.iter()).collect();
        let Some(most) = points.last().map(|(rows, _)| *rows) else {
            return section("Spectrum", "There are no k-mers.", "", "");
        };
        let highest = points.iter().map(|(_, kmers)| *kmers).max().unwrap_or(1);
        let unit = self.unit;
        let alt = format!(
            "k-mers by number of {unit}, both axes logarithmic: up to {highest} k-mers in equally many {unit}, and up to {most} {unit}"
        );
        let figure = both(
            |width| if width > 500.0 { 360.0 } else { 300.0 },
            58.0,
            |frame| {
                let x = Scale::log((0.9, f64::from(most).max(10.0) * 1.1), frame.across());
                let y = Scale::log((0.6, (highest as f64).max(10.0) * 1.5), frame.up());
                let mut chart = Chart::new(frame, &alt);
                chart.x_axis(&x, label, &format!("{unit} that a k-mer is in"));
                chart.y_axis(&y, label, "number of k-mers");
                if let Some(threshold) = self.facts.threshold.filter(|t| *t > 0 && *t <= u64::from(most)) {
                    chart.mark(x.at(threshold as f64), "threshold");
                }
                // Points that fall on one another are drawn once.
                let places: BTreeSet<(i64, i64)> = points
                    .iter()
                    .map(|(rows, kmers)| (x.at(f64::from(*rows)), y.at(*kmers as f64)))
                    .map(|(x, y)| ((x * 2.0).round() as i64, (y * 2.0).round() as i64))
                    .collect();
                let mut d = String::new();
                for (x, y) in places {
                    let _ = write!(d, "M{} {}h0", x as f64 / 2.0, y as f64 / 2.0);
                }
                chart.path("dots", &d, "");
                chart.end()
            },
        );
        let explained = format!(
            "How many k-mers are in 1, 2, 3, ... {unit}: all {} different k-mers, reported or not. Both axes are logarithmic.",
            grouped(points.iter().map(|(_, kmers)| kmers).sum())
        );
        section("Spectrum", &explained, &figure, &details("Numbers", &self.spectrum_table(&points)))
    }

    fn spectrum_table(&self, points: &[(u32, u64)]) -> String {
        let caption = format!("k-mers by number of {}", self.unit);
        let mut table = Table::new(&caption, &[self.unit, "k-mers", "share of k-mers"]);
        let total: u64 = points.iter().map(|(_, kmers)| kmers).sum();
        for power in 0..32 {
            let (from, to) = (1u32 << power, (2u64 << power) - 1);
            let within = |(rows, _): &&(u32, u64)| *rows >= from && u64::from(*rows) <= to;
            let kmers: u64 = points.iter().filter(within).map(|(_, kmers)| kmers).sum();
            if kmers > 0 {
                let range = if power == 0 { "1".into() } else { format!("{from} to {to}") };
                let share = format!("{:.3} %", kmers as f64 * 100.0 / total as f64);
                table.named_row(&format!("spectrum.{from}"), &[&range, &kmers, &share]);
            }
        }
        table.end()
    }

    /// The k-mers in the most rows.
    pub(super) fn most_frequent(&self) -> String {
        let entries =
            self.entries.top.as_ref().map(super::super::report::top::Top::sorted).unwrap_or_default();
        let (k, bits, unit) = (self.facts.k, self.facts.occur_bitlen, self.unit);
        let most = entries.first().map_or(1, |entry| entry.1);
        let mut columns = vec!["k-mer"];
        if bits > 0 {
            columns.push("time in the row");
        }
        let total = self.facts.total_rows.max(1) as f64;
        // A k-mer may occur more than once in a row, so occurrences are no share of rows.
        let shares = unit == "rows";
        columns.push(unit);
        columns.extend(shares.then_some("share of rows"));
        columns.push("");
        let caption = format!("The bars are to scale: a full one is {}", grouped(most.into()));
        let mut table = Table::lettered(&caption, &columns);
        for (key, rows) in &entries {
            let mut letters = Vec::new();
            write_kmer(key >> bits, k, &mut letters);
            let letters = String::from_utf8_lossy(&letters).into_owned();
            let nth = (key & ((1 << bits) - 1)) + 1;
            let percent = format!("{:.3} %", f64::from(*rows) * 100.0 / total);
            let mut cells: Vec<&dyn Display> = vec![&letters];
            if bits > 0 {
                cells.push(&nth);
            }
            cells.push(rows);
            if shares {
                cells.push(&percent);
            }
            table.barred_row(&cells, f64::from(*rows) / f64::from(most));
        }
        let explained = format!("The {} k-mers in the most {unit}, reported or not.", entries.len());
        format!("<section><h2>Most frequent k-mers</h2><p>{explained}</p>{}</section>", table.end())
    }

    fn began(&self) -> u64 {
        let passes = self.record.passes.iter().map(|pass| pass.began);
        passes.chain(self.record.events.iter().map(|event| event.asked)).min().unwrap_or(0)
    }

    fn ended(&self) -> u64 {
        self.record.passes.iter().map(|pass| pass.ended).max().unwrap_or(0)
    }

    /// What each worker did when.
    pub(super) fn timeline(&self) -> String {
        let (events, began) = (&self.record.events, self.began());
        let slots: Vec<u16> = events
            .iter()
            .map(|e| e.slot)
            .chain(self.record.deaths.iter().map(|d| d.slot))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let shown = &slots[..slots.len().min(LINES)];
        let (units, stripes) = self.tasks();
        let alt = format!(
            "a line for each of {} workers: when it was at work on {units} units and {stripes} stripes, over {:.2} seconds",
            slots.len(),
            seconds(self.ended().saturating_sub(began))
        );
        let figure = both(
            |_| 82.0 + LINE * shown.len().max(1) as f64,
            70.0,
            |frame| {
                let x = Scale::linear((0.0, seconds(self.ended().saturating_sub(began))), frame.across());
                let mut chart = Chart::new(frame, &alt);
                chart.x_axis(&x, label, "seconds since the segment was made");
                let place = |nanos: u64| x.at(seconds(nanos.saturating_sub(began)));
                for (line, slot) in shown.iter().enumerate() {
                    let y = frame.up().1 + (line as f64 + 0.5) * LINE;
                    chart.text(frame.left - 6.0, y + 4.5, "end", &self.worker(*slot));
                    let own = |what: fn(&What) -> bool| {
                        events.iter().filter(move |e| e.slot == *slot && what(&e.what))
                    };
                    let units = own(|what| matches!(what, What::Unit(_)));
                    let stripes = own(|what| matches!(what, What::Stripe(_)));
                    chart.path("unit", &bars(units, &place, y), "units");
                    chart.path("stripe", &bars(stripes, &place, y), "stripes");
                    for death in self.record.deaths.iter().filter(|d| d.slot == *slot) {
                        let x = place(death.at);
                        let cross = format!("M{:.1} {:.1}l10 10m0 -10l-10 10", x - 5.0, y - 5.0);
                        chart.path("death", &cross, &format!("died: {}", death.how));
                    }
                }
                for pass in &self.record.passes {
                    if pass.drain > 0 {
                        chart.mark(place(pass.drain), "drain");
                    }
                }
                chart.end()
            },
        );
        let mut explained = String::from(
            "When each worker had claimed something: <span class=\"key\"></span>a unit of blocks, until its commit, <span class=\"key two\"></span>a stripe, until its table was published. A cross is a death.",
        );
        if slots.len() > shown.len() {
            let _ = write!(explained, " Only the first {} workers are drawn.", shown.len());
        }
        if self.record.lost > 0 {
            let _ = write!(explained, " The first {} tasks were not noted.", self.record.lost);
        }
        section("Timeline", &explained, &figure, &details("Numbers", &self.timeline_table(&slots)))
    }

    /// Units and stripes that were noted.
    fn tasks(&self) -> (usize, usize) {
        let units = self.record.events.iter().filter(|e| matches!(e.what, What::Unit(_))).count();
        (units, self.record.events.len() - units)
    }

    fn timeline_table(&self, slots: &[u16]) -> String {
        let columns = ["worker", "units", "seconds", "longest, ms", "stripes", "seconds", "longest, ms"];
        let mut table = Table::new("Tasks of each worker, from claim to commit", &columns);
        for slot in slots {
            let of = |unit: bool| {
                let own = self.record.events.iter().filter(|e| e.slot == *slot);
                let times: Vec<u64> = own
                    .filter(|e| matches!(e.what, What::Unit(_)) == unit)
                    .map(|e| e.ended - e.claimed)
                    .collect();
                let (sum, longest) = (times.iter().sum(), times.iter().max().copied().unwrap_or(0));
                (times.len(), format!("{:.3}", seconds(sum)), format!("{:.2}", longest as f64 / 1e6))
            };
            let (unit, stripe) = (of(true), of(false));
            let name = self.worker(*slot);
            let field = format!("units.{slot}");
            table.named_row(&field, &[&name, &unit.0, &unit.1, &unit.2, &stripe.0, &stripe.1, &stripe.2]);
        }
        table.end()
    }

    /// How long claims took: the wait for the lock is in them.
    pub(super) fn claims(&self) -> String {
        let columns = ["claims of", "claims", "mean, µs", "99 % below, µs", "longest, µs", "sum, ms"];
        let mut table = Table::new("Time from asking for a task to having it", &columns);
        for (name, unit) in [("units", true), ("stripes", false)] {
            let tasks = self.record.events.iter().filter(|e| matches!(e.what, What::Unit(_)) == unit);
            let mut waits: Vec<u64> = tasks.map(|e| e.claimed - e.asked).collect();
            waits.sort_unstable();
            let Some(longest) = waits.last().copied() else { continue };
            let (sum, most) = (waits.iter().sum::<u64>(), waits[(waits.len() * 99).div_ceil(100) - 1]);
            let micros = |nanos: u64| format!("{:.1}", nanos as f64 / 1e3);
            let (mean, most, longest) = (micros(sum / waits.len() as u64), micros(most), micros(longest));
            let sum = format!("{:.3}", sum as f64 / 1e6);
            table.named_row(&format!("claims.{name}"), &[&name, &waits.len(), &mean, &most, &longest, &sum]);
        }
        let explained = "Units are claimed in order under the shared lock, so that time is at most what was waited for it; stripes are drawn without a lock.";
        format!("<section><h2>Lock waits</h2><p>{explained}</p>{}</section>", table.end())
    }

    /// How much is in each stripe.
    pub(super) fn stripes(&self) -> String {
        let mut sizes: Vec<u64> = self.outcome.scan.stripes.iter().map(|stripe| stripe.kmers).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        let (count, sum) = (sizes.len(), sizes.iter().sum::<u64>());
        let (Some(largest), Some(least)) = (sizes.first().copied(), sizes.last().copied()) else {
            return String::new();
        };
        let mean = sum as f64 / count as f64;
        let alt = format!(
            "k-mers in each of {count} stripes, largest first: from {largest} to {least}, mean {mean:.0}"
        );
        let figure = both(
            |width| if width > 500.0 { 280.0 } else { 240.0 },
            58.0,
            |frame| {
                let x = Scale::linear((0.0, count as f64), frame.across());
                let y = Scale::linear((0.0, largest as f64), frame.up());
                let mut chart = Chart::new(frame, &alt);
                chart.x_axis(&x, label, "stripes, largest first");
                chart.y_axis(&y, label, "k-mers in a stripe");
                let mut d = format!("M{} {}", x.at(0.0), y.at(0.0));
                // A step each, or several stripes in one where there are more of them than half pixels.
                let step = (count as f64 / (2.0 * frame.width)).ceil().max(1.0) as usize;
                for (at, size) in sizes.iter().enumerate().step_by(step) {
                    let end = (at + step).min(count);
                    let _ = write!(d, "V{:.1}H{:.1}", y.at(*size as f64), x.at(end as f64));
                }
                let _ = write!(d, "V{}z", y.at(0.0));
                chart.path("area", &d, "");
                chart.path(
                    "mark",
                    &format!("M{} {:.1}H{}", frame.left, y.at(mean), frame.across().1),
                    "mean",
                );
                chart.end()
            },
        );
        let mut table = Table::new("k-mers in a stripe", &["", "k-mers"]);
        table.named_row("stripes.sum", &[&"all stripes", &sum]);
        table.named_row("stripes.largest", &[&"largest", &largest]);
        table.named_row("stripes.median", &[&"median", &sizes[count / 2]]);
        table.named_row("stripes.least", &[&"least", &least]);
        let explained = format!(
            "How evenly the k-mers are dealt into {count} stripes; the dashed line is the mean. The largest has {:.2} times as many.",
            if mean > 0.0 { largest as f64 / mean } else { 1.0 }
        );
        section("Stripes", &explained, &figure, &table.end())
    }

    /// The segment's memory over time.
    pub(super) fn memory(&self) -> String {
        let (looks, began) = (&self.record.memory, self.began());
        let peak = looks.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
        let alt =
            format!("bytes that the segment took over the time of the run, {} at the most", bytes(peak));
        let figure = both(
            |width| if width > 500.0 { 280.0 } else { 240.0 },
            70.0,
            |frame| {
                let x = Scale::linear((0.0, seconds(self.ended().saturating_sub(began))), frame.across());
                // Round values of the unit in which the labels are.
                let unit = 1024f64.powi(((peak.max(1) as f64).log2() / 10.0).floor() as i32);
                let y = Scale::linear((0.0, peak as f64 / unit * 1.05), frame.up());
                let mut chart = Chart::new(frame, &alt);
                chart.x_axis(&x, label, "seconds since the segment was made");
                let name = bytes(unit as u64);
                let name = name.split(' ').next_back().unwrap_or("B");
                chart.y_axis(&y, |value| format!("{} {name}", label(value)), "segment");
                let mut d = String::new();
                for (at, bytes) in looks {
                    let letter = if d.is_empty() { 'M' } else { 'L' };
                    let x = x.at(seconds(at.saturating_sub(began)));
                    let _ = write!(d, "{letter}{x:.1} {:.1}", y.at(*bytes as f64 / unit));
                }
                chart.path("line", &d, "");
                chart.end()
            },
        );
        let mut table = Table::new("Memory", &["", "bytes", ""]);
        table.named_row("memory.segment", &[&"segment at its largest", &peak, &bytes(peak)]);
        for (name, what, who) in [
            ("memory.leader", "leader, resident at the most", nix::sys::resource::UsageWho::RUSAGE_SELF),
            ("memory.worker", "largest worker", nix::sys::resource::UsageWho::RUSAGE_CHILDREN),
        ] {
            let usage =
                nix::sys::resource::getrusage(who).map_or(0, |usage| usage.max_rss().max(0) as u64) * 1024;
            if usage > 0 {
                table.named_row(name, &[&what, &usage, &bytes(usage)]);
            }
        }
        let explained = format!(
            "Bytes that the segment took in {}, looked at every 50 ms or less often. What a process has of it mapped is in the process's figure too.",
            escape(&self.plan.room.path().to_string_lossy())
        );
        section("Memory", &explained, &figure, &table.end())
    }

    /// Who died, and what followed.
    pub(super) fn deaths(&self) -> String {
        let (deaths, began) = (&self.record.deaths, self.began());
        if deaths.is_empty() {
            return "<section><h2>Deaths and replacements</h2><p>No worker died.</p></section>".into();
        }
        let mut table = Table::new("Deaths of workers", &["worker", "after, s", "how"]);
        for death in deaths {
            let after = format!("{:.3}", seconds(death.at.saturating_sub(began)));
            table.row(&[&self.worker(death.slot), &after, &death.how]);
        }
        format!(
            "<section><h2>Deaths and replacements</h2><p>Workers that died: {}; started in their place: {}. The result is what it would have been without.</p>{}</section>",
            self.outcome.deaths,
            self.outcome.respawns,
            table.end()
        )
    }
}

/// Bars from claim to commit, with a gap at the end where there is room for one; very short ones that touch on the screen are one.
fn bars<'a>(events: impl Iterator<Item = &'a Event>, place: &dyn Fn(u64) -> f64, y: f64) -> String {
    let mut d = String::new();
    let mut open: Option<(f64, f64)> = None;
    let mut put = |(from, to): (f64, f64)| {
        let gap = if to - from > SHORT { 0.8 } else { 0.0 };
        let _ = write!(d, "M{from:.1} {y}H{:.1}", (to - gap).max(from + 0.3));
    };
    for event in events {
        let (from, to) = (place(event.claimed), place(event.ended));
        open = match open {
            Some((begin, end)) if from - end < 0.4 && to - begin < SHORT => Some((begin, end.max(to))),
            Some(bar) => {
                put(bar);
                Some((from, to))
            }
            None => Some((from, to)),
        };
    }
    open.into_iter().for_each(&mut put);
    d
}
