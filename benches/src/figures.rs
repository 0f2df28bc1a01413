//! Medians, ratios, spreads, and how figures are written.

use crate::fio::Sample;

/// The median of the ratios of each round: what slows the machine down for a while slows both sides of a ratio.
pub fn ratio(ours: &[Sample], theirs: &[Sample]) -> f64 {
    middle(ours.iter().zip(theirs).map(|(ours, theirs)| ours.iops / theirs.iops))
}

/// The median of a figure.
pub fn median(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> f64 {
    middle(samples.iter().map(figure))
}

/// The lowest and the highest, in units of the median.
pub fn spread(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> (f64, f64) {
    let median = median(samples, &figure);
    let (low, high) = samples
        .iter()
        .map(figure)
        .fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), value| {
            (low.min(value), high.max(value))
        });
    (low / median, high / median)
}

fn middle(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => 0.0,
        length if length % 2 == 1 => figures[middle],
        _ => f64::midpoint(figures[middle - 1], figures[middle]),
    }
}

/// A figure with its thousands set apart.
pub fn grouped(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let of = |values: &[f64]| {
            let samples: Vec<Sample> = values
                .iter()
                .map(|v| Sample {
                    iops: *v,
                    megabytes: 0.0,
                    p50: 0.0,
                    p99: 0.0,
                    cpu: 0.0,
                })
                .collect();
            median(&samples, |sample| sample.iops)
        };
        assert_eq!((of(&[3.0, 1.0, 2.0]), of(&[1.0, 4.0]), of(&[])), (2.0, 2.5, 0.0));
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(
            (grouped(12.4), grouped(1234.0), grouped(145_000.0)),
            ("12".into(), "1 234".into(), "145 000".into())
        );
    }
}
