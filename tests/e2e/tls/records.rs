//! Who seals and opens records. What becomes of them in the kernel is tried by scripts/kernel-test.

use anyhow::{Result, ensure};
use blockmirror_tests::config::{NodeConfig, Resource};
use blockmirror_tests::node::Node;
use blockmirror_tests::pki;
use blockmirror_tests::scratch::Scratch;

use super::{REQUIRE, SIZE, tls_settings};

/// What the status and the log of a node with this in `[tls]` say.
fn said(line: &str) -> Result<(Option<String>, String)> {
    let scratch = Scratch::new()?;
    let image = scratch.sparse_file("db.img", SIZE)?;
    let mut config = NodeConfig::new("alpha", vec![Resource::plain("db", &image, SIZE)]);
    let tls = tls_settings(&pki::directory()?);
    config.settings = format!("{tls}{line}\n[[listener]]\naddress = \"tcp:127.0.0.1:0\"\n{REQUIRE}\n");
    let node = Node::start(scratch.path(), &config)?;
    Ok((node.status()?.tls, node.log()))
}

#[test]
fn who_seals_records_is_said_in_the_log_and_in_the_status() -> Result<()> {
    let (status, log) = said("kernel = \"off\"")?;
    let words = "in user space: the configuration says so";
    ensure!(status.as_deref() == Some(words), "{status:?}");
    ensure!(log.contains(words) && log.contains("required, in user space"), "{log}");
    let (status, log) = said("")?;
    let words = status.unwrap_or_default();
    let kernel = words == "in the kernel" && log.contains("required, in the kernel");
    let user = words.starts_with("in user space: the kernel ") && log.contains("required, in user space");
    ensure!(kernel || user, "{words}");
    ensure!(log.contains(&words), "{log}");
    Ok(())
}

#[test]
fn without_certificates_nothing_is_said_of_tls() -> Result<()> {
    let scratch = Scratch::new()?;
    let image = scratch.sparse_file("db.img", SIZE)?;
    let config = NodeConfig::new("alpha", vec![Resource::plain("db", &image, SIZE)]);
    let node = Node::start(scratch.path(), &config)?;
    ensure!(node.status()?.tls.is_none());
    Ok(())
}
