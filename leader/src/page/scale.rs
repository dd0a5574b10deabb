//! From values to places in a picture, and back to labels at round values.

/// A straight or a logarithmic scale.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    domain: (f64, f64),
    place: (f64, f64),
    log: bool,
}

impl Scale {
    /// `domain` is spread evenly over `place`; an empty one is made wider.
    pub fn linear(domain: (f64, f64), place: (f64, f64)) -> Self {
        let (from, to) = domain;
        Self { domain: (from, if to > from { to } else { from + 1.0 }), place, log: false }
    }

    /// The same by logarithms. Both ends are above zero.
    pub fn log(domain: (f64, f64), place: (f64, f64)) -> Self {
        let (from, to) = domain;
        Self { domain: (from, if to > from { to } else { from * 10.0 }), place, log: true }
    }

    fn share(&self, value: f64) -> f64 {
        let f = |v: f64| if self.log { v.max(f64::MIN_POSITIVE).log10() } else { v };
        let (from, to) = (f(self.domain.0), f(self.domain.1));
        ((f(value) - from) / (to - from)).clamp(0.0, 1.0)
    }

    /// The place of a value; values outside are at the end.
    pub fn at(&self, value: f64) -> f64 {
        self.place.0 + self.share(value) * (self.place.1 - self.place.0)
    }

    /// Round values, about `about` of them on a straight scale; on a logarithmic one powers of ten, and more where there are few.
    pub fn ticks(&self, about: usize) -> Vec<f64> {
        let (from, to) = self.domain;
        if !self.log {
            let step = round_step((to - from) / about.max(1) as f64);
            let first = (from / step).ceil() as i64;
            return (first..).map(|n| n as f64 * step).take_while(|v| *v <= to * (1.0 + 1e-12)).collect();
        }
        let (first, last) = (from.log10().floor() as i32, to.log10().ceil() as i32);
        let factors: &[f64] = if to / from > 500.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let all = (first..=last).flat_map(|power| factors.iter().map(move |f| f * 10f64.powi(power)));
        let inside: Vec<f64> = all.filter(|v| *v >= from * 0.999 && *v <= to * 1.001).collect();
        let every = inside.len().div_ceil(about.max(1) * 2).max(1);
        inside.into_iter().step_by(every).collect()
    }
}

/// 1, 2 or 5 times a power of ten, not less than `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|f| f * power).find(|s| *s >= step * 0.999).unwrap_or(power * 10.0)
}

/// A label without digits that say nothing: `1500`, `0.25`, `20 k`, `3 M`.
pub fn label(value: f64) -> String {
    let (value, unit) = match value.abs() {
        v if v >= 1e12 => (value / 1e12, " T"),
        v if v >= 1e9 => (value / 1e9, " G"),
        v if v >= 1e6 => (value / 1e6, " M"),
        v if v >= 1e4 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{}{unit}", if text.is_empty() || text == "-0" { "0" } else { text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_to_scale() {
        let linear = Scale::linear((0.0, 10.0), (100.0, 0.0));
        assert_eq!([0.0, 2.5, 10.0, 99.0].map(|v| linear.at(v)), [100.0, 75.0, 0.0, 0.0]);
        let log = Scale::log((1.0, 1000.0), (0.0, 300.0));
        let places = [1.0, 10.0, 100.0, 1000.0].map(|v| log.at(v).round());
        assert_eq!(places, [0.0, 100.0, 200.0, 300.0]);
        assert_eq!(Scale::linear((3.0, 3.0), (0.0, 8.0)).at(3.0), 0.0);
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(Scale::linear((0.0, 1.1), (0.0, 1.0)).ticks(5).len(), 3);
        assert_eq!(Scale::linear((0.0, 10.0), (0.0, 1.0)).ticks(5), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(Scale::log((0.5, 2e6), (0.0, 1.0)).ticks(8).len(), 7);
        assert_eq!(Scale::log((0.9, 61.0), (0.0, 1.0)).ticks(8), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0]);
        assert_eq!(Scale::log((1.0, 50.0), (0.0, 1.0)).ticks(8), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0]);
        for value in [1e-9, 1.0, 1e18] {
            assert!(!Scale::linear((0.0, value), (0.0, 1.0)).ticks(4).is_empty());
        }
    }

    #[test]
    fn labels() {
        let cases =
            [(0.0, "0"), (0.25, "0.25"), (1500.0, "1500"), (20_000.0, "20 k"), (3e6, "3 M"), (1e13, "10 T")];
        for (value, text) in cases {
            assert_eq!(label(value), text);
        }
    }
}
