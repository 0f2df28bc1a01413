//! nbdinfo, nbdcopy, qemu-img, qemu-io and fio against an export.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use blockmirror_tests::compare;
use blockmirror_tests::config::{NodeConfig, Resource};
use blockmirror_tests::node::Node;
use blockmirror_tests::pair::{EXPORT, Pair, Setup, seed};
use blockmirror_tests::scratch::Scratch;
use blockmirror_tests::tool;
use blockmirror_tests::wait::PATIENT;

const MIB: u64 = 1 << 20;
const SIZE: u64 = 64 * MIB;

/// A node that serves `db` on a Unix socket and on TCP; both URIs.
fn served(scratch: &Scratch, volume: &str) -> Result<(Node, [String; 2])> {
    let port = tool::free_port()?;
    let mut resource = Resource::plain("db", &scratch.join("db.img"), SIZE);
    resource.volume_settings = volume.to_owned();
    let mut config = NodeConfig::new("alpha", vec![resource]);
    config.listen = vec![format!("tcp:127.0.0.1:{port}")];
    let node = Node::start(scratch.path(), &config)?;
    let uris = [node.uri("db"), format!("nbd://127.0.0.1:{port}/db")];
    Ok((node, uris))
}

#[test]
fn nbdinfo_sees_the_export() -> Result<()> {
    let scratch = Scratch::new()?;
    let (_node, uris) = served(&scratch, "description = \"the database\"")?;
    for uri in &uris {
        let text = tool::check("nbdinfo", &["--json", uri], PATIENT)?;
        let info: serde_json::Value = serde_json::from_str(&text)?;
        let export = &info["exports"][0];
        ensure!(export["export-name"] == "db" && export["export-size"] == SIZE, "{text}");
        for flag in [
            "can_flush",
            "can_fua",
            "can_trim",
            "can_zero",
            "can_multi_conn",
            "can_cache",
            "can_df",
        ] {
            ensure!(export[flag] == true, "{flag}: {text}");
        }
        ensure!(
            export["is_read_only"] == false && export["description"] == "the database",
            "{text}"
        );
    }
    let listed = tool::check("nbdinfo", &["--list", &uris[1].replace("/db", "")], PATIENT)?;
    ensure!(listed.contains("export=\"db\""), "{listed}");
    Ok(())
}

#[test]
fn nbdcopy_copies_both_ways() -> Result<()> {
    let scratch = Scratch::new()?;
    let (_node, uris) = served(&scratch, "")?;
    let source = scratch.sparse_file("source.img", SIZE)?;
    seed(&source, 20 * MIB)?;
    for (n, uri) in uris.iter().enumerate() {
        let back = scratch.join(&format!("back{n}.img"));
        let name = source.display().to_string();
        tool::check("nbdcopy", &["--flush", "--connections=4", &name, uri], PATIENT)?;
        compare::assert_identical(&source, &scratch.join("db.img"))?;
        tool::check("nbdcopy", &[uri, &back.display().to_string()], PATIENT)?;
        compare::assert_identical(&source, &back)?;
        seed(&source, 30 * MIB)?;
    }
    Ok(())
}

#[test]
fn qemu_img_and_qemu_io_agree() -> Result<()> {
    let scratch = Scratch::new()?;
    let (_node, uris) = served(&scratch, "")?;
    let source = scratch.sparse_file("source.img", SIZE)?;
    seed(&source, 20 * MIB)?;
    let name = source.display().to_string();
    for uri in &uris {
        let arguments = ["convert", "-n", "-f", "raw", "-O", "raw", &name, uri];
        tool::check("qemu-img", &arguments, PATIENT)?;
        let said = tool::check("qemu-img", &["compare", "-f", "raw", "-F", "raw", &name, uri], PATIENT)?;
        ensure!(said.contains("identical"), "{said}");
        let commands = [
            "-f",
            "raw",
            "-c",
            "write -P 0x5a 1M 64k",
            "-c",
            "write -f -P 0x5b 3000 512",
            "-c",
            "write -z 2M 1M",
            "-c",
            "discard 4M 1M",
            "-c",
            "flush",
            "-c",
            "read -P 0x5a 1M 64k",
            "-c",
            "read -P 0x5b 3000 512",
            "-c",
            "read -P 0 2M 1M",
            uri,
        ];
        let said = tool::check("qemu-io", &commands, PATIENT)?;
        ensure!(!said.contains("failed"), "{said}");
    }
    Ok(())
}

fn fio_verifies(uri: &str, more: &[&str]) -> Result<()> {
    let uri = format!("--uri={uri}");
    let usual = [
        "--name=verify",
        "--thread",
        "--ioengine=nbd",
        "--rw=randwrite",
        "--bs=4k",
        "--iodepth=32",
        "--size=32M",
        "--verify=crc32c",
        "--verify_state_save=0",
        "--verify_fatal=1",
        "--do_verify=1",
        "--output-format=json",
        &uri,
    ];
    let text = tool::check("fio", &[&usual, more].concat(), PATIENT)?;
    let start = text.find('{').context("no JSON")?;
    let report: serde_json::Value = serde_json::from_str(&text[start..])?;
    let job = &report["jobs"][0];
    ensure!(job["error"] == 0, "{text}");
    let verified = job["read"]["io_bytes"].as_u64().context("no figure")?;
    ensure!(verified >= 32 * MIB - 65_536, "fio verified only {verified} bytes");
    Ok(())
}

#[test]
fn fio_verifies_over_a_unix_socket() -> Result<()> {
    let scratch = Scratch::new()?;
    fio_verifies(&served(&scratch, "")?.1[0], &[])
}

#[test]
fn fio_verifies_over_tcp() -> Result<()> {
    let scratch = Scratch::new()?;
    fio_verifies(&served(&scratch, "")?.1[1], &[])
}

#[test]
fn fio_verifies_direct_io_with_odd_sizes() -> Result<()> {
    let scratch = Scratch::new()?;
    let (_node, uris) = served(&scratch, "io = \"direct\"")?;
    fio_verifies(&uris[0], &[])?;
    fio_verifies(
        &uris[0],
        &["--bsrange=512-20480", "--bs_unaligned=0", "--blockalign=512"],
    )
}

#[test]
fn fio_verifies_a_mirror_through_a_cut() -> Result<()> {
    let pair = Pair::new(&Setup::default())?;
    pair.primary.wait_established(EXPORT, PATIENT)?;
    let uri = pair.primary.uri(EXPORT);
    std::thread::scope(|scope| {
        let fio = scope.spawn(|| fio_verifies(&uri, &["--rate_iops=4000"]));
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(300));
            pair.relay.cut();
            std::thread::sleep(Duration::from_millis(300));
            pair.relay.restore();
        }
        fio.join().map_err(|_| anyhow::anyhow!("fio's thread panicked"))?
    })?;
    pair.assert_converges()
}
