//! What may be there only once.

use std::collections::BTreeMap;

use super::problem::{Problems, Span, line_of};
use super::section::Located;

/// Names (or paths, or addresses) that must be unique, with the place of the first use.
pub(super) struct Unique<'a> {
    what: &'static str,
    remedy: &'static str,
    seen: BTreeMap<String, Span>,
    text: &'a str,
    problems: &'a Problems,
}

impl<'a> Unique<'a> {
    /// `what` is told in the message: "the export name".
    pub(super) fn new(what: &'static str, remedy: &'static str, text: &'a str, problems: &'a Problems) -> Self {
        Self {
            what,
            remedy,
            seen: BTreeMap::new(),
            text,
            problems,
        }
    }

    /// Take a name; a second use becomes a problem.
    pub(super) fn claim(&mut self, name: &str, span: Span) {
        match self.seen.get(name) {
            Some(first) => self.problems.add(
                span,
                format!(
                    "{} \"{name}\" is used twice; first in line {}",
                    self.what,
                    line_of(self.text, first.start)
                ),
                self.remedy,
            ),
            None => {
                self.seen.insert(name.to_owned(), span);
            }
        }
    }
}

/// A name of a node, resource or peer: 1 to 63 of `A-Z a-z 0-9 . _ -`, so that it can stand in logs, paths and URLs.
pub(super) fn check_name(key: &str, name: &Located<String>, problems: &Problems) {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.value.is_empty() || name.value.len() > 63 || !name.value.chars().all(good) {
        problems.add(
            name.span.clone(),
            format!("`{key}` = {:?} is not a name", name.value),
            "use 1 to 63 letters, digits, dots, underscores and dashes",
        );
    }
}
