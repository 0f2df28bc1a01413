//! A volume served plain: what is written is what is read, on every engine and kind of image.

use anyhow::{Result, ensure};
use blockmirror_tests::config::{NodeConfig, Resource};
use blockmirror_tests::node::Node;
use blockmirror_tests::raw::{Raw, command, errno};
use blockmirror_tests::scratch::Scratch;
use blockmirror_tests::tool;

const MIB: u64 = 1 << 20;

/// Size, engine and io of one served image.
fn served(scratch: &Scratch, settings: &str, volume: &str) -> Result<Node> {
    let mut resource = Resource::plain("db", &scratch.join("db.img"), 16 * MIB);
    resource.volume_settings = volume.to_owned();
    let mut config = NodeConfig::new("alpha", vec![resource]);
    config.settings = settings.to_owned();
    Node::start(scratch.path(), &config)
}

/// Every command once, with the answer checked against what a plain array of bytes would say.
fn round_of_commands(raw: &mut Raw) -> Result<()> {
    let mut model = vec![0_u8; raw.size as usize];
    let pattern: Vec<u8> = (0..70_000_u32).map(|n| (n % 251) as u8 + 1).collect();
    // Unaligned edges, a whole block, FUA, and a write across a block border.
    for (flags, offset, length) in [
        (0, 4096, 4096),
        (0, 12_345, 70_000),
        (command::FUA, 511, 3),
        (0, 8190, 4),
        (0, 0, 1),
    ] {
        let data = &pattern[..length];
        ensure!(raw.write(flags, offset as u64, data)? == 0, "write {offset}+{length}");
        model[offset..offset + length].copy_from_slice(data);
    }
    for (kind, flags, offset, length) in [
        (command::TRIM, 0, 20_000, 30_000),
        (command::WRITE_ZEROES, 0, 5000, 100),
        (command::WRITE_ZEROES, command::NO_HOLE | command::FUA, 60_000, 10_000),
    ] {
        let error = raw.call(flags, kind, offset as u64, length as u32)?;
        ensure!(error == 0, "command {kind} {offset}+{length}: error {error}");
        if kind == command::WRITE_ZEROES {
            model[offset..offset + length].fill(0);
        } else {
            // What a trimmed range holds is not promised: write it, so that the model knows.
            ensure!(raw.write(0, offset as u64, &model[offset..offset + length])? == 0);
        }
    }
    ensure!(raw.call(0, command::CACHE, 0, 65_536)? == 0, "CACHE");
    raw.flush()?;
    for (offset, length) in [(0, 131_072), (1, 1), (511, 70_000), (4095, 4098)] {
        ensure!(
            raw.read(offset as u64, length as u32)? == model[offset..offset + length],
            "read {offset}+{length}"
        );
    }
    Ok(())
}

#[test]
fn buffered_image_answers_every_command() -> Result<()> {
    let scratch = Scratch::new()?;
    round_of_commands(&mut served(&scratch, "", "")?.open("db")?)
}

#[test]
fn direct_image_answers_every_command() -> Result<()> {
    let scratch = Scratch::new()?;
    round_of_commands(&mut served(&scratch, "", "io = \"direct\"")?.open("db")?)
}

#[test]
fn thread_engine_answers_every_command() -> Result<()> {
    let scratch = Scratch::new()?;
    let node = served(&scratch, "engine = \"threads\"", "")?;
    round_of_commands(&mut node.open("db")?)?;
    let engine = node.status()?.engine;
    ensure!(engine.contains("thread"), "the status names the engine: {engine:?}");
    Ok(())
}

#[test]
fn image_in_memory_answers_every_command() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut resource = Resource::plain("ram", scratch.path(), 16 * MIB);
    resource.image = "memory:".to_owned();
    let node = Node::start(scratch.path(), &NodeConfig::new("alpha", vec![resource]))?;
    round_of_commands(&mut node.open("ram")?)
}

#[test]
fn mirrored_volume_without_peers_answers_every_command() -> Result<()> {
    let scratch = Scratch::new()?;
    let resource = Resource::mirrored("db", &scratch.join("db.img"), 16 * MIB, Vec::new());
    let node = Node::start(scratch.path(), &NodeConfig::new("alpha", vec![resource]))?;
    round_of_commands(&mut node.open("db")?)
}

#[test]
fn block_device_is_served() -> Result<()> {
    let scratch = Scratch::new()?;
    let file = scratch.sparse_file("disk.img", 16 * MIB)?;
    let attached = tool::run(
        "losetup",
        &["--find", "--show", &file.display().to_string()],
        blockmirror_tests::wait::PROMPT,
    )?;
    if !attached.status.success() {
        eprintln!("skipped: this machine has no loop devices ({})", attached.text().trim());
        return Ok(());
    }
    let device = attached.stdout.trim().to_owned();
    let mut resource = Resource::plain("disk", device.as_ref(), 16 * MIB);
    resource.size = None;
    let result = Node::start(scratch.path(), &NodeConfig::new("alpha", vec![resource]))
        .and_then(|node| round_of_commands(&mut node.open("disk")?));
    tool::check("losetup", &["--detach", &device], blockmirror_tests::wait::PROMPT)?;
    result
}

#[test]
fn read_only_volume_refuses_changes_and_stays_in_step() -> Result<()> {
    let scratch = Scratch::new()?;
    scratch.sparse_file("db.img", 16 * MIB)?;
    let node = served(&scratch, "", "read_only = true")?;
    let mut raw = node.open("db")?;
    ensure!(
        raw.flags & 2 != 0,
        "the read-only flag is missing from {:#x}",
        raw.flags
    );
    ensure!(raw.write(0, 0, &[1; 4096])? == errno::PERM);
    ensure!(raw.call(0, command::TRIM, 0, 4096)? == errno::PERM);
    ensure!(raw.call(0, command::WRITE_ZEROES, 0, 4096)? == errno::PERM);
    ensure!(raw.read(0, 4096)? == vec![0; 4096]);
    Ok(())
}

#[test]
fn flush_on_one_connection_covers_another() -> Result<()> {
    let scratch = Scratch::new()?;
    let node = served(&scratch, "", "")?;
    let (mut writer, mut flusher) = (node.open("db")?, node.open("db")?);
    ensure!(
        writer.flags & (1 << 8) != 0,
        "multi-connection is not advertised: {:#x}",
        writer.flags
    );
    ensure!(writer.write(0, 8192, &[7; 4096])? == 0);
    flusher.flush()?;
    ensure!(
        flusher.read(8192, 4096)? == vec![7; 4096],
        "the other connection sees the write"
    );
    Ok(())
}

#[test]
fn many_connections_at_once() -> Result<()> {
    let scratch = Scratch::new()?;
    let node = served(&scratch, "", "")?;
    let mut connections = (0..64).map(|_| node.open("db")).collect::<Result<Vec<_>>>()?;
    let cookies = connections
        .iter_mut()
        .enumerate()
        .map(|(n, raw)| raw.send_write(0, n as u64 * 4096, &[n as u8 + 1; 4096]))
        .collect::<Result<Vec<_>>>()?;
    for (raw, cookie) in connections.iter_mut().zip(cookies) {
        ensure!(raw.reply()? == (cookie, 0));
    }
    for n in 0..64_u8 {
        let seen = connections[63 - usize::from(n)].read(u64::from(n) * 4096, 4096)?;
        ensure!(seen == vec![n + 1; 4096], "block {n}");
    }
    Ok(())
}

#[test]
fn tcp_and_ipv6_listeners_serve() -> Result<()> {
    let scratch = Scratch::new()?;
    let (four, six) = (tool::free_port()?, tool::free_port()?);
    let mut config = NodeConfig::new("alpha", vec![Resource::plain("db", &scratch.join("db.img"), 16 * MIB)]);
    config.listen = vec![format!("tcp:127.0.0.1:{four}"), format!("tcp:[::1]:{six}")];
    let _node = Node::start(scratch.path(), &config)?;
    for address in [format!("127.0.0.1:{four}"), format!("[::1]:{six}")] {
        let mut raw = Raw::connect_tcp(&address)?;
        raw.greet(3)?;
        raw.go("db")?;
        round_of_commands(&mut raw)?;
    }
    Ok(())
}

#[test]
fn second_daemon_cannot_open_the_image() -> Result<()> {
    let scratch = Scratch::new()?;
    let node = served(&scratch, "", "")?;
    let config = NodeConfig::new("bravo", vec![Resource::plain("db", &scratch.join("db.img"), 16 * MIB)]);
    let mut second = Node::stopped(scratch.path(), &config)?;
    second.launch()?;
    ensure!(!second.wait_exit()?.success(), "two daemons opened one image");
    ensure!(
        second.log().contains("db.img"),
        "the refusal names the image:\n{}",
        second.log()
    );
    round_of_commands(&mut node.open("db")?)
}
