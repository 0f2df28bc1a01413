//! Pages of `docs` that a newcomer follows line by line, followed by a scenario: no line of them is typed anew here.

use std::sync::Arc;

use anyhow::{Context, Result};

use crate::guest::{Guest, Running};
use crate::raid::COPY;

/// Lines between fences, and where they are typed: the words behind the first fence, such as `sh alpha`. With `stays` among them
/// the last line stays, as a daemon does.
pub struct Block<'a> {
    /// The guest.
    pub guest: &'a str,
    stays: bool,
    lines: &'a str,
}

/// Those of a page that have a guest, in order.
pub fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut found = Vec::new();
    for part in text.split("```").skip(1).step_by(2) {
        let Some((words, lines)) = part.split_once('\n') else {
            continue;
        };
        let mut words = words.split(' ').skip(1);
        if let Some(guest) = words.next() {
            let stays = words.next() == Some("stays");
            found.push(Block { guest, stays, lines });
        }
    }
    found
}

impl Block<'_> {
    /// Types it; what it said. What stays is looked for by `is_there`.
    pub fn play(&self, guest: &Arc<Guest>, is_there: &str) -> Result<(String, Option<Running>)> {
        if self.stays {
            let running = guest.start(self.lines, COPY * 2);
            guest.until("it is there", COPY, is_there)?;
            return Ok((String::new(), Some(running)));
        }
        let said = guest.run_for(self.lines, COPY);
        let said = said.with_context(|| format!("the page says: {}", self.lines))?;
        Ok((said, None))
    }
}
