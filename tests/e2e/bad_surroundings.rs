//! A world that does not fit: files, ports, metadata, space. Each refusal names the thing and the reason; a daemon
//! that runs goes on serving what it can.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use blockmirror_tests::config::{NodeConfig, Peer, Resource, unix_uri};
use blockmirror_tests::node::Node;
use blockmirror_tests::raw::errno;
use blockmirror_tests::scratch::{Scratch, SmallFileSystem};
use blockmirror_tests::tool;

const MIB: u64 = 1 << 20;

/// Start a node that must refuse, saying every one of `words`.
fn refuses(folder: &Path, config: &NodeConfig, words: &[&str]) -> Result<()> {
    let mut node = Node::stopped(folder, config)?;
    node.launch()?;
    let status = node.wait_exit()?;
    let log = node.log();
    ensure!(!status.success(), "it ended well:\n{log}");
    for word in words {
        ensure!(log.contains(word), "{word:?} is not in:\n{log}");
    }
    ensure!(!log.contains("panicked"), "{log}");
    Ok(())
}

fn one(image: &Path, size: Option<u64>) -> NodeConfig {
    let mut resource = Resource::mirrored("db", image, 0, Vec::new());
    resource.size = size;
    NodeConfig::new("alpha", vec![resource])
}

#[test]
fn a_missing_image_without_a_size() -> Result<()> {
    let scratch = Scratch::new()?;
    refuses(
        scratch.path(),
        &one(&scratch.join("gone.img"), None),
        &["gone.img", "does not exist", "size"],
    )
}

#[test]
fn an_image_of_another_size() -> Result<()> {
    let scratch = Scratch::new()?;
    let image = scratch.sparse_file("db.img", 8 * MIB)?;
    refuses(
        scratch.path(),
        &one(&image, Some(16 * MIB)),
        &["db.img", "8388608", "16777216"],
    )?;
    ensure!(image.metadata()?.len() == 8 * MIB, "the image was resized");
    Ok(())
}

#[test]
fn an_empty_image() -> Result<()> {
    let scratch = Scratch::new()?;
    let image = scratch.sparse_file("db.img", 0)?;
    refuses(scratch.path(), &one(&image, None), &["db.img", "empty"])
}

#[test]
fn an_image_on_a_read_only_file_system() -> Result<()> {
    let scratch = Scratch::new()?;
    let small = SmallFileSystem::new(32 * MIB)?;
    let image = small.path().join("db.img");
    fs::File::create(&image)?.set_len(8 * MIB)?;
    let path = small.path().display().to_string();
    tool::check("mount", &["-o", "remount,ro", &path], blockmirror_tests::wait::PROMPT)?;
    refuses(scratch.path(), &one(&image, Some(8 * MIB)), &["db.img", "ead-only"])
}

#[test]
fn a_port_that_is_taken() -> Result<()> {
    let scratch = Scratch::new()?;
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let address = taken.local_addr()?.to_string();
    let mut config = one(&scratch.join("db.img"), Some(8 * MIB));
    config.listen = vec![format!("tcp:{address}")];
    refuses(scratch.path(), &config, &[&address, "in use"])
}

#[test]
fn a_socket_of_a_running_daemon() -> Result<()> {
    let scratch = Scratch::new()?;
    let first = Node::start(scratch.path(), &one(&scratch.join("db.img"), Some(8 * MIB)))?;
    // The same node again, with another image: only the sockets are in the way.
    let elsewhere = Scratch::new()?;
    let mut config = one(&elsewhere.join("other.img"), Some(8 * MIB));
    config.listen = vec![format!("unix:{}", first.socket().display())];
    refuses(elsewhere.path(), &config, &[&first.socket().display().to_string()])?;
    first.open("db")?.read(0, 4096)?;
    Ok(())
}

/// The metadata file a node leaves beside its image after a clean end.
fn with_metadata(scratch: &Scratch) -> Result<(NodeConfig, std::path::PathBuf)> {
    let config = one(&scratch.join("db.img"), Some(8 * MIB));
    Node::start(scratch.path(), &config)?.stop()?;
    let mut found = Vec::new();
    for entry in fs::read_dir(scratch.path())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("db.img") && name != "db.img" {
            found.push(path);
        }
    }
    ensure!(found.len() == 1, "one metadata file beside the image: {found:?}");
    Ok((config, found.remove(0)))
}

#[test]
fn metadata_that_is_not_ours() -> Result<()> {
    let scratch = Scratch::new()?;
    let (config, metadata) = with_metadata(&scratch)?;
    let length = metadata.metadata()?.len();
    fs::write(&metadata, vec![0x5a; usize::try_from(length)?])?;
    refuses(scratch.path(), &config, &[&metadata.display().to_string()])?;
    ensure!(
        fs::read(&metadata)?.iter().all(|byte| *byte == 0x5a),
        "a foreign file was overwritten"
    );
    Ok(())
}

#[test]
fn metadata_cut_short() -> Result<()> {
    let scratch = Scratch::new()?;
    let (config, metadata) = with_metadata(&scratch)?;
    fs::File::options().write(true).open(&metadata)?.set_len(6000)?;
    refuses(scratch.path(), &config, &[&metadata.display().to_string()])
}

#[test]
fn metadata_with_both_superblocks_torn() -> Result<()> {
    let scratch = Scratch::new()?;
    let (config, metadata) = with_metadata(&scratch)?;
    let file = fs::File::options().write(true).open(&metadata)?;
    for slot in [0_u64, 4096] {
        file.write_all_at(&[0xff; 16], slot + 64)?;
    }
    refuses(scratch.path(), &config, &[&metadata.display().to_string()])
}

#[test]
fn metadata_with_one_superblock_torn_is_survived() -> Result<()> {
    for slot in [0_u64, 4096] {
        let scratch = Scratch::new()?;
        let (config, metadata) = with_metadata(&scratch)?;
        fs::File::options()
            .write(true)
            .open(&metadata)?
            .write_all_at(&[0xff; 16], slot + 64)?;
        let node = Node::start(scratch.path(), &config).with_context(|| format!("slot at {slot}"))?;
        node.open("db")?.read(0, 4096)?;
    }
    Ok(())
}

#[test]
fn metadata_of_another_image() -> Result<()> {
    let scratch = Scratch::new()?;
    let (config, metadata) = with_metadata(&scratch)?;
    fs::File::options()
        .write(true)
        .open(scratch.join("db.img"))?
        .set_len(4 * MIB)?;
    let mut config = config;
    config.resources[0].size = Some(4 * MIB);
    refuses(scratch.path(), &config, &[&metadata.display().to_string(), "4194304"])
}

#[test]
fn a_full_disk_fails_the_write_and_nothing_else() -> Result<()> {
    let scratch = Scratch::new()?;
    let small = SmallFileSystem::new(8 * MIB)?;
    let full = small.path().join("full.img");
    fs::File::create(&full)?.set_len(64 * MIB)?;
    let config = NodeConfig::new(
        "alpha",
        vec![
            Resource::plain("full", &full, 64 * MIB),
            Resource::plain("db", &scratch.join("db.img"), 8 * MIB),
        ],
    );
    let node = Node::start(scratch.path(), &config)?;
    let (mut raw, mut bystander) = (node.open("full")?, node.open("db")?);
    ensure!(raw.write(0, 0, &[5; 4096])? == 0);
    let mut errors = Vec::new();
    for n in 1..32_u64 {
        errors.push(raw.write(0, n * MIB, &vec![5; 1 << 20])?);
        ensure!(bystander.write(0, 0, &[6; 4096])? == 0, "the other volume is disturbed");
    }
    ensure!(
        errors.contains(&errno::NO_SPACE),
        "no write was refused for lack of space: {errors:?}"
    );
    ensure!(
        errors.iter().all(|error| [0, errno::NO_SPACE].contains(error)),
        "{errors:?}"
    );
    ensure!(raw.read(0, 4096)? == vec![5; 4096], "what was acknowledged is there");
    // Space comes back: so does service.
    ensure!(
        raw.call(0, blockmirror_tests::raw::command::TRIM, MIB, 16 << 20)? == 0,
        "TRIM on a full disk"
    );
    ensure!(raw.write(0, 0, &[7; 4096])? == 0 && raw.read(0, 4096)? == vec![7; 4096]);
    Ok(())
}

#[test]
fn a_full_disk_does_not_keep_a_mirror_from_noting_what_a_peer_misses() -> Result<()> {
    let scratch = Scratch::new()?;
    let small = SmallFileSystem::new(16 * MIB)?;
    let peer = Peer::new("bravo", &unix_uri(&scratch.join("absent"), "db")).with("skip_initial_sync = true");
    let mut resource = Resource::mirrored("db", &small.path().join("db.img"), 8 * MIB, vec![peer]);
    resource.volume_settings = "preallocate = true".to_owned();
    let mut node = Node::start(scratch.path(), &NodeConfig::new("alpha", vec![resource]))?;
    let filled = fs::write(small.path().join("filler"), vec![1; 16 << 20]);
    ensure!(filled.is_err(), "the disk is not full");
    let mut raw = node.open("db")?;
    ensure!(raw.write(0, 0, &[5; 4096])? == 0 && raw.write(0, 4 * MIB, &[5; 4096])? == 0);
    // The extents that were hot become dirty, on a disk that is full still.
    node.kill();
    node.restart()?;
    ensure!(node.open("db")?.write(0, 0, &[6; 4096])? == 0);
    // A new metadata file finds no room, and leaves nothing behind.
    node.stop()?;
    fs::remove_file(small.path().join("db.img.blockmirror"))?;
    let filled = fs::write(small.path().join("more"), vec![1; 1 << 20]);
    ensure!(filled.is_err(), "the disk is not full");
    node.launch()?;
    ensure!(!node.wait_exit()?.success(), "it started");
    ensure!(node.log().contains("needs 147456 bytes of its own"), "{}", node.log());
    ensure!(!small.path().join("db.img.blockmirror.new").exists());
    Ok(())
}

#[test]
fn an_image_that_does_not_fit_the_disk_when_preallocated() -> Result<()> {
    let scratch = Scratch::new()?;
    let small = SmallFileSystem::new(8 * MIB)?;
    let mut config = one(&small.path().join("db.img"), Some(64 * MIB));
    config.resources[0].volume_settings = "preallocate = true".to_owned();
    refuses(scratch.path(), &config, &["db.img", "does not fit"])
}
