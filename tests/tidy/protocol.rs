//! Every rule in docs/NBD.md names tests that exist, and none is without.

use crate::assert_none;
use crate::source::{self, Source};

/// Fewest rows the document is believed to have been read with.
const ROWS: usize = 120;
/// How the last column of a table of rules is headed.
const HEADING: &str = "shown by";

#[test]
fn every_rule_of_the_protocol_is_shown_by_a_test() {
    let files = source::all();
    let document = files.iter().find(|file| file.path == "docs/NBD.md");
    let rules = rules(&document.expect("docs/NBD.md exists").text);
    assert!(rules.len() >= ROWS, "only {} rows were read", rules.len());
    let mut findings = Vec::new();
    for (rule, shown_by) in rules {
        let references = references(shown_by);
        if references.is_empty() {
            findings.push(format!("\"{rule}\": is shown by nothing"));
        }
        for reference in references {
            if let Err(problem) = reference.find(&files) {
                findings.push(format!("\"{rule}\": {problem}"));
            }
        }
    }
    assert_none("rule of the protocol", &findings);
}

#[test]
fn the_rule_reads_references() {
    let text = "| rule | | end | shown by |\n|---|---|---|---|\n| a | M | server | `x.rs::t` \"c\", `y/x.rs::u` |\n\n| b | c |\n";
    let read = rules(text);
    assert_eq!(read, [("a", "`x.rs::t` \"c\", `y/x.rs::u`")]);
    let found = references(read[0].1);
    let one = |file, test, case| Reference { file, test, case };
    assert_eq!(found, [one("x.rs", "t", Some("c")), one("y/x.rs", "u", None)]);
    let files = [Source {
        path: "z/x.rs".into(),
        text: "#[test]\nfn t() {}\nconst C: &str = \"c\";\n".into(),
    }];
    assert!(found[0].find(&files).is_ok());
    assert!(one("x.rs", "t", Some("d")).find(&files).is_err(), "no such case");
    assert!(one("x.rs", "u", None).find(&files).is_err(), "no such test");
    assert!(one("y/x.rs", "t", None).find(&files).is_err(), "no such file");
}

/// First and last cell of every row of the tables of rules.
fn rules(text: &str) -> Vec<(&str, &str)> {
    let mut rows = Vec::new();
    let mut in_table = false;
    for line in text.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let last = cells[cells.len() - 1];
        if !line.starts_with('|') {
            in_table = false;
        } else if last == HEADING {
            in_table = true;
        } else if in_table && !line.starts_with("|---") {
            rows.push((cells[0], last));
        }
    }
    rows
}

/// A test, by the end of its file's path, and the case of it that is meant.
#[derive(Debug, PartialEq)]
struct Reference<'a> {
    file: &'a str,
    test: &'a str,
    case: Option<&'a str>,
}

/// What a cell names: `` `file::test` ``, and the text in quotes that may follow.
fn references(cell: &str) -> Vec<Reference<'_>> {
    let mut parts = cell.split('`').skip(1);
    let mut found = Vec::new();
    while let (Some(name), behind) = (parts.next(), parts.next()) {
        let (file, test) = name.rsplit_once("::").unwrap_or((name, ""));
        let case = behind.and_then(|text| text.split('"').nth(1));
        found.push(Reference { file, test, case });
    }
    found
}

impl Reference<'_> {
    fn find(&self, files: &[Source]) -> Result<(), String> {
        let Reference { file, test, case } = self;
        let ends = format!("/{file}");
        let function = format!("fn {test}(");
        let mut of_that_name = files
            .iter()
            .filter(|source| source.path == *file || source.path.ends_with(&ends));
        let Some(source) = of_that_name.find(|source| source.text.contains(&function)) else {
            return Err(format!("`{file}::{test}` does not exist"));
        };
        match case {
            Some(case) if !source.text.contains(&format!("\"{case}\"")) => {
                Err(format!("`{file}::{test}` has no case \"{case}\""))
            }
            _ => Ok(()),
        }
    }
}
