//! Who is refused, by us and by our initiator, and what the log says.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use anyhow::{Result, ensure};
use blockmirror_client::client::Client;
use blockmirror_tests::pki;
use blockmirror_tests::recorder::Recorder;
use blockmirror_tests::scratch::Scratch;
use blockmirror_tests::tool;
use blockmirror_tests::wait::{PATIENT, PROMPT};

use super::{REQUIRE, STRICT, Served, random};

#[test]
fn whoever_is_refused_is_in_the_log_with_the_reason() -> Result<()> {
    let served = Served::new(STRICT)?;
    let blockmirror = tool::binary("blockmirror")?.display().to_string();
    let refused = |certificates: &str, ca: &str, words: &str| -> Result<String> {
        let (mut uri, dir) = (served.over_tcp(certificates), served.pki.join(certificates));
        uri.truncate(uri.find('?').unwrap_or(uri.len()));
        let file = |name: &str| dir.join(name).display().to_string();
        let (certificate, key) = (file("client-cert.pem"), file("client-key.pem"));
        let ca = served.pki.join(ca).join("ca-cert.pem").display().to_string();
        let mut arguments = vec!["compare", "--tls-ca", &ca];
        if !certificates.is_empty() {
            arguments.extend(["--tls-certificate", &certificate, "--tls-key", &key]);
        }
        let outcome = tool::run(&blockmirror, &[&arguments[..], &[&uri, &uri]].concat(), PROMPT)?;
        ensure!(!outcome.status.success(), "{certificates}: {}", outcome.text());
        served.wait_log(words)?;
        Ok(outcome.text())
    };
    let text = refused("", "", "shows no certificate, and one is required")?;
    ensure!(text.contains("116") || text.contains("certificate"), "{text}");
    refused("wrong-ca", "", "wrong CA: no CA that is trusted here has signed it")?;
    let text = refused(
        "wrong-ca",
        "wrong-ca",
        "wrong CA: it trusts no CA that has signed our certificate",
    )?;
    ensure!(text.contains("wrong CA"), "{text}");
    // Plaintext, and a version of TLS that nobody should have.
    let plain = format!("nbd://localhost:{}/db", served.port);
    ensure!(!tool::run("nbdinfo", &[&plain], PROMPT)?.status.success());
    served.wait_log("plaintext: the client did not ask for TLS")?;
    // libnbd shows an expired certificate all the same.
    ensure!(
        !tool::run("nbdinfo", &[&served.over_tcp("expired")], PROMPT)?
            .status
            .success()
    );
    served.wait_log("it has expired")?;
    ensure!(
        tool::check("nbdinfo", &[&served.over_tcp("")], PROMPT)?.contains("with TLS"),
        "others are served"
    );
    Ok(())
}

#[test]
fn the_initiator_refuses_servers_it_cannot_trust() -> Result<()> {
    let blockmirror = tool::binary("blockmirror")?.display().to_string();
    let pki = pki::directory()?;
    let ca = pki.join("ca-cert.pem").display().to_string();
    for (set, words) in [("wrong-ca", "wrong CA"), ("wrong-name", "wrong name")] {
        let served = Served::with_pki(pki.join(set), REQUIRE)?;
        let uri = format!("nbds://localhost:{}/db", served.port);
        let outcome = tool::run(&blockmirror, &["compare", "--tls-ca", &ca, &uri, &uri], PROMPT)?;
        ensure!(
            !outcome.status.success() && outcome.text().contains(words),
            "{set}: {}",
            outcome.text()
        );
    }
    // The daemon does not even start with a certificate that has expired.
    let expired = Served::with_pki(pki.join("expired"), REQUIRE);
    let text = expired.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(text.contains("expired on"), "{text}");
    Ok(())
}

#[test]
fn a_stripped_starttls_is_no_way_to_plaintext() -> Result<()> {
    let scratch = Scratch::new()?;
    let socket = scratch.path().join("mitm");
    let listener = UnixListener::bind(&socket)?;
    let mitm = thread::spawn(move || -> Result<Vec<u32>> {
        let (mut stream, _) = listener.accept()?;
        stream.write_all(b"NBDMAGICIHAVEOPT\0\x03")?;
        stream.read_exact(&mut [0; 4])?;
        let mut options = Vec::new();
        let mut header = [0; 16];
        while stream.read_exact(&mut header).is_ok() {
            let [.., a, b, c, d, _, _, _, _] = header;
            options.push(u32::from_be_bytes([a, b, c, d]));
            let mut reply = 0x0003_e889_0455_65a9_u64.to_be_bytes().to_vec();
            reply.extend([a, b, c, d, 0x80, 0, 0, 1, 0, 0, 0, 0]);
            if stream.write_all(&reply).is_err() {
                break;
            }
        }
        Ok(options)
    });
    let dir = pki::directory()?;
    let uri = format!(
        "nbds+unix:///db?socket={}&tls-certificates={}",
        socket.display(),
        dir.display()
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let error = runtime.block_on(async {
        Client::connect(&uri.parse()?)
            .await
            .map(|_| ())
            .map_err(anyhow::Error::from)
    });
    let text = error.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(text.contains("STARTTLS"), "{text}");
    let options = mitm.join().map_err(|_| anyhow::anyhow!("it panicked"))??;
    ensure!(options == [5, 2], "STARTTLS, then ABORT: {options:?}");
    Ok(())
}

#[test]
fn nothing_of_plaintext_is_trusted_behind_starttls() -> Result<()> {
    let served = Served::new(REQUIRE)?;
    let mut stream = UnixStream::connect(served.socket())?;
    stream.set_read_timeout(Some(PROMPT))?;
    stream.read_exact(&mut [0; 18])?;
    let option = |code: u32| [b"IHAVEOPT".to_vec(), code.to_be_bytes().to_vec(), vec![0; 4]].concat();
    stream.write_all(&[vec![0, 0, 0, 3], option(5), option(3)].concat())?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest)?;
    ensure!(rest.len() == 20, "an ACK, then the end: {} bytes", rest.len());
    served.wait_log("bytes behind STARTTLS")
}

#[test]
fn a_version_that_is_too_old_is_refused_with_the_reason() -> Result<()> {
    const ALERT: u8 = 21;
    let signatures = [0, 13, 0, 4, 0, 2, 4, 3];
    for (extensions, why) in [(&[][..], 40), (&signatures, 70)] {
        let served = Served::new(REQUIRE)?;
        let mut stream = at_tls(&served)?;
        stream.write_all(&hello_of_tls_1_1(extensions))?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        ensure!(
            answer.first() == Some(&ALERT) && answer.ends_with(&[2, why]),
            "{answer:?}"
        );
        served.wait_log("the other side has only versions of TLS older than 1.2")?;
    }
    Ok(())
}

/// The first message of a client that knows nothing newer.
fn hello_of_tls_1_1(extensions: &[u8]) -> Vec<u8> {
    const VERSION: [u8; 2] = [3, 2];
    let ciphers = [0xc0, 0x09, 0xc0, 0x13, 0x00, 0x2f];
    let mut hello = [&VERSION[..], &[7; 32], &[0, 0, 6], &ciphers, &[1, 0]].concat();
    // Which groups, which form of points; and what else.
    let groups = [0, 10, 0, 4, 0, 2, 0, 23, 0, 11, 0, 2, 1, 0];
    hello.extend([0, (groups.len() + extensions.len()) as u8]);
    hello.extend(groups.iter().chain(extensions));
    let length = hello.len() as u8;
    [&[22, 3, 1, 0, length + 4, 1, 0, 0, length][..], &hello].concat()
}

/// A connection on which TLS may begin.
fn at_tls(served: &Served) -> Result<UnixStream> {
    let mut stream = UnixStream::connect(served.socket())?;
    stream.set_read_timeout(Some(PROMPT))?;
    stream.read_exact(&mut [0; 18])?;
    stream.write_all(&[&[0, 0, 0, 3][..], b"IHAVEOPT\0\0\0\x05\0\0\0\0"].concat())?;
    stream.read_exact(&mut [0; 20])?;
    Ok(stream)
}

#[test]
fn garbage_inside_a_connection_ends_it_cleanly() -> Result<()> {
    let served = Served::new(REQUIRE)?;
    for garbage in [
        &[0; 64][..],
        &[0xff; 70_000],
        b"\x17\x03\x03\x00\x20garbage of thirty-two bytes, all o",
        b"\x16\x03\x01",
    ] {
        let mut stream = at_tls(&served)?;
        // The server may close before it has read all of it.
        let _ = stream.write_all(garbage);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    // Cut in the middle of a transfer, by a recorder that ends.
    let recorder = Recorder::new(served.scratch.join("recorder.nbd"), &served.socket())?;
    recorder.damage_after(2 << 20);
    let uri = served.over_unix("").replace("tls.nbd", "recorder.nbd");
    let data = random(&served.scratch)?;
    ensure!(
        !tool::run("nbdcopy", &[&data.display().to_string(), &uri], PATIENT)?
            .status
            .success()
    );
    served.wait_log("damaged on its way")?;
    ensure!(
        tool::check("nbdinfo", &[&served.over_tcp("")], PROMPT)?.contains("with TLS"),
        "others are served"
    );
    Ok(())
}
