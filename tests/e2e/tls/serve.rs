//! TLS without a configuration file.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use blockmirror_tests::pki;
use blockmirror_tests::process::Process;
use blockmirror_tests::scratch::Scratch;
use blockmirror_tests::tool;
use blockmirror_tests::wait::{self, PROMPT};
use nix::sys::signal::Signal;

/// `blockmirror-server serve`, and the URIs of its ready line.
fn start(scratch: &Scratch, certificates: &Path, more: &[&str]) -> Result<(Process, Vec<String>)> {
    let server = tool::binary("blockmirror-server")?.display().to_string();
    let certificates = certificates.display().to_string();
    let fixed = [
        "BLOCKMIRROR_LOG=info",
        &server,
        "serve",
        "memory:1MiB",
        "--tls-certificates",
        &certificates,
    ];
    let arguments: Vec<String> = fixed.iter().chain(more).map(ToString::to_string).collect();
    let process = Process::start("serve", Path::new("/usr/bin/env"), &arguments, &scratch.join("log"))?;
    let line = wait::until("the ready line", PROMPT, || {
        let output = process.output();
        output
            .lines()
            .find_map(|line| line.strip_prefix("ready ").map(str::to_owned))
    });
    let line = line.with_context(|| process.output())?;
    Ok((process, line.split(' ').map(str::to_owned).collect()))
}

/// The same with certificates of a client.
fn with_certificates(uri: &str, certificates: &Path) -> String {
    let separator = if uri.contains('?') { '&' } else { '?' };
    format!(
        "{uri}{separator}tls-certificates={}&tls-hostname=localhost",
        certificates.display()
    )
}

fn is_refused(uri: &str) -> Result<bool> {
    Ok(!tool::run("nbdinfo", &["--size", uri], PROMPT)?.status.success())
}

#[test]
fn one_line_serves_those_with_a_certificate() -> Result<()> {
    let (scratch, pki) = (Scratch::new()?, pki::directory()?);
    let socket = scratch.join("s").display().to_string();
    let more = ["--tls-verify-peer", "--unix", &socket, "--tcp", "0.0.0.0:0"];
    let (process, uris) = start(&scratch, &pki, &more)?;
    ensure!(uris.len() == 2, "{uris:?}");
    let nobody = Scratch::new()?;
    std::fs::copy(pki.join("ca-cert.pem"), nobody.join("ca-cert.pem"))?;
    for (uri, scheme) in uris.iter().zip(["nbds+unix:///?socket=", "nbds://0.0.0.0:"]) {
        ensure!(uri.starts_with(scheme), "{uri}");
        let uri = uri.replace("0.0.0.0", "127.0.0.1");
        let info = tool::check("nbdinfo", &[&with_certificates(&uri, &pki)], PROMPT)?;
        ensure!(info.contains("with TLS"), "{info}");
        ensure!(is_refused(&with_certificates(&uri, nobody.path()))?, "{uri}");
        ensure!(is_refused(&uri.replacen("nbds", "nbd", 1))?, "{uri}");
    }
    for words in ["shows no certificate, and one is required", "did not ask for TLS"] {
        let said = || process.output().contains(words).then_some(());
        wait::until(words, PROMPT, said).with_context(|| process.output())?;
    }
    Ok(())
}

#[test]
fn new_certificates_come_by_a_signal() -> Result<()> {
    let (scratch, used, new) = (Scratch::new()?, Scratch::new()?, Scratch::new()?);
    let old = pki::directory()?;
    pki::fill(new.path())?;
    let copy = |from: &Path| -> Result<()> {
        for name in ["server-cert.pem", "server-key.pem"] {
            std::fs::copy(from.join(name), used.join(name))?;
        }
        Ok(())
    };
    copy(&old)?;
    let (process, uris) = start(&scratch, used.path(), &["--tcp", "127.0.0.1:0"])?;
    let uri = uris.first().context("no URI")?;
    tool::check("nbdinfo", &["--size", &with_certificates(uri, &old)], PROMPT)?;
    copy(new.path())?;
    process.signal(Signal::SIGHUP)?;
    wait::until("the new certificates", PROMPT, || {
        is_refused(&with_certificates(uri, &old)).ok()?.then_some(())
    })
    .with_context(|| process.output())?;
    tool::check("nbdinfo", &["--size", &with_certificates(uri, new.path())], PROMPT)?;
    Ok(())
}

#[test]
fn standard_input_and_output_have_no_tls() -> Result<()> {
    let server = tool::binary("blockmirror-server")?.display().to_string();
    let pki = pki::directory()?.display().to_string();
    let arguments = ["serve", "memory:1MiB", "--stdio", "--tls-certificates", &pki];
    let outcome = tool::run(&server, &arguments, PROMPT)?;
    ensure!(
        !outcome.status.success() && outcome.text().contains("leave out --tls-certificates with --stdio"),
        "{}",
        outcome.text()
    );
    Ok(())
}
