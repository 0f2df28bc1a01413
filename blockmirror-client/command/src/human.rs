//! Figures and texts for people.

use std::borrow::Cow;

/// A size: "512 B", "1.5 GiB", "10 GiB", "123 MiB".
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    // From here on it would be printed as 1024.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = usize::from(value < 99.95 && (value * 10.0).round() % 10.0 != 0.0);
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// A rate, from bytes per second.
pub fn rate(bytes_per_second: f64) -> String {
    // A float-to-integer cast saturates, and turns "no number" into 0.
    format!("{}/s", bytes(bytes_per_second as u64))
}

/// A time: "0.4 s", "12 s", "2 min 5 s", "3 h 12 min", "5 d 3 h".
pub fn duration(seconds: f64) -> String {
    if seconds < 9.95 {
        return format!("{:.1} s", seconds.max(0.0));
    }
    let total = seconds.round() as u64;
    let (minutes, hours, days) = (total / 60, total / 3600, total / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{total} s"),
        (0, 0, _) => format!("{minutes} min {} s", total % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// The part of `whole` that is `part`, as "45 %"; never "100 %" before it is all.
pub fn percent(part: u64, whole: u64) -> String {
    if part >= whole {
        return "100 %".to_owned();
    }
    format!("{} %", u128::from(part) * 100 / u128::from(whole))
}

/// The text without control characters: what peers and servers say must not steer the terminal.
pub fn clean(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        Cow::Owned(text.replace(char::is_control, "?"))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (99 << 10, "99 KiB"),
            ((100 << 20) - 1, "100 MiB"),
            ((123 << 20) + (1 << 19), "124 MiB"),
            ((1 << 30) - 1, "1 GiB"),
            (10 << 30, "10 GiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(bytes(count), text, "{count}");
        }
        assert_eq!(rate(1.5e6), "1.4 MiB/s");
        assert_eq!(rate(f64::NAN), "0 B/s");
    }

    #[test]
    fn durations() {
        for (seconds, text) in [
            (-1.0, "0.0 s"),
            (0.04, "0.0 s"),
            (9.94, "9.9 s"),
            (9.96, "10 s"),
            (59.4, "59 s"),
            (59.6, "1 min 0 s"),
            (11_520.0, "3 h 12 min"),
            (443_000.0, "5 d 3 h"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn percents() {
        assert_eq!(percent(0, 0), "100 %");
        assert_eq!(percent(999, 1000), "99 %");
        assert_eq!(percent(u64::MAX - 1, u64::MAX), "99 %");
        assert_eq!(percent(2000, 1000), "100 %");
    }

    #[test]
    fn terminals_are_not_steered() {
        assert_eq!(clean("a\x1b[2Jb\nc"), "a?[2Jb?c");
    }
}
