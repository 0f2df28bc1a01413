//! Commands that people are told to type can be typed as they stand.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};

use super::Args;

/// Where texts come from that an operator reads.
const SOURCES: [&str; 4] = [
    "../../mirror-core/src",
    "../../blockmirror-server/src",
    "../../raid1-glue/src",
    "src",
];

/// A command that is told, and where.
struct Told {
    file: PathBuf,
    command: String,
}

#[test]
fn commands_that_are_told_can_be_typed() {
    let mut told = Vec::new();
    for source in SOURCES {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
        visit(&directory, &mut told);
    }
    assert!(
        told.len() > 30,
        "only {} commands are found: does this look?",
        told.len()
    );
    let mut wrong = Vec::new();
    for Told { file, command } in &told {
        if let Err(error) = Args::try_parse_from(command.split_whitespace()) {
            wrong.push(format!("{}: {command}\n{error}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn commands_are_found_in_sources() {
    let source = r#"
        //! Of `blockmirror nonsense`.
        let text = "first `blockmirror connect \
                    {0} {peer}`, then";
        let line = "so:\n  blockmirror promote {}\nand";
        let server = "`blockmirror-server --check`, a blockmirror says blockmirror why";
    "#;
    assert_eq!(
        commands(source),
        [
            "blockmirror connect 4096 4096",
            "blockmirror promote 4096",
            "blockmirror why (not in backquotes)"
        ]
    );
    assert!(Args::try_parse_from(["blockmirror", "connect", "db"]).is_err());
}

fn visit(directory: &Path, told: &mut Vec<Told>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("tests") {
            visit(&path, told);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            let source = std::fs::read_to_string(&path).unwrap();
            let found = commands(&source).into_iter();
            told.extend(found.map(|command| Told {
                file: path.clone(),
                command,
            }));
        }
    }
}

/// In the texts of a source: from `blockmirror ` to the end of the quotation, or of the line where it has one to itself.
fn commands(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    for text in texts(source) {
        for (at, _) in text.match_indices("blockmirror ") {
            let before = &text[..at];
            let quoted = before.ends_with('`');
            let alone = before.is_empty() || before.ends_with('\n') || before.ends_with("  ");
            let rest = &text[at..];
            let end = rest.find(if quoted { '`' } else { '\n' }).unwrap_or(rest.len());
            if quoted || (alone && is_command(rest)) {
                found.push(filled(&rest[..end]));
            } else if is_command(rest) {
                // In the middle of a sentence nobody could tell where it ends.
                found.push(format!("{} (not in backquotes)", &rest[..end]));
            }
        }
    }
    found
}

/// Behind the name stands that of a command: else the program is spoken of.
fn is_command(text: &str) -> bool {
    let word = text.split_whitespace().nth(1).unwrap_or_default();
    Args::command()
        .get_subcommands()
        .any(|command| command.get_name() == word)
}

/// With a word at each place of a format; this number is a name and a size too.
fn filled(command: &str) -> String {
    let mut words = String::new();
    let mut place: Option<String> = None;
    for c in command.chars() {
        match (c, &mut place) {
            ('{', _) => place = Some(String::new()),
            ('}', Some(name)) => {
                words.push_str(match name.as_str() {
                    "device" => "/dev/nbd0",
                    "connections" => "1",
                    _ => "4096",
                });
                place = None;
            }
            (_, Some(name)) => name.push(c),
            (_, None) => words.push(c),
        }
    }
    words
}

/// The string literals of production code, one line each if they go over several.
fn texts(source: &str) -> Vec<String> {
    let production = source.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = production.lines().map(str::trim_start);
    let code: Vec<&str> = lines.filter(|line| !line.starts_with("//")).collect();
    let code = code.join("\n");
    let mut texts = Vec::new();
    let mut rest = code.as_str();
    while let Some(begin) = rest.find('"') {
        // A quotation mark as a character is not the beginning of a text.
        if rest[..begin].ends_with('\'') && rest[begin + 1..].starts_with('\'') {
            rest = &rest[begin + 1..];
            continue;
        }
        let (text, after) = literal(&rest[begin + 1..]);
        texts.push(text);
        rest = after;
    }
    texts
}

/// A text, and what comes behind it.
fn literal(source: &str) -> (String, &str) {
    let mut text = String::new();
    let mut characters = source.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return (text, &source[at + 1..]),
            '\\' => match characters.next() {
                // The next line goes on where this one ends: its indentation was taken off above.
                Some((_, '\n')) | None => {}
                Some((_, 'n')) => text.push('\n'),
                Some((_, c)) => text.push(c),
            },
            c => text.push(c),
        }
    }
    (text, "")
}
