//! The threshold: a k-mer is reported that is in more rows than a share of all of them, or than a number, as in the extension.

use crate::select::SelectArgs;

/// What the threshold is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ThresholdRule {
    /// Share of all rows.
    pub rate: f64,
    /// Rows; 0 is no limit.
    pub nrow: u64,
}

impl ThresholdRule {
    /// From what was typed. A row count lowers the default rate's threshold, as in the extension; beside --min-rows and the like it stands for itself.
    pub fn typed(rate: Option<f64>, nrow: Option<u32>, select: &SelectArgs) -> Self {
        let narrowed = select.min_rows.or(select.max_rows).or(select.top).is_some();
        let alone = narrowed && nrow.is_some();
        Self { rate: rate.unwrap_or(if alone { 1.0 } else { 0.5 }), nrow: nrow.unwrap_or(0).into() }
    }

    /// k-mers in more rows than this are reported.
    pub fn threshold(&self, total_rows: u64) -> u64 {
        let by_rate = (total_rows as f64 * self.rate).floor() as u64;
        if self.nrow > 0 { by_rate.min(self.nrow) } else { by_rate }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_is_floored_and_lowered() {
        let rule = |rate, nrow| ThresholdRule { rate, nrow };
        assert_eq!(rule(0.5, 0).threshold(5), 2);
        assert_eq!(rule(0.5, 1).threshold(5), 1);
        assert_eq!(rule(0.5, 9).threshold(5), 2);
        assert_eq!(rule(0.0, 0).threshold(5), 0);
        assert_eq!(rule(1.0, 0).threshold(5), 5);
        assert_eq!(
            rule(0.29, 0).threshold(100),
            28,
            "0.29 * 100 is a little less than 29, as in the extension"
        );
    }
}
