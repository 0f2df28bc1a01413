//! Both nodes went on alone: both see it, and nobody's data goes without the operator's word.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use blockmirror_client::admin::Role;
use blockmirror_tests::namespaces;
use blockmirror_tests::partners::{Partners, Setup};
use blockmirror_tests::wait::{self, PATIENT, PROMPT};

use super::{VOLUME, expect, fill};

/// Both wrote to the same block and to one of their own; the link is back. `None` where no link can be made.
fn diverged(resource: &str) -> Result<Option<Partners>> {
    if !namespaces::possible("split brain") {
        return Ok(None);
    }
    let partners = Partners::new(Setup {
        namespaces: true,
        resource: resource.to_owned(),
        peer: "heartbeat = \"100ms\"\ndead_after = \"500ms\"".to_owned(),
        ..Setup::default()
    })?;
    fill(&mut partners.open(0, VOLUME)?, 0, 30, 1)?;
    let link = partners.link.as_ref().context("they are in namespaces")?;
    link.cut()?;
    wait::until("the loss", PROMPT, || (!partners.is_connected(1)).then_some(()))?;
    // Who is younger is known by whole seconds.
    std::thread::sleep(Duration::from_millis(1_100));
    partners.promote_whatever(1)?;
    fill(&mut partners.open(0, VOLUME)?, 5, 10, 2)?;
    fill(&mut partners.open(1, VOLUME)?, 10, 10, 3)?;
    link.join()?;
    Ok(Some(partners))
}

#[test]
fn both_see_it_and_the_victim_is_overwritten_by_word_only() -> Result<()> {
    let Some(partners) = diverged("")? else {
        return Ok(());
    };
    partners.wait_split_brain(PATIENT)?;
    // Nothing happens by itself.
    std::thread::sleep(Duration::from_secs(1));
    expect(&mut partners.open(0, VOLUME)?, 5, 10, 2)?;
    expect(&mut partners.open(1, VOLUME)?, 10, 10, 3)?;
    partners.demote(1)?;
    partners.connect(1, true)?;
    partners.connect(0, false)?;
    partners.wait_in_step(0, PATIENT)?;
    let mut raw = partners.open(0, VOLUME)?;
    expect(&mut raw, 5, 10, 2)?;
    expect(&mut raw, 15, 15, 1)?;
    partners.assert_identical()
}

#[test]
fn what_is_overwritten_is_saved_to_a_branch_first_and_can_be_read() -> Result<()> {
    let Some(partners) = diverged("")? else {
        return Ok(());
    };
    partners.wait_split_brain(PATIENT)?;
    partners.demote(1)?;
    partners.connect(1, true)?;
    partners.connect(0, false)?;
    partners.wait_in_step(0, PATIENT)?;
    let branches = partners.resource(1)?.branches;
    ensure!(branches.len() == 1, "{branches:?}");
    ensure!(branches[0].saved_bytes >= 15 * 4096, "{branches:?}");
    let order = blockmirror_client::admin::Order::BranchExport {
        branch: branches[0].name.clone(),
    };
    let export = partners.nodes[1].order(&order)?.export.unwrap_or_default();
    let mut raw = partners.open(1, &export)?;
    expect(&mut raw, 10, 10, 3)?;
    expect(&mut raw, 0, 10, 1)?;
    expect(&mut raw, 20, 10, 1)
}

#[test]
fn a_policy_decides_only_against_a_secondary() -> Result<()> {
    let Some(partners) = diverged("split_brain = \"discard-younger\"")? else {
        return Ok(());
    };
    // Both are Primary: no policy touches a Primary.
    partners.wait_split_brain(PATIENT)?;
    ensure!(partners.role(0)? == Role::Primary && partners.role(1)? == Role::Primary);
    partners.demote(1)?;
    partners.connect(1, false)?;
    partners.connect(0, false)?;
    partners.wait_in_step(0, PATIENT)?;
    expect(&mut partners.open(0, VOLUME)?, 5, 10, 2)?;
    partners.assert_identical()
}
