//! Pages of `docs` that a newcomer follows line by line, followed by a scenario: no line of them is typed anew here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::daemon::PATIENT;
use crate::guest::{Guest, Running};
use crate::raid::COPY;

/// How it is seen that a command that stays is there.
const THERE: [(&str, &str); 3] = [
    ("blockmirror-server --config", "blockmirror status"),
    ("blockmirror-server serve", "nbdinfo --list nbd://localhost"),
    ("blockmirror raid watch", "pgrep -f 'raid watch'"),
];
/// For a kernel that is told to go at once.
const AT_ONCE: Duration = Duration::from_secs(20);
/// What a page writes in place of what a refusal told.
const TOKEN: &str = "TOKEN";

/// A page, as far as it has not been followed yet.
pub struct Page<'a> {
    blocks: VecDeque<Block<'a>>,
    guests: Vec<Arc<Guest>>,
    stay: Vec<(&'a str, Running)>,
    token: Option<String>,
}

/// Lines between fences. The words behind the first fence say where they are typed, and how they end: `sh alpha`.
#[derive(Clone, Copy)]
struct Block<'a> {
    /// The heading above.
    section: &'a str,
    guest: &'a str,
    ends: Ends<'a>,
    lines: &'a str,
}

#[derive(Clone, Copy)]
enum Ends<'a> {
    /// Well.
    Done,
    /// `refused`.
    Refused,
    /// `stays`, as a daemon does.
    Never,
    /// `meanwhile`: well, at the end of its section.
    Meanwhile,
    /// `dies`: with its guest.
    Dies,
    Unknown(&'a str),
}

impl<'a> Page<'a> {
    /// A page that is typed in these guests.
    pub fn new(text: &'a str, guests: &[&Arc<Guest>]) -> Self {
        Self {
            blocks: blocks(text),
            guests: guests.iter().map(|guest| Arc::clone(guest)).collect(),
            stay: Vec::new(),
            token: None,
        }
    }

    /// Types the lines of the next section, which has this heading; what each of its blocks said.
    pub fn section(&mut self, heading: &str) -> Result<Vec<String>> {
        let (mut said, mut meanwhile) = (Vec::new(), Vec::new());
        while let Some(&block) = self.blocks.front()
            && (block.section == heading || said.is_empty())
        {
            ensure!(block.section == heading, "after that comes \"{}\"", block.section);
            self.blocks.pop_front();
            let told = self.play(block, &mut meanwhile);
            said.push(told.with_context(|| format!("the page says: {}", block.lines))?);
        }
        for running in meanwhile {
            running.join()?;
        }
        Ok(said)
    }

    fn play(&mut self, block: Block<'a>, meanwhile: &mut Vec<Running>) -> Result<String> {
        let guest = self.guest(block.guest)?;
        let lines = match &self.token {
            Some(token) => block.lines.replace(TOKEN, token),
            None => block.lines.to_owned(),
        };
        match block.ends {
            Ends::Done => return guest.run_for(&lines, COPY),
            Ends::Refused => {
                let told = guest.refuses(&lines)?;
                let token = told.split("--accept ").nth(1).and_then(|rest| rest.split(' ').next());
                self.token = token.map(str::to_owned);
                return Ok(told);
            }
            Ends::Never => {
                let there = THERE.iter().find(|(command, _)| lines.contains(command));
                let (_, is_there) = there.context("nobody knows how this is seen to be there")?;
                let running = guest.start(&lines, COPY * 2);
                if let Err(late) = guest.until("it is there", PATIENT, is_there) {
                    // What it said, if it has ended.
                    let said = running.has_ended().then(|| running.join());
                    return Err(said.and_then(Result::err).unwrap_or(late));
                }
                self.stay.push((block.guest, running));
            }
            Ends::Meanwhile => meanwhile.push(guest.start(&lines, COPY)),
            Ends::Dies => {
                ensure!(guest.outcome(&lines, AT_ONCE).is_err(), "it lives");
                guest.kill();
                self.stay.retain(|(name, _)| *name != block.guest);
            }
            Ends::Unknown(word) => bail!("{word} is no way to end"),
        }
        Ok(String::new())
    }

    fn guest(&self, name: &str) -> Result<Arc<Guest>> {
        let guest = self.guests.iter().find(|guest| guest.machine().name == name);
        guest.cloned().with_context(|| format!("no guest is called {name}"))
    }

    /// A guest has booted again.
    pub fn booted(&mut self, guest: &Arc<Guest>) {
        self.guests.retain(|other| other.machine().name != guest.machine().name);
        self.guests.push(Arc::clone(guest));
    }

    /// Nothing is left of it. What stays is told to go.
    pub fn close(self) -> Result<()> {
        if let Some(block) = self.blocks.front() {
            bail!("nobody has followed \"{}\"", block.section);
        }
        for guest in &self.guests {
            if self.stay.iter().any(|(name, _)| *name == guest.machine().name) {
                guest.run("pkill -TERM -x 'blockmirror(-ser)?'")?;
            }
        }
        self.stay.into_iter().for_each(|(_, running)| drop(running.join()));
        Ok(())
    }
}

/// The blocks of a page that have a guest, in order.
fn blocks(text: &str) -> VecDeque<Block<'_>> {
    let (mut found, mut section) = (VecDeque::new(), "");
    for (number, part) in text.split("```").enumerate() {
        if number % 2 == 0 {
            let heading = part.lines().rev().find(|line| line.starts_with('#'));
            section = heading.map_or(section, |heading| heading.trim_start_matches('#').trim());
            continue;
        }
        let (words, lines) = part.split_once('\n').unwrap_or((part, ""));
        let mut words = words.split(' ').skip(1);
        if let Some(guest) = words.next() {
            let ends = match words.next() {
                None => Ends::Done,
                Some("refused") => Ends::Refused,
                Some("stays") => Ends::Never,
                Some("meanwhile") => Ends::Meanwhile,
                Some("dies") => Ends::Dies,
                Some(word) => Ends::Unknown(word),
            };
            found.push_back(Block {
                section,
                guest,
                ends,
                lines,
            });
        }
    }
    found
}
