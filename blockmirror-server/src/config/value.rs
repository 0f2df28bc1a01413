//! Sizes, durations, and the nearest known word to a misspelt one.

use std::time::Duration;

const SIZE_UNITS: [(&str, u64); 12] = [
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("PB", 1_000_000_000_000_000),
];

const DURATION_UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Bytes of "4096", "64MiB", "10 GiB", "10GB". A bare letter ("10G") is refused: people read it in two ways.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, unit) = split(text);
    let number: u64 = digits
        .replace('_', "")
        .parse()
        .map_err(|_| format!("\"{text}\" is not a size"))?;
    let Some((_, factor)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(unknown_size_unit(text, digits, unit));
    };
    number
        .checked_mul(*factor)
        .ok_or_else(|| format!("\"{text}\" is more than 64 bits can count"))
}

/// "500ms", "10s", "2m", "1h", "1d".
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let (digits, unit) = split(text);
    let number: u64 = digits.parse().map_err(|_| format!("\"{text}\" is not a duration"))?;
    if unit.is_empty() {
        return Err(format!("\"{text}\" has no unit (ms, s, m, h or d)"));
    }
    let Some((_, factor)) = DURATION_UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("\"{unit}\" is not a unit of time (ms, s, m, h or d)"));
    };
    number
        .checked_mul(*factor)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("\"{text}\" is more than 64 bits can count"))
}

/// Bytes for people: exact, in the largest binary unit that divides them.
pub(super) fn show_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut number = bytes;
    let mut unit = 0;
    while number != 0 && number.is_multiple_of(1024) && unit + 1 < UNITS.len() {
        number /= 1024;
        unit += 1;
    }
    format!("{number} {}", UNITS[unit])
}

/// The known word nearest to `word`, when one is near enough to be meant.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase();
    let tolerance = (word.chars().count() / 3).clamp(1, 3);
    known
        .iter()
        .map(|name| (distance(&word, &name.to_lowercase()), *name))
        .filter(|(distance, _)| *distance <= tolerance)
        .min()
        .map(|(_, name)| name)
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '_')
        .unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

fn unknown_size_unit(text: &str, digits: &str, unit: &str) -> String {
    let letter = unit.to_uppercase();
    let letter = letter.trim_end_matches(['B', 'I']);
    if matches!(letter, "K" | "M" | "G" | "T" | "P") {
        return format!(
            "\"{text}\" can be read in two ways: {digits}{letter}iB (powers of 1024) or {digits}{letter}B (powers of 1000)"
        );
    }
    format!("\"{unit}\" is not a unit of size (B, KiB, MiB, GiB, TiB, PiB, KB, MB, GB, TB, PB)")
}

/// Levenshtein distance, with a swap of neighbours counted as one.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let mut rows = vec![vec![0; right.len() + 1]; left.len() + 1];
    for (row, cells) in rows.iter_mut().enumerate() {
        cells[0] = row;
    }
    for (column, cell) in rows[0].iter_mut().enumerate() {
        *cell = column;
    }
    for row in 1..=left.len() {
        for column in 1..=right.len() {
            let changed = usize::from(left[row - 1] != right[column - 1]);
            let mut best = (rows[row - 1][column] + 1)
                .min(rows[row][column - 1] + 1)
                .min(rows[row - 1][column - 1] + changed);
            let swapped =
                row > 1 && column > 1 && left[row - 1] == right[column - 2] && left[row - 2] == right[column - 1];
            if swapped {
                best = best.min(rows[row - 2][column - 2] + 1);
            }
            rows[row][column] = best;
        }
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("64MiB"), Ok(64 << 20));
        assert_eq!(parse_size("10 GiB"), Ok(10 << 30));
        assert_eq!(parse_size("1_000KB"), Ok(1_000_000));
        assert_eq!(parse_size("0"), Ok(0));
        for wrong in [
            "",
            "GiB",
            "-1",
            "1.5GiB",
            "10G",
            "10gb",
            "10 bananas",
            "99999999PiB",
            "99999999999999999999",
        ] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
        let two_ways = parse_size("10G").err().unwrap_or_default();
        assert!(two_ways.contains("10GiB") && two_ways.contains("10GB"), "{two_ways}");
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(parse_duration("1d"), Ok(Duration::from_secs(86_400)));
        for wrong in [
            "",
            "10",
            "s",
            "10 sec",
            "-1s",
            "1.5s",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_for_people_are_exact() {
        assert_eq!(show_size(0), "0 B");
        assert_eq!(show_size(1023), "1023 B");
        assert_eq!(show_size(10 << 30), "10 GiB");
        assert_eq!(show_size((10 << 30) + 1), "10737418241 B");
    }

    #[test]
    fn nearest_words() {
        let keys = ["image", "size", "export", "read_only", "on_disconnect"];
        assert_eq!(nearest("imgae", &keys), Some("image"));
        assert_eq!(nearest("readonly", &keys), Some("read_only"));
        assert_eq!(nearest("Size", &keys), Some("size"));
        assert_eq!(nearest("on-disconnect", &keys), Some("on_disconnect"));
        assert_eq!(nearest("compression", &keys), None);
    }
}
