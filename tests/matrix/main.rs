//! `scripts/interop`: who works with whom, tried one by one; a table in Markdown, and a failure if anything fails.

use anyhow::{Result, bail};
use blockmirror_tests::config::{NodeConfig, Resource};
use blockmirror_tests::interop::legs::{SERVERS, TRIALS};
use blockmirror_tests::interop::libnbd;
use blockmirror_tests::interop::programs::{DESCRIPTION, PROGRAMS, Served};
use blockmirror_tests::interop::table::{Cell, Table};
use blockmirror_tests::interop::ways::{WAYS, server};
use blockmirror_tests::node::Node;
use blockmirror_tests::scratch::Scratch;
use blockmirror_tests::tool;
use blockmirror_tests::wait::PROMPT;

const USAGE: &str = "usage: matrix [--only libnbd|programs|ways|initiator]";
/// Size of the exports that libnbd's methods are tried on.
const SIZE: u64 = 16 << 20;

type Part = (&'static str, fn() -> Result<Table>);

const PARTS: [Part; 4] = [
    ("libnbd", libnbd_methods),
    ("programs", programs),
    ("ways", ways),
    ("initiator", initiator),
];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let only = match arguments.as_slice() {
        [] => None,
        [option, part] if option == "--only" && PARTS.iter().any(|(name, _)| name == part) => Some(part.as_str()),
        _ => bail!("{USAGE}"),
    };
    let (mut text, mut failures) = (format!("{}\n", versions()?), Vec::new());
    for (name, play) in PARTS.iter().filter(|(name, _)| only.is_none_or(|only| only == *name)) {
        eprintln!("{name}:");
        let table = play()?;
        text.push_str(&format!("\n{}", table.text()));
        failures.extend(table.failures());
    }
    print!("{text}");
    if !failures.is_empty() {
        eprintln!("\n{} cells fail:\n  {}", failures.len(), failures.join("\n  "));
        std::process::exit(1);
    }
    Ok(())
}

/// Every method of libnbd's handle, on every kind of image.
fn libnbd_methods() -> Result<Table> {
    const EXPORTS: [&str; 3] = ["file", "mirrored", "memory"];
    let scratch = Scratch::new()?;
    let port = tool::free_port()?;
    scratch.sparse_file("read-only", SIZE)?;
    let resource = |name: &str, volume: &str| {
        let mut resource = Resource::plain(name, &scratch.join(name), SIZE);
        resource.volume_settings = format!("description = \"{DESCRIPTION}\"\n{volume}");
        resource
    };
    let mut config = NodeConfig::new("alpha", EXPORTS.map(|name| resource(name, "")).into());
    config.resources[1].settings.clear();
    config.resources[2].image = "memory:".to_owned();
    config.resources.push(resource("read-only", "read_only = true"));
    config.listen = vec![format!("tcp:127.0.0.1:{port}")];
    let node = Node::start(scratch.path(), &config)?;
    let mut columns = Vec::new();
    for export in EXPORTS {
        let ways = [
            format!("export={export}"),
            format!("description={DESCRIPTION}"),
            format!("unix={}", node.socket().display()),
            format!("tcp={port}"),
            format!("read_only={}", node.uri("read-only")),
            format!(
                "command={}",
                serde_json::json!([server()?, "serve", "memory:16MiB", "--stdio"])
            ),
            format!("activation={}", serde_json::json!([server()?, "serve", "memory:16MiB"])),
        ];
        columns.push(libnbd::methods(&scratch, &node.uri(export), &ways)?);
    }
    let mut table = Table::new(
        "Our server, every method of libnbd's handle",
        "method",
        EXPORTS.map(str::to_owned).into(),
    );
    let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
    loop {
        let row: Vec<(String, Cell)> = columns.iter_mut().filter_map(Iterator::next).collect();
        let Some((name, _)) = row.first() else { return Ok(table) };
        table.add(&format!("`{name}`"), row.into_iter().map(|(_, cell)| cell).collect());
    }
}

/// Programs that are clients, with TLS but for those that can be given no certificates: fio and nbdkit let their URIs name no
/// files, and `qemu-img bench` knows no objects.
fn programs() -> Result<Table> {
    let columns = ["Unix", "TCP", "TLS"].map(str::to_owned).into();
    let mut table = Table::new("Our server, other people's programs", "program", columns);
    let served = Served::new("")?;
    for (name, act) in PROGRAMS {
        let mut cells: Vec<Cell> = served.uris().iter().map(|uri| Cell::of(act(&served, uri))).collect();
        cells.push(match name {
            "fio, verifying" | "nbdkit's nbd plugin" | "qemu-img bench" => Cell::NotTheirs,
            _ => Cell::of(act(&served, &served.tls)),
        });
        table.add(name, cells);
    }
    Ok(table)
}

/// Who starts whom.
fn ways() -> Result<Table> {
    let mut table = Table::new("Our server, ways in", "who starts whom", vec!["works".into()]);
    for (name, through) in WAYS {
        table.add(name, vec![Cell::of(through())]);
    }
    Ok(table)
}

/// Our initiator.
fn initiator() -> Result<Table> {
    let columns = SERVERS.map(|(name, _)| name.to_owned()).into();
    let mut table = Table::new("Our initiator, other people's servers", "what is tried", columns);
    for (name, trial) in TRIALS {
        let cells = SERVERS.map(|(_, serve)| Cell::of(trial(serve)));
        table.add(name, cells.into());
    }
    Ok(table)
}

/// Who took part.
fn versions() -> Result<String> {
    let mut names = vec![format!("libnbd {}", libnbd::version()?)];
    for (program, option) in [
        ("nbdkit", "--version"),
        ("qemu-img", "--version"),
        ("fio", "--version"),
        ("nbd-server", "-V"),
    ] {
        let text = tool::run(program, &[option], PROMPT)?.text();
        let version = text
            .split(|c: char| c.is_whitespace() || c == '-' || c == '(')
            .find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'));
        names.push(format!(
            "{} {}",
            program.trim_end_matches("-img"),
            version.unwrap_or("of unknown version")
        ));
    }
    Ok(format!("With {}.", names.join(", ")))
}
