//! Sizes as people write them.

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

/// Bytes of "4096", "64MiB", "10 GiB", "10GB". A bare letter ("10G") is refused: people read it in two ways.
///
/// # Errors
/// What is wrong with the text.
pub fn parse(text: &str) -> Result<u64, String> {
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

/// The number and the unit behind it, "64 MiB" as ("64", "MiB"); either may be empty.
pub fn split(text: &str) -> (&str, &str) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse("4096"), Ok(4096));
        assert_eq!(parse("64MiB"), Ok(64 << 20));
        assert_eq!(parse("10 GiB"), Ok(10 << 30));
        assert_eq!(parse("1_000KB"), Ok(1_000_000));
        assert_eq!(parse("0"), Ok(0));
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
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let two_ways = parse("10G").err().unwrap_or_default();
        assert!(two_ways.contains("10GiB") && two_ways.contains("10GB"), "{two_ways}");
    }
}
