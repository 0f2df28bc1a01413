//! Colour, when a person looks.

use std::io::IsTerminal;

/// Whether to use colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Colour is used.
    pub colour: bool,
}

/// What a colour says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// On its way, or degraded.
    Warn,
    /// Needs somebody.
    Bad,
    /// A heading.
    Strong,
    /// Less important.
    Dim,
}

/// Moves to the top left and clears.
pub const CLEAR: &str = "\x1b[H\x1b[2J";

impl Style {
    /// No colour.
    #[cfg(test)]
    pub const PLAIN: Self = Self { colour: false };

    /// Colour when stdout is a terminal and the user does not object (<https://no-color.org>).
    pub fn of_stdout() -> Self {
        let objects = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            colour: is_terminal() && !objects,
        }
    }

    /// `text` in the colour of `tone`.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "1;31",
            Tone::Strong => "1",
            Tone::Dim => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Whether a person looks at stdout.
pub fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}
