//! One line about a run's progress: how much of the phase is done, how fast, how long it will still take.

use super::Snapshot;
use super::figures::{bytes, count, share, time};
use shm_layout::state::Phase;
use std::time::{Duration, Instant};

/// Remembers where a phase began, so that rate and time left can be told. A run that was taken over begins with what was done before.
#[derive(Default)]
pub struct Pace {
    since: Option<(&'static str, u32, Instant, u64)>,
}

/// How fast it goes.
struct Speed {
    /// A second.
    rate: f64,
    /// Until the end of the phase, once that can be told.
    left: Option<Duration>,
}

impl Pace {
    /// True when the phase of that pass was seen before.
    pub fn is_of(&self, phase: Option<Phase>, pass: u32) -> bool {
        let seen = self.since.map(|(phase, pass, ..)| (phase, pass));
        seen.is_some() && seen == phase.map(|phase| (super::phase_name(phase), pass.saturating_add(1)))
    }

    fn speed(&mut self, phase: &'static str, pass: u32, now: Instant, done: u64, total: u64) -> Speed {
        let (.., start, before) = match self.since {
            Some(since) if (since.0, since.1) == (phase, pass) => since,
            _ => *self.since.insert((phase, pass, now, done)),
        };
        let (seconds, progress) =
            (now.saturating_duration_since(start).as_secs_f64(), done.saturating_sub(before));
        let rate = if seconds > 0.0 { progress as f64 / seconds } else { 0.0 };
        let left = total.saturating_sub(done) as f64 / rate;
        Speed { rate, left: (progress > 0).then(|| Duration::try_from_secs_f64(left).ok()).flatten() }
    }

    /// The line for what was seen at `now`, in parts of which the last ones may be left out where there is no room.
    pub fn parts(&mut self, seen: &Snapshot, now: Instant) -> Vec<String> {
        let (what, done, total) = match (seen.stripes_done, seen.stripes_total) {
            (Some(done), Some(total)) => ("stripes", done, total),
            _ => ("blocks", seen.blocks_done, seen.blocks_total),
        };
        let speed = self.speed(seen.phase, seen.pass, now, done, total);
        let pass =
            if seen.passes > 1 { format!(" pass {} of {}", seen.pass, seen.passes) } else { String::new() };
        let mut parts = vec![match total {
            0 => format!("{}{pass}: {done} parcels", seen.phase),
            _ => format!("{}{pass}: {done} of {total} {what} ({})", seen.phase, share(done, total)),
        }];
        // How long a stream is nobody knows before its end.
        parts.extend(left(&speed).filter(|_| total > 0));
        if speed.rate > 0.0 && total > 0 {
            parts.push(match what {
                "blocks" => {
                    let each = seen.bytes_total as f64 / seen.blocks_total.max(1) as f64;
                    format!("{}/s", bytes((speed.rate * each) as u64))
                }
                _ => format!("{} stripes/s", count(speed.rate.round() as u64)),
            });
        }
        parts.push(format!("{} k-mers", count(seen.kmers)));
        parts.push(format!("segment {}", bytes(seen.memory_bytes)));
        parts
    }

    /// The line for a result of which `done` of `total` k-mers are written.
    pub fn writing(&mut self, done: u64, total: u64, now: Instant) -> Vec<String> {
        let speed = self.speed("writing", 0, now, done, total);
        let mut parts =
            vec![format!("writing: {} of {} k-mers ({})", count(done), count(total), share(done, total))];
        parts.extend(left(&speed));
        parts.push(format!("{} k-mers/s", count(speed.rate as u64)));
        parts
    }
}

fn left(speed: &Speed) -> Option<String> {
    speed.left.map(|left| format!("{} left", time(left)))
}

/// As many parts as fit `width` characters, at least the first, cut if need be.
pub fn fit(parts: &[String], width: usize) -> String {
    let mut line = String::new();
    for part in parts {
        let comma = if line.is_empty() { "" } else { ", " };
        if !line.is_empty() && line.len() + comma.len() + part.len() > width {
            break;
        }
        line += comma;
        line += part;
    }
    line.chars().take(width).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(phase: &'static str, done: u64, stripes: Option<(u64, u64)>) -> Snapshot {
        Snapshot {
            phase,
            pass: 1,
            passes: 1,
            blocks_total: 1000,
            blocks_done: done,
            bytes_total: 8_192_000,
            bytes_done: 0,
            stripes_total: stripes.map(|s| s.1),
            stripes_done: stripes.map(|s| s.0),
            rows: 7,
            kmers: 1_234_567,
            memory_bytes: 3 << 20,
            workers_asked: 2,
            workers_launched: 2,
            recoveries: 0,
            error: None,
        }
    }

    #[test]
    fn rate_and_time_left_are_of_what_this_leader_saw() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let first = pace.parts(&seen("collecting", 200, None), start).join(", ");
        assert_eq!(first, "collecting: 200 of 1000 blocks (20 %), 1.2 M k-mers, segment 3.0 MiB");
        let later = pace.parts(&seen("collecting", 400, None), start + Duration::from_secs(10)).join(", ");
        assert_eq!(
            later,
            "collecting: 400 of 1000 blocks (40 %), 30 s left, 160 KiB/s, 1.2 M k-mers, segment 3.0 MiB"
        );
        // Another phase begins anew.
        let drain = pace.parts(&seen("draining", 1000, Some((3, 64))), start + Duration::from_secs(11));
        assert_eq!(drain[0], "draining: 3 of 64 stripes (4 %)");
        let drain = pace.parts(&seen("draining", 1000, Some((33, 64))), start + Duration::from_secs(21));
        assert_eq!(drain[1..3], ["10 s left", "3 stripes/s"]);
    }

    #[test]
    fn a_line_fits() {
        let parts = ["abc".to_owned(), "defg".into(), "h".into()];
        assert_eq!(fit(&parts, 80), "abc, defg, h");
        assert_eq!(fit(&parts, 11), "abc, defg");
        assert_eq!(fit(&parts, 8), "abc");
        assert_eq!(fit(&parts, 2), "ab");
    }
}
