//! A table of what works with what, in Markdown.

use std::fmt::Write;

use anyhow::Error;

/// How one thing went with one other.
pub enum Cell {
    /// It works.
    Works,
    /// The other side does not have it, or it makes no sense there.
    NotTheirs,
    /// It does not work.
    Fails(Error),
}

/// Rows of cells under columns.
pub struct Table {
    title: &'static str,
    heading: &'static str,
    columns: Vec<String>,
    rows: Vec<(String, Vec<Cell>)>,
}

impl Cell {
    /// Works or fails.
    pub fn of(result: anyhow::Result<()>) -> Self {
        result.map_or_else(Self::Fails, |()| Self::Works)
    }

    fn text(&self) -> &'static str {
        match self {
            Self::Works => "ok",
            Self::NotTheirs => "-",
            Self::Fails(_) => "**FAIL**",
        }
    }
}

impl Table {
    /// Without rows. `heading` is that of the first column.
    pub fn new(title: &'static str, heading: &'static str, columns: Vec<String>) -> Self {
        Self {
            title,
            heading,
            columns,
            rows: Vec::new(),
        }
    }

    /// Appends a row.
    pub fn add(&mut self, name: &str, cells: Vec<Cell>) {
        eprintln!(
            "  {name}: {}",
            cells.iter().map(Cell::text).collect::<Vec<_>>().join(" ")
        );
        self.rows.push((name.to_owned(), cells));
    }

    /// The Markdown.
    pub fn text(&self) -> String {
        let mut text = format!("### {}\n\n| {} |", self.title, self.heading);
        for column in &self.columns {
            let _ = write!(text, " {column} |");
        }
        let _ = writeln!(text, "\n|---|{}", "---|".repeat(self.columns.len()));
        for (name, cells) in &self.rows {
            let _ = write!(text, "| {name} |");
            for cell in cells {
                let _ = write!(text, " {} |", cell.text());
            }
            text.push('\n');
        }
        text
    }

    /// What failed, and why.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for (name, cells) in &self.rows {
            for (column, cell) in self.columns.iter().zip(cells) {
                if let Cell::Fails(error) = cell {
                    failures.push(format!("{name}, {column}: {error:#}"));
                }
            }
        }
        failures
    }
}
