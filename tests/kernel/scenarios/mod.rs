//! The scenarios, a behaviour each.

mod attach;
mod legs;
mod link;
mod pages;
mod partners;
mod pause;
mod raid;
mod raid_line;
mod raid_stale;
mod speed;
mod tls;
mod truth;
mod units;

use anyhow::Result;

use crate::stage::Stage;

/// One of them.
pub struct Scenario {
    /// What `--only` calls it.
    pub name: &'static str,
    /// What is to be seen.
    pub about: &'static str,
    /// Whether it is of the few that are played always.
    pub smoke: bool,
    /// Fails when it is not seen.
    pub play: fn(&Stage) -> Result<()>,
}

/// All, in the order they are played.
pub const ALL: &[Scenario] = &[
    link::ALONE,
    partners::POWER,
    attach::SMOKE,
    attach::SHAPES,
    attach::NBD_CLIENT,
    pause::DAEMON,
    pause::LINK,
    pause::AGENT,
    pause::DEAD,
    pause::DISCONNECT,
    pause::REBOOT,
    tls::USER_SPACE,
    tls::WITHOUT,
    tls::KERNEL,
    truth::takeover::EXT4,
    truth::takeover::XFS,
    truth::takeover::RETURN,
    truth::failover::EXT4,
    truth::cut::BRIEF_EXT4,
    truth::cut::EXT4,
    truth::cut::XFS,
    truth::cut::PARTNER,
    truth::crash::EXT4,
    truth::crash::XFS,
    truth::power::EXT4,
    truth::power::XFS,
    truth::power::HOST,
    truth::power::BOTH,
    truth::log::EXT4,
    truth::log::XFS,
    truth::log::PARTNER,
    truth::log::BEHIND,
    raid::HEAL,
    raid::WATCH,
    raid::REBOOT,
    raid::ADOPT,
    raid_stale::OLD,
    raid_stale::FOREIGN,
    raid_line::OURS,
    raid_line::BY_HAND,
    legs::CUT_SHORT,
    legs::CUT_LONG,
    legs::FAR_RESTART,
    legs::FAR_GONE,
    legs::FAR_DEAD,
    legs::FAR_HUNG,
    legs::NEAR_RESTART,
    legs::NEAR_GONE,
    legs::SLOW,
    pages::DEVICES,
    pages::REPLICA,
    pages::RAID,
    units::ATTACH,
    units::RAID,
    speed::SPEED,
];
