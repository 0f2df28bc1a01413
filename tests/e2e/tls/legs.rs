//! Remote legs and partners.

use anyhow::{Result, ensure};
use blockmirror_client::admin::{ConnectionState, PartnerStatus};
use blockmirror_tests::compare;
use blockmirror_tests::config::{NodeConfig, Peer, Resource};
use blockmirror_tests::foreign::Foreign;
use blockmirror_tests::node::Node;
use blockmirror_tests::pki;
use blockmirror_tests::recorder::Recorder;
use blockmirror_tests::scratch::Scratch;
use blockmirror_tests::tool;
use blockmirror_tests::wait::{self, PATIENT};

use super::{REQUIRE, SECRET, SIZE, random, tls_settings};

#[test]
fn a_remote_leg_on_nbdkit_with_tls() -> Result<()> {
    let (scratch, pki) = (Scratch::new()?, pki::directory()?);
    let remote = scratch.sparse_file("remote.img", SIZE)?;
    let certificates = format!("--tls-certificates={}", pki.display());
    let filters = ["--tls=require", &certificates, "--tls-verify-peer"];
    let foreign = Foreign::nbdkit_file(scratch.path(), &remote, &filters, &[])?;
    let image = random(&scratch)?;
    let peer = Peer {
        name: "bravo".to_owned(),
        uri: format!("nbds+unix:///?socket={}", foreign.socket().display()),
        settings: format!(
            "protocol = \"nbd\"\ntls_certificate = \"{0}/client-cert.pem\"\ntls_key = \"{0}/client-key.pem\"",
            pki.display()
        ),
    };
    let mut config = NodeConfig::new("alpha", vec![Resource::mirrored("db", &image, SIZE, vec![peer])]);
    config.settings = tls_settings(&pki);
    let node = Node::start(scratch.path(), &config)?;
    node.wait_established("db", PATIENT)?;
    let mut raw = node.open("db")?;
    ensure!(raw.write(0, 4096, SECRET)? == 0);
    raw.flush()?;
    compare::assert_identical(&image, &remote)
}

#[test]
fn two_partners_over_tls() -> Result<()> {
    let (scratch, pki) = (Scratch::new()?, pki::directory()?);
    let mut nodes = Vec::new();
    let mut recorders = Vec::new();
    for (name, other) in [("alpha", "bravo"), ("bravo", "alpha")] {
        let folder = scratch.path().join(name);
        std::fs::create_dir(&folder)?;
        let image = folder.join("db.img");
        let peer = Peer {
            name: other.to_owned(),
            uri: format!("nbds+unix:///?socket={}/{other}/recorder.nbd", scratch.path().display()),
            settings: "protocol = \"blockmirror\"".to_owned(),
        };
        let mut config = NodeConfig::new(name, vec![Resource::mirrored("db", &image, SIZE, vec![peer])]);
        let socket = folder.join("tls.nbd");
        config.settings =
            tls_settings(&pki) + &format!("[[listener]]\naddress = \"unix:{}\"\n{REQUIRE}\n", socket.display());
        recorders.push(Recorder::new(folder.join("recorder.nbd"), &socket)?);
        nodes.push(Node::start(&folder, &config)?);
    }
    let alpha = nodes.first().ok_or_else(|| anyhow::anyhow!("two nodes"))?;
    // Without contact the promotion of a fresh pair needs more words.
    wait::until("the partners to be connected", PATIENT, || {
        let partners = alpha.resource("db").ok()?.partners;
        let connected = |partner: &PartnerStatus| partner.connection_state == ConnectionState::Connected;
        partners.iter().any(connected).then_some(())
    })?;
    let blockmirror = tool::binary("blockmirror")?.display().to_string();
    let admin = alpha.admin_socket().display().to_string();
    tool::check(
        &blockmirror,
        &["--admin", &admin, "promote", "--force", "--wait", "db"],
        PATIENT,
    )?;
    alpha.wait_established("db", PATIENT)?;
    let mut raw = alpha.open("db")?;
    for at in 0..64 {
        ensure!(raw.write(0, at * 65_536, &SECRET.repeat(500))? == 0);
    }
    raw.flush()?;
    let images = ["alpha", "bravo"].map(|name| scratch.path().join(name).join("db.img"));
    compare::assert_identical(&images[0], &images[1])?;
    let seen: usize = recorders.iter().map(Recorder::bytes).sum();
    ensure!(seen > 64 * 500 * SECRET.len(), "the stream went this way: {seen} bytes");
    ensure!(
        !recorders.iter().any(|recorder| recorder.saw(&SECRET[..16])),
        "the payload is seen on the way"
    );
    Ok(())
}
