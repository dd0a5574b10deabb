//! Figures for people: three digits that count, and a unit.

use std::time::Duration;

fn scaled(number: f64, step: f64, units: &[&str]) -> String {
    let (mut number, mut unit) = (number, 0);
    // 999.5 would be shown as 1000.
    while number >= step * 0.9995 && unit + 1 < units.len() {
        number /= step;
        unit += 1;
    }
    let space = if units[unit].is_empty() { "" } else { " " };
    let digits = if unit == 0 || number >= 99.95 { 0 } else { 1 };
    format!("{number:.digits$}{space}{}", units[unit])
}

/// A count, like `1.2 M`.
pub fn count(number: u64) -> String {
    scaled(number as f64, 1000.0, &["", "k", "M", "G", "T"])
}

/// Bytes, like `84.0 MiB`.
pub fn bytes(number: u64) -> String {
    scaled(number as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// A time, like `4 s`, `2 min 10 s` or `3 h 5 min`.
pub fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    match seconds {
        0..=59 => format!("{seconds} s"),
        60..=3599 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// A share, like `20 %`; never 100 before all is done.
pub fn share(done: u64, total: u64) -> String {
    format!("{} %", (u128::from(done.min(total)) * 100).checked_div(total.into()).unwrap_or(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1000), "1.0 k");
        assert_eq!(count(999_999), "1.0 M");
        assert_eq!(count(123_456_789), "123 M");
        assert_eq!(count(u64::MAX), "18446744 T");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(1 << 30), "1.0 GiB");
        assert_eq!(time(Duration::from_millis(3600)), "4 s");
        assert_eq!(time(Duration::from_secs(130)), "2 min 10 s");
        assert_eq!(time(Duration::from_secs(11_100)), "3 h 5 min");
        assert_eq!(share(999, 1000), "99 %");
        assert_eq!(share(0, 0), "100 %");
    }
}
