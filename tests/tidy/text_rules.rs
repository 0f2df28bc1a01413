//! What no text file of the tree may contain: leftovers and paths of one machine.

use crate::assert_none;
use crate::source;

/// Notes to oneself. Put together here so that this file does not contain them.
fn leftovers() -> Vec<String> {
    ["TO DO", "FIX ME", "XX X", "HA CK", "WI P"]
        .iter()
        .map(|word| word.replace(' ', ""))
        .collect()
}

/// Folders that exist on one developer's machine only.
fn machine_paths() -> Vec<String> {
    ["/wo rk/", "/ro ot/", "/ho me/", "/Use rs/"]
        .iter()
        .map(|path| path.replace(' ', ""))
        .collect()
}

#[test]
fn nothing_is_left_over() {
    let words = leftovers();
    let mut findings = Vec::new();
    for file in source::all() {
        findings.extend(
            lines_with(&file.text, |line| words.iter().any(|word| has_word(line, word)))
                .map(|n| format!("{}:{n}", file.path)),
        );
        if file.is_rust() {
            findings.extend(
                lines_with(&file.text, |line| line.trim_start().starts_with("#[ignore"))
                    .map(|n| format!("{}:{n}: ignored test", file.path)),
            );
        }
    }
    assert_none("leftover", &findings);
}

#[test]
fn no_machine_paths() {
    let paths = machine_paths();
    let mut findings = Vec::new();
    for file in source::all() {
        findings.extend(
            lines_with(&file.text, |line| paths.iter().any(|path| names_path(line, path)))
                .map(|n| format!("{}:{n}", file.path)),
        );
    }
    assert_none("path of one machine", &findings);
}

#[test]
fn lines_are_clean() {
    let mut findings = Vec::new();
    for file in source::all() {
        findings.extend(
            lines_with(&file.text, |line| line.ends_with(' ') || line.ends_with('\t'))
                .map(|n| format!("{}:{n}: trailing space", file.path)),
        );
        if !file.text.is_empty() && !file.text.ends_with('\n') {
            findings.push(format!("{}: no newline at the end", file.path));
        }
    }
    assert_none("whitespace", &findings);
}

#[test]
fn the_rules_find_what_they_ban() {
    let word = &leftovers()[0];
    assert!(has_word(&format!("// {word}: later"), word));
    assert!(!has_word(&format!("let x{word}S = 1;"), word));
    assert!(names_path(&format!("cd {}x", machine_paths()[0]), &machine_paths()[0]));
    assert!(!names_path(
        &format!("see a{}x", machine_paths()[0]),
        &machine_paths()[0]
    ));
}

fn lines_with<'a>(text: &'a str, bad: impl Fn(&str) -> bool + 'a) -> impl Iterator<Item = usize> + 'a {
    text.lines()
        .enumerate()
        .filter(move |(_, line)| bad(line))
        .map(|(index, _)| index + 1)
}

/// The word stands alone, not inside a longer one.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let joins = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !joins(before) && !joins(after)
    })
}

/// The path starts there: it is not the tail of a longer one.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        !line[..at]
            .chars()
            .next_back()
            .is_some_and(|c| c.is_alphanumeric() || "._-}/".contains(c))
    })
}
