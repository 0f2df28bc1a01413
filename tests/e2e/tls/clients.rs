//! Clients, other people's and ours, and what can be seen on their way.

use std::path::Path;

use anyhow::{Result, ensure};
use blockmirror_client::client::Client;
use blockmirror_tests::compare;
use blockmirror_tests::pki;
use blockmirror_tests::recorder::Recorder;
use blockmirror_tests::scratch::Scratch;
use blockmirror_tests::tool;
use blockmirror_tests::wait::{self, PATIENT, PROMPT};

use super::{REQUIRE, SECRET, SIZE, STRICT, Served, random};

#[test]
fn libnbd_copies_both_ways_and_verifies_who_we_are() -> Result<()> {
    let served = Served::new(REQUIRE)?;
    let data = random(&served.scratch)?;
    for uri in [served.over_tcp(""), served.over_unix("")] {
        ensure!(tool::check("nbdinfo", &[&uri], PROMPT)?.contains("with TLS"));
        let back = served.scratch.path().join("back");
        let wide = ["--connections=4", "--requests=32"];
        tool::check(
            "nbdcopy",
            &[wide[0], wide[1], &data.display().to_string(), &uri],
            PATIENT,
        )?;
        tool::check(
            "nbdcopy",
            &[wide[0], wide[1], &uri, &back.display().to_string()],
            PATIENT,
        )?;
        compare::assert_identical(&data, &back)?;
    }
    Ok(())
}

#[test]
fn qemu_converts_with_its_certificate() -> Result<()> {
    let served = Served::new(STRICT)?;
    let data = random(&served.scratch)?;
    let (port, dir) = (served.port, served.pki.display().to_string());
    let credentials = format!("tls-creds-x509,id=tls,dir={dir},endpoint=client");
    let target = format!("driver=nbd,host=localhost,port={port},export=db,tls-creds=tls");
    let source = format!("driver=raw,file.filename={}", data.display());
    tool::check(
        "qemu-img",
        &[
            "convert",
            "-n",
            "--object",
            &credentials,
            "--image-opts",
            &source,
            "--target-image-opts",
            &target,
        ],
        PATIENT,
    )?;
    tool::check(
        "qemu-img",
        &["compare", "--object", &credentials, "--image-opts", &source, &target],
        PATIENT,
    )
    .map(|_| ())
}

#[test]
fn our_own_initiator_copies_and_compares() -> Result<()> {
    let served = Served::new(STRICT)?;
    let blockmirror = tool::binary("blockmirror")?.display().to_string();
    let plain = served.node.uri("db");
    let other = Served::new(REQUIRE)?;
    tool::check(
        "nbdcopy",
        &[&random(&served.scratch)?.display().to_string(), &plain],
        PATIENT,
    )?;
    tool::check(
        &blockmirror,
        &["copy", &served.over_tcp(""), &other.over_unix("")],
        PATIENT,
    )?;
    let bare = format!("nbds://localhost:{}/db", served.port);
    let file = |name: &str| served.pki.join(name).display().to_string();
    let (ca, certificate, key) = (file("ca-cert.pem"), file("client-cert.pem"), file("client-key.pem"));
    let flags = ["--tls-ca", &ca, "--tls-certificate", &certificate, "--tls-key", &key];
    tool::check(
        &blockmirror,
        &[&["compare"], &flags[..], &[&bare, &other.over_tcp("")]].concat(),
        PATIENT,
    )?;
    let without = tool::run(&blockmirror, &["compare", &bare, &bare], PROMPT)?;
    ensure!(
        !without.status.success() && without.text().contains("--tls-ca"),
        "{}",
        without.text()
    );
    Ok(())
}

#[test]
fn a_capture_shows_no_payload() -> Result<()> {
    let served = Served::new("tls = \"allow\"")?;
    let recorder = Recorder::new(served.scratch.join("recorder.nbd"), &served.socket())?;
    let data = served.scratch.path().join("secret");
    std::fs::write(
        &data,
        SECRET
            .repeat(SIZE as usize / SECRET.len() + 1)
            .get(..SIZE as usize)
            .unwrap_or_default(),
    )?;
    let data = data.display().to_string();
    let socket = recorder.socket().display();
    let plain = format!("nbd+unix:///db?socket={socket}");
    tool::check("nbdcopy", &[&data, &plain], PATIENT)?;
    ensure!(recorder.saw(SECRET), "the recorder sees what is not hidden");
    recorder.forget();
    let pki = served.pki.display();
    let safe = format!("nbds+unix:///db?socket={socket}&tls-certificates={pki}&tls-hostname=localhost");
    tool::check("nbdcopy", &[&data, &safe], PATIENT)?;
    tool::check("nbdcopy", &[&safe, "null:"], PATIENT)?;
    ensure!(recorder.bytes() as u64 > 2 * SIZE, "{} bytes", recorder.bytes());
    ensure!(!recorder.saw(&SECRET[..16]), "the payload is seen on the way");
    Ok(())
}

#[test]
fn new_certificates_come_without_dropping_connections() -> Result<()> {
    let (old, new) = (pki::directory()?, Scratch::new()?);
    pki::fill(new.path())?;
    let used = Scratch::new()?;
    let copy = |from: &Path| -> Result<()> {
        for name in [
            "server-cert.pem",
            "server-key.pem",
            "ca-cert.pem",
            "client-cert.pem",
            "client-key.pem",
        ] {
            std::fs::copy(from.join(name), used.path().join(name))?;
        }
        Ok(())
    };
    copy(&old)?;
    let served = Served::with_pki(used.path().to_owned(), REQUIRE)?;
    let uri = |pki: &Path| format!("nbds://localhost:{}/db?tls-certificates={}", served.port, pki.display());
    let (before, after) = (uri(&old), uri(new.path()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let lasting = runtime.block_on(async { Client::connect(&before.parse()?).await.map_err(anyhow::Error::from) })?;
    // Bad ones: nothing changes.
    std::fs::write(used.path().join("server-key.pem"), "rubbish")?;
    let refused = served
        .node
        .reload()
        .err()
        .map(|error| format!("{error:#}"))
        .unwrap_or_default();
    ensure!(refused.contains("server-key.pem"), "{refused}");
    tool::check("nbdinfo", &["--size", &before], PROMPT)?;
    copy(new.path())?;
    served.node.reload()?;
    tool::check("nbdinfo", &["--size", &after], PROMPT)?;
    ensure!(
        !tool::run("nbdinfo", &["--size", &before], PROMPT)?.status.success(),
        "the old CA is not that of the new"
    );
    runtime.block_on(async {
        lasting.write(0, &[7; 4096], false).await?;
        ensure!(lasting.read(0, 4096).await? == [7; 4096]);
        Ok(())
    })
}

#[test]
fn the_status_tells_who_is_connected_and_how() -> Result<()> {
    let served = Served::new(STRICT)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let connect = |uri: String| -> Result<Client> {
        runtime.block_on(async { Client::connect(&uri.parse()?).await.map_err(anyhow::Error::from) })
    };
    let wait_for = |count: usize| {
        wait::until(&format!("{count} clients in the status"), PROMPT, || {
            let clients = served.node.volume("db").ok()?.clients;
            (clients.len() == count).then_some(clients)
        })
    };
    let remote = connect(served.over_tcp(""))?;
    let told = wait_for(1)?;
    let tls = told[0].tls.clone().unwrap_or_default();
    ensure!(tls.starts_with("TLSv1_3, ") && tls.contains(", in "), "{tls}");
    ensure!(told[0].address.starts_with("127.0.0.1:"), "{told:?}");
    ensure!(told[0].certificate.contains(&"client.example".to_owned()), "{told:?}");
    let _inside = connect(served.over_unix(""))?;
    let _plain = served.node.open("db")?;
    let told = wait_for(3)?;
    let tls = told[1].tls.clone().unwrap_or_default();
    ensure!(
        tls.ends_with(", in user space"),
        "a Unix socket is not for the kernel: {tls}"
    );
    let user = nix::unistd::getuid().as_raw();
    for (local, socket) in told[1..].iter().zip([served.socket(), served.node.socket()]) {
        ensure!(local.address == format!("unix:{}", socket.display()), "{told:?}");
        ensure!(local.user == Some(user) && local.process.is_some(), "{told:?}");
    }
    ensure!(told[2].tls.is_none() && told[2].certificate.is_empty(), "{told:?}");
    let blockmirror = tool::binary("blockmirror")?.display().to_string();
    let admin = served.node.admin_socket().display().to_string();
    let text = tool::check(&blockmirror, &["--admin", &admin, "status"], PROMPT)?;
    ensure!(
        text.contains("  client 127.0.0.1, certificate of client.example, "),
        "{text}"
    );
    runtime.block_on(remote.disconnect())?;
    ensure!(wait_for(2)? == told[1..], "whoever has left is not told");
    Ok(())
}
