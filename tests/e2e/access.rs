//! Access rules: who gets in, who may only read, and that a stranger cannot tell a hidden export from none.

use anyhow::{Result, ensure};
use blockmirror_tests::config::{NodeConfig, Resource};
use blockmirror_tests::node::Node;
use blockmirror_tests::raw::{OptionReply, Raw, command, errno, info_request, option};
use blockmirror_tests::scratch::Scratch;
use blockmirror_tests::tool;
use blockmirror_tests::wait::PATIENT;

const SIZE: u64 = 1 << 20;

/// A node that serves `db` to loopback clients for reading and to Unix sockets, `log` to Unix sockets alone, and `temp` to
/// whoever is here.
fn node(scratch: &Scratch, port: u16) -> Result<Node> {
    let volume = |name: &str, rules: &str| {
        let mut resource = Resource::plain(name, &scratch.join(&format!("{name}.img")), SIZE);
        resource.volume_settings = rules.to_owned();
        resource
    };
    let rule =
        |from: &str, permit: &str| format!("[[resource.volume.access]]\nfrom = [\"{from}\"]\npermit = \"{permit}\"\n");
    let unix = rule("unix", "read-write");
    let db = format!("{}{unix}", rule("loopback", "read-only"));
    let resources = vec![volume("db", &db), volume("log", &unix), volume("temp", "")];
    let mut config = NodeConfig::new("alpha", resources);
    config.listen = vec![format!("tcp:127.0.0.1:{port}")];
    Node::start(scratch.path(), &config)
}

fn tcp(port: u16) -> Result<Raw> {
    let mut raw = Raw::connect_tcp(&format!("127.0.0.1:{port}"))?;
    raw.greet(3)?;
    Ok(raw)
}

fn words(replies: Vec<OptionReply>, name: &str) -> Vec<(u32, String)> {
    let text = |reply: OptionReply| String::from_utf8_lossy(&reply.payload).replace(name, "NAME");
    replies.into_iter().map(|reply| (reply.kind, text(reply))).collect()
}

#[test]
fn a_reader_reads_and_a_stranger_sees_nothing() -> Result<()> {
    let scratch = Scratch::new()?;
    let port = tool::free_port()?;
    let node = node(&scratch, port)?;
    let mut owner = node.open("db")?;
    ensure!(owner.write(0, 0, &[7; 512])? == 0);
    let mut reader = tcp(port)?;
    reader.go("db")?;
    ensure!(reader.read(0, 512)? == [7; 512]);
    for refused in [command::TRIM, command::WRITE_ZEROES] {
        ensure!(reader.call(0, refused, 0, 512)? == errno::PERM, "command {refused}");
    }
    ensure!(reader.write(0, 0, &[8; 512])? == errno::PERM);
    ensure!(owner.read(0, 512)? == [7; 512], "nothing was written");
    let listed = tool::check("nbdinfo", &["--list", &format!("nbd://127.0.0.1:{port}")], PATIENT)?;
    ensure!(
        listed.contains("\"db\"") && listed.contains("\"temp\"") && !listed.contains("log"),
        "{listed}"
    );
    let all = tool::check("nbdinfo", &["--list", &node.uri("")], PATIENT)?;
    ensure!(all.contains("export=\"log\""), "{all}");
    for asked in [option::INFO, option::GO] {
        let mut raw = tcp(port)?;
        let hidden = words(raw.option(asked, &info_request("log", &[]))?, "log");
        let missing = words(raw.option(asked, &info_request("lug", &[]))?, "lug");
        ensure!(hidden == missing, "{hidden:?} tells more than {missing:?}");
        ensure!(hidden[0].0 == option::ERROR_UNKNOWN);
    }
    for name in ["log", "lug"] {
        let mut raw = tcp(port)?;
        raw.send_option(option::EXPORT_NAME, name.as_bytes())?;
        ensure!(raw.is_closed(), "{name}");
    }
    Ok(())
}

#[test]
fn rules_change_without_a_restart() -> Result<()> {
    let scratch = Scratch::new()?;
    let port = tool::free_port()?;
    let node = node(&scratch, port)?;
    tcp(port)?.go("temp")?;
    let text = std::fs::read_to_string(node.config_path())?;
    std::fs::write(
        node.config_path(),
        text.replace("[\"unix\"]", "[\"unix\", \"loopback\"]"),
    )?;
    ensure!(tcp(port)?.go("log").is_err());
    node.reload()?;
    tcp(port)?.go("log")
}
