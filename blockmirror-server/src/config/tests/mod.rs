//! Good texts mean what they say; every mistake is found, placed and remedied, all at once.
#![allow(clippy::unwrap_used)]

mod files;
mod good;
mod mistakes;
mod table;

use super::*;

/// The head of a configuration that needs only its resources.
const HEAD: &str = "name = \"a\"\nlisten = [\"tcp:[::1]:0\"]\n";
/// A resource that is right; lines 3 to 7 after `HEAD`.
const GOOD: &str = "[[resource]]\nname = \"db\"\n[[resource.volume]]\nexport = \"db\"\nimage = \"/i/db\"\n";

fn problems(text: &str) -> Vec<Problem> {
    match Config::parse(text, "test.toml") {
        Ok(_) => Vec::new(),
        Err(error) => error.problems().to_vec(),
    }
}

/// The one problem of `text` is in `line`, marks `marked`, and its message and remedy have these words.
#[track_caller]
fn one_problem(text: &str, line: usize, marked: &str, message: &str, remedy: &str) {
    let found = problems(text);
    assert_eq!(found.len(), 1, "{text}\n{found:#?}");
    let problem = &found[0];
    let tail: String = problem
        .source_line
        .chars()
        .skip(problem.column - 1)
        .take(problem.width)
        .collect();
    assert_eq!((problem.line, tail.as_str()), (line, marked), "{problem}");
    assert!(problem.message.contains(message), "{problem}");
    assert!(problem.remedy.contains(remedy), "{problem}");
}

fn resource_with(volume: &str, peer: &str) -> String {
    let peer = if peer.is_empty() {
        String::new()
    } else {
        format!("[[resource.peer]]\n{peer}\n")
    };
    format!("{HEAD}{GOOD}{volume}\n{peer}")
}
