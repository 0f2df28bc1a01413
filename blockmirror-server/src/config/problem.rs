//! What is wrong with a configuration, where, and what to do about it.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use super::serve::{AS_ARGUMENTS, SERVE};

/// Bytes of the configuration text.
pub(super) type Span = Range<usize>;

/// Why a configuration is not used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(
        "{file}: the configuration cannot be read: {error}; check the path given with --config and its permissions"
    )]
    Unreadable {
        /// The file.
        file: String,
        /// Why.
        error: std::io::Error,
    },
    /// Its text is wrong. In the order of the text; never empty.
    #[error("{}", Listing(.0))]
    Wrong(Vec<Problem>),
}

impl ConfigError {
    /// The problems of the text, in its order.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Unreadable { .. } => &[],
            Self::Wrong(problems) => problems,
        }
    }
}

/// One mistake in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The line of the file.
    pub source_line: String,
    /// Characters of the line that are meant, from `column`.
    pub width: usize,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let indent = " ".repeat(self.column.saturating_sub(1));
        let marks = "^".repeat(self.width.max(1));
        writeln!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        writeln!(f, "  {number} | {}", self.source_line)?;
        writeln!(f, "  {margin} | {indent}{marks}")?;
        write!(f, "  {margin} = {}", self.remedy)
    }
}

struct Listing<'a>(&'a [Problem]);

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in self.0 {
            writeln!(f, "{problem}")?;
        }
        let plural = if self.0.len() == 1 { "" } else { "s" };
        write!(f, "{} problem{plural} in the configuration", self.0.len())?;
        if self.0.iter().any(|problem| problem.file == SERVE) {
            write!(f, "\n{AS_ARGUMENTS}")?;
        }
        Ok(())
    }
}

/// Mistakes found so far, by span. Shared by all sections of one text, hence the cell.
#[derive(Default)]
pub(super) struct Problems {
    found: RefCell<Vec<(Span, String, String)>>,
}

impl Problems {
    /// Note a mistake.
    pub(super) fn add(&self, span: Span, message: impl Into<String>, remedy: impl Into<String>) {
        self.found.borrow_mut().push((span, message.into(), remedy.into()));
    }

    /// Ok when nothing was found; otherwise everything, in the order of the text.
    pub(super) fn into_result(self, text: &str, file: &str) -> Result<(), ConfigError> {
        let mut found = self.found.into_inner();
        if found.is_empty() {
            return Ok(());
        }
        found.sort_by_key(|(span, ..)| span.start);
        let located = found
            .into_iter()
            .map(|(span, message, remedy)| locate(text, file, span, message, remedy))
            .collect();
        Err(ConfigError::Wrong(located))
    }
}

/// Line of byte `at` of `text`, from 1.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

fn locate(text: &str, file: &str, span: Span, message: String, remedy: String) -> Problem {
    let start = floor_char_boundary(text, span.start);
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    let end = floor_char_boundary(text, span.end).clamp(start, line_end.max(start));
    Problem {
        file: file.to_owned(),
        line: line_of(text, start),
        column: text[line_start..start].chars().count() + 1,
        // Tabs would move the marks away from what they mark.
        source_line: text[line_start..line_end].trim_end().replace('\t', " "),
        width: text[start..end].chars().count(),
        message,
        remedy,
    }
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
