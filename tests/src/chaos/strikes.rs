//! What strikes in a round, and how it is repaired.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use blockmirror_client::admin::{AdminError, Role};
use nix::sys::signal::Signal;

use super::Chaos;
use super::model::{branch_off, part, under_load};
use crate::wait::{self, PATIENT, PROMPT};

/// Longest time the load runs before a strike.
const BEFORE: u64 = 300;
/// Longest time it runs on the other node after a takeover.
const AFTER: u64 = 200;

/// One kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// kill -9 of the Primary, takeover by the other.
    KillPrimary,
    /// kill -9 of the Secondary.
    KillSecondary,
    /// kill -9 of both.
    KillBoth,
    /// SIGSTOP of the Primary, takeover by the other, then SIGCONT.
    StopPrimary,
    /// SIGSTOP of the Secondary for a while.
    StopSecondary,
    /// The link is cut for a while.
    Cut,
    /// The link passes nothing from the Primary for a while.
    MutePrimary,
    /// The link passes nothing from the Secondary for a while.
    MuteSecondary,
    /// The link is cut, and the other node is made Primary while the first one goes on.
    CutAndPromote,
    /// The same with a link cut in one direction.
    MuteAndPromote,
    /// A switchover in order, under load.
    Switchover,
}

impl Strike {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::KillPrimary,
        Self::KillSecondary,
        Self::KillBoth,
        Self::StopPrimary,
        Self::StopSecondary,
        Self::Cut,
        Self::MutePrimary,
        Self::MuteSecondary,
        Self::CutAndPromote,
        Self::MuteAndPromote,
        Self::Switchover,
    ];

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::KillPrimary => "kill -9 primary",
            Self::KillSecondary => "kill -9 secondary",
            Self::KillBoth => "kill -9 both",
            Self::StopPrimary => "stop primary, take over",
            Self::StopSecondary => "stop secondary",
            Self::Cut => "cut",
            Self::MutePrimary => "one-way cut from primary",
            Self::MuteSecondary => "one-way cut to primary",
            Self::CutAndPromote => "cut, promote",
            Self::MuteAndPromote => "one-way cut, promote",
            Self::Switchover => "switchover",
        }
    }
}

impl Chaos {
    pub(super) fn strike(&mut self, strike: Strike) -> Result<()> {
        let (primary, secondary) = (self.primary, 1 - self.primary);
        match strike {
            Strike::KillPrimary => self.kill_primary(),
            Strike::KillSecondary => {
                self.disturbed(|chaos| {
                    chaos.partners.nodes[secondary].kill();
                    chaos.rest(AFTER);
                    Ok(())
                })?;
                self.partners.nodes[secondary].restart()
            }
            Strike::KillBoth => {
                self.disturbed(|chaos| {
                    chaos.partners.nodes.iter_mut().for_each(crate::node::Node::kill);
                    Ok(())
                })?;
                let first = self.random.below(2) as usize;
                self.partners.nodes[first].restart()?;
                self.partners.nodes[1 - first].restart()
            }
            Strike::StopPrimary => self.part_ways(Parting::Stop),
            Strike::StopSecondary => self.disturbed(|chaos| {
                chaos.partners.nodes[secondary].signal(Signal::SIGSTOP)?;
                chaos.rest(1_800);
                chaos.partners.nodes[secondary].signal(Signal::SIGCONT)
            }),
            Strike::Cut => self.link_trouble(None),
            Strike::MutePrimary => self.link_trouble(Some(primary)),
            Strike::MuteSecondary => self.link_trouble(Some(secondary)),
            Strike::CutAndPromote => self.part_ways(Parting::Cut),
            Strike::MuteAndPromote => {
                let side = self.random.below(2) as usize;
                self.part_ways(Parting::Mute(side))
            }
            Strike::Switchover => self.switch_over(),
        }
    }

    /// Under load on the Primary, after a while.
    fn disturbed(&mut self, trouble: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let socket = self.socket(self.primary);
        let mut models = std::mem::take(&mut self.models);
        let outcome = under_load(&mut models, &socket, |_| {
            self.rest(BEFORE);
            trouble(self)
        });
        self.models = models;
        outcome
    }

    fn kill_primary(&mut self) -> Result<()> {
        let (old, new) = (self.primary, 1 - self.primary);
        let mut killed = Instant::now();
        self.disturbed(|chaos| {
            chaos.partners.nodes[old].kill();
            killed = Instant::now();
            Ok(())
        })?;
        self.take_over(new)?;
        let mut first = self.partners.open(new, &self.models[0].export)?;
        self.models[0].load.flush(&mut first)?;
        self.tally.takeover_times.push(killed.elapsed());
        drop(first);
        self.disturbed(|_| Ok(()))?;
        self.partners.nodes[old].restart()
    }

    /// The other node becomes Primary without the old one.
    fn take_over(&mut self, new: usize) -> Result<()> {
        self.tally.takeovers += 1;
        match self.partners.promote(new) {
            Ok(()) => {}
            Err(AdminError::Refused { .. }) => {
                self.tally.forced += 1;
                let mut last = None;
                let promoted = wait::until("the takeover", PROMPT, || match self.partners.promote_whatever(new) {
                    Ok(()) => Some(()),
                    Err(error) => {
                        last = Some(error);
                        None
                    }
                });
                promoted.with_context(|| format!("{last:?}"))?;
            }
            Err(error) => return Err(error.into()),
        }
        self.primary = new;
        Ok(())
    }

    fn link_trouble(&mut self, mute: Option<usize>) -> Result<()> {
        self.disturbed(|chaos| {
            let link = chaos.partners.link.as_ref().context("no namespaces")?;
            match mute {
                None => link.cut()?,
                Some(side) => link.mute(side)?,
            }
            chaos.rest(2_500);
            chaos.partners.link.as_ref().context("no namespaces")?.join()
        })
    }

    /// The other node takes over while the first one is only out of reach, and may go on.
    fn part_ways(&mut self, parting: Parting) -> Result<()> {
        let (old, new) = (self.primary, 1 - self.primary);
        let (old_socket, new_socket) = (self.socket(old), self.socket(new));
        let mut here = std::mem::take(&mut self.models);
        let there = under_load(&mut here, &old_socket, |seen| {
            self.rest(BEFORE);
            // In this order: a promise made in between is one more, never one less, than what the other must hold.
            let promises = match parting {
                Parting::Stop => {
                    self.partners.nodes[old].signal(Signal::SIGSTOP)?;
                    seen.promises()
                }
                Parting::Cut | Parting::Mute(_) => {
                    let promises = seen.promises();
                    self.break_link(parting)?;
                    promises
                }
            };
            wait::until("the loss of the Primary", PROMPT, || {
                (!self.partners.is_connected(new)).then_some(())
            })?;
            self.take_over(new)?;
            let mut there = promises;
            part(&mut there);
            under_load(&mut there, &new_socket, |_| {
                self.rest(AFTER);
                if matches!(parting, Parting::Stop) {
                    self.partners.nodes[old].signal(Signal::SIGCONT)?;
                }
                self.rest(AFTER);
                Ok(())
            })?;
            Ok(there)
        })?;
        if let Some(link) = &self.partners.link {
            link.join()?;
        }
        self.reunite(old, here, there)
    }

    fn break_link(&self, parting: Parting) -> Result<()> {
        let link = self.partners.link.as_ref().context("no namespaces")?;
        match parting {
            Parting::Mute(side) => link.mute(side),
            Parting::Cut | Parting::Stop => link.cut(),
        }
    }

    /// Two Primaries meet. Both see it; the operator gives one side's data up.
    fn reunite(&mut self, old: usize, here: Vec<super::Model>, there: Vec<super::Model>) -> Result<()> {
        let new = 1 - old;
        self.partners.wait_split_brain(PATIENT)?;
        self.tally.split_brains += 1;
        let survivor = if self.random.below(2) == 0 { old } else { new };
        let victim = 1 - survivor;
        if self.partners.role(victim)? == Role::Primary {
            self.partners.demote(victim)?;
        }
        self.partners.connect(victim, true)?;
        self.partners.connect(survivor, false)?;
        self.primary = survivor;
        self.models = if survivor == old {
            here
        } else {
            branch_off(there, &here)
        };
        Ok(())
    }

    fn switch_over(&mut self) -> Result<()> {
        let new = 1 - self.primary;
        self.disturbed(|chaos| Ok(chaos.partners.promote(new)?))?;
        self.primary = new;
        self.disturbed(|_| Ok(()))
    }

    fn rest(&mut self, longest_ms: u64) {
        thread::sleep(Duration::from_micros(self.random.below(longest_ms * 1000)));
    }

    fn socket(&self, side: usize) -> PathBuf {
        self.partners.nodes[side].socket()
    }
}

/// How the nodes lose each other while both live.
#[derive(Clone, Copy, Debug)]
enum Parting {
    Stop,
    Cut,
    Mute(usize),
}
