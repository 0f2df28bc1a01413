//! Programs that start a server themselves, as they start nbdkit: on standard input and output, by socket activation,
//! for one command.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use blockmirror_tests::compare;
use blockmirror_tests::pair::seed;
use blockmirror_tests::process::Process;
use blockmirror_tests::raw::{Raw, command};
use blockmirror_tests::scratch::Scratch;
use blockmirror_tests::tool;
use blockmirror_tests::wait::{self, PATIENT, PROMPT};
use nix::sys::signal::Signal;

const SIZE: u64 = 16 << 20;

fn server() -> Result<String> {
    Ok(tool::binary("blockmirror-server")?.display().to_string())
}

/// Run a script of libnbd's Python module, whose client is `h`. The system's Python has the module, not any other one.
fn libnbd(script: &str) -> Result<()> {
    let script = format!("import nbd\nh = nbd.NBD()\n{script}");
    tool::check("/usr/bin/python3", &["-c", &script], PATIENT)?;
    Ok(())
}

/// A server on two pipes.
fn on_pipes(arguments: &[&str]) -> Result<(Child, Raw)> {
    let mut child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", &server()?, "serve"])
        .args(arguments)
        .arg("--stdio")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let raw = Raw::over_pipes(stdin.context("no stdin")?, stdout.context("no stdout")?);
    Ok((child, raw))
}

fn ends_well(mut child: Child) -> Result<()> {
    let status = wait::until("the server to end", PROMPT, || child.try_wait().ok().flatten())?;
    ensure!(status.success(), "{status}");
    Ok(())
}

#[test]
fn libnbd_starts_it_on_a_socket() -> Result<()> {
    let scratch = Scratch::new()?;
    let image = scratch.sparse_file("a.img", SIZE)?;
    let script = format!(
        "h.connect_command([{:?}, 'serve', {:?}, '--stdio'])\n\
         assert h.get_size() == {SIZE}\n\
         h.pwrite(b'x' * 512, 512)\n\
         assert h.pread(512, 512) == b'x' * 512\n\
         h.flush()\n\
         h.shutdown()",
        server()?,
        image.display().to_string()
    );
    libnbd(&script)?;
    ensure!(std::fs::read(&image)?[512..1024] == [b'x'; 512], "it is in the image");
    Ok(())
}

#[test]
fn two_pipes_do_as_well() -> Result<()> {
    let (child, mut raw) = on_pipes(&["memory:16MiB"])?;
    raw.greet(3)?;
    raw.go("")?;
    ensure!(raw.size == SIZE);
    let data: Vec<u8> = (0..4 << 20).map(|n: u32| (n >> 7) as u8).collect();
    ensure!(raw.write(0, 4096, &data)? == 0);
    ensure!(raw.read(4096, 4 << 20)? == data);
    // The last replies get there although nobody waits for them before the good-bye.
    let cookies = [
        raw.request(0, command::READ, 4096, 4 << 20)?,
        raw.request(0, command::FLUSH, 0, 0)?,
    ];
    raw.request(0, command::DISCONNECT, 0, 0)?;
    let mut answered = Vec::new();
    for _ in cookies {
        let (cookie, error) = raw.reply()?;
        ensure!(error == 0);
        if cookie == cookies[0] {
            ensure!(raw.receive(4 << 20)? == data);
        }
        answered.push(cookie);
    }
    answered.sort_unstable();
    ensure!(answered == cookies);
    ensure!(raw.is_closed());
    ends_well(child)
}

#[test]
fn it_ends_with_a_client_that_vanishes() -> Result<()> {
    let (child, mut raw) = on_pipes(&["memory:16MiB"])?;
    raw.greet(3)?;
    drop(raw);
    ends_well(child)?;
    let (child, mut raw) = on_pipes(&["memory:16MiB"])?;
    raw.greet(3)?;
    raw.go("memory")?;
    raw.request(0, command::READ, 0, 4 << 20)?;
    drop(raw);
    ends_well(child)
}

#[test]
fn stdio_without_a_client_is_refused() -> Result<()> {
    let scratch = Scratch::new()?;
    let socket = std::os::unix::net::UnixListener::bind(scratch.join("s"))?;
    let output = Command::new(server()?)
        .args(["serve", "memory:1MiB", "--stdio"])
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(socket)))
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && said.contains("listens"), "{said}");
    Ok(())
}

#[test]
fn nbdcopy_and_nbdinfo_start_it_by_socket_activation() -> Result<()> {
    let scratch = Scratch::new()?;
    let image = scratch.sparse_file("a.img", SIZE)?;
    seed(&image, 5 << 20)?;
    let (server, name) = (server()?, image.display().to_string());
    let copy = scratch.join("b.img").display().to_string();
    tool::check("nbdcopy", &["--", "[", &server, "serve", &name, "]", &copy], PATIENT)?;
    compare::assert_identical(&image, Path::new(&copy))?;
    let said = tool::check("nbdinfo", &["--size", "--", "[", &server, "serve", &name, "]"], PATIENT)?;
    ensure!(said.trim() == SIZE.to_string(), "nothing but the size: {said}");
    // A socket and another one: a mistake of whoever starts it.
    let more = ["--", "[", &server, "serve", &name, "--stdio", "]", "null:"];
    let outcome = tool::run("nbdcopy", &more, PATIENT)?;
    ensure!(
        !outcome.status.success() && outcome.stderr.contains("LISTEN_FDS"),
        "{}",
        outcome.text()
    );
    Ok(())
}

#[test]
fn a_configuration_takes_activated_sockets_in_place_of_its_own() -> Result<()> {
    let scratch = Scratch::new()?;
    let file = scratch.join("alpha.toml");
    let resource = "[[resource]]\nname = \"r\"\nmirror = false\n[[resource.volume]]\nexport = \"ram\"\n\
                    image = \"memory:\"\nsize = \"1MiB\"\n";
    let elsewhere = format!("listen = [\"unix:{}\"]\n", scratch.join("unused").display());
    for listen in ["", &elsewhere] {
        std::fs::write(&file, format!("name = \"alpha\"\n{listen}{resource}"))?;
        let script = format!(
            "h.set_export_name('ram')\n\
             h.connect_systemd_socket_activation([{:?}, '--config', {:?}])\n\
             assert h.get_size() == 1 << 20",
            server()?,
            file.display().to_string()
        );
        libnbd(&script)?;
        ensure!(!scratch.join("unused").exists());
    }
    Ok(())
}

#[test]
fn a_command_gets_the_uri_and_its_status_counts() -> Result<()> {
    let run = |command: &str, more: &[&str]| {
        let mut arguments = vec!["serve", "memory:16MiB", "--run", command];
        arguments.extend(more);
        tool::run(&server()?, &arguments, PATIENT)
    };
    let outcome = run("nbdinfo --size $uri; test -S $unixsocket && exit 7", &[])?;
    ensure!(outcome.status.code() == Some(7), "{}", outcome.text());
    ensure!(
        outcome.stdout.trim() == SIZE.to_string(),
        "nothing else: {}",
        outcome.stdout
    );
    let outcome = run("nbdinfo --size $uri", &["--tcp", "127.0.0.1:0"])?;
    ensure!(outcome.status.success() && outcome.stdout.trim() == SIZE.to_string());
    Ok(())
}

#[test]
fn a_line_says_where_it_is_ready() -> Result<()> {
    let scratch = Scratch::new()?;
    let image = scratch.join("new image");
    let arguments = [
        "serve",
        &image.display().to_string(),
        "--size=16MiB",
        "--export=named",
        "--tcp=127.0.0.1:0",
        "--unix",
        &scratch.join("a socket").display().to_string(),
        "--pid-file",
        &scratch.join("pid").display().to_string(),
    ]
    .map(str::to_owned);
    let server = tool::binary("blockmirror-server")?;
    let mut process = Process::start("serve", &server, &arguments, &scratch.join("log"))?;
    let line = wait::until("the ready line", PROMPT, || {
        let output = process.output();
        let line = output.lines().find_map(|line| line.strip_prefix("ready "));
        line.map(str::to_owned)
    })?;
    let uris: Vec<&str> = line.split(' ').collect();
    ensure!(uris.len() == 2, "{line}");
    for uri in uris {
        for uri in [uri.to_owned(), uri.replacen("/?", "/named?", 1)] {
            ensure!(tool::check("nbdinfo", &["--size", &uri], PATIENT)?.trim() == SIZE.to_string());
        }
    }
    let id = std::fs::read_to_string(scratch.join("pid"))?;
    ensure!(id.trim() == process.id().to_string());
    process.signal(Signal::SIGTERM)?;
    ensure!(process.wait_exit(PROMPT)?.success());
    ensure!(!scratch.join("pid").exists() && !scratch.join("a socket").exists());
    ensure!(image.metadata()?.len() == SIZE, "it was made");
    Ok(())
}

#[test]
fn clients_can_be_tried_against_a_server_that_can_less() -> Result<()> {
    let scratch = Scratch::new()?;
    let image = scratch.sparse_file("a.img", SIZE)?;
    seed(&image, 5 << 20)?;
    let name = image.display().to_string();
    let masked = |features: &str, command: &str| {
        let mask = format!("--mask={features}");
        tool::run(&server()?, &["serve", &name, &mask, "--run", command], PATIENT)
    };
    let info = masked("trim,multi-conn,block-size,structured-replies", "nbdinfo $uri")?.stdout;
    for line in [
        "can_trim: false",
        "can_multi_conn: false",
        "can_df: false",
        "can_flush: true",
        "simple packets",
    ] {
        ensure!(info.contains(line), "{line} is not in {info}");
    }
    ensure!(!info.contains("block_size"), "{info}");
    for features in [
        "go",
        "go,no-zeroes",
        "structured-replies,extended-headers,meta-contexts",
        "write-zeroes,trim,cache,fua,flush",
    ] {
        let outcome = masked(
            features,
            "nbdcopy $uri - | cmp - \"$IMAGE\"".replace("$IMAGE", &name).as_str(),
        )?;
        ensure!(outcome.status.success(), "{features}: {}", outcome.text());
    }
    let outcome = masked("flsh", "true")?;
    ensure!(
        !outcome.status.success() && outcome.stderr.contains("multi-conn"),
        "{}",
        outcome.text()
    );
    Ok(())
}
