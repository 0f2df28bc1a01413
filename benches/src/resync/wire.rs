//! What the link between two namespaces can do: one TCP transfer, by two processes of this binary.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use blockmirror_tests::namespaces::Namespaces;
use blockmirror_tests::process::Process;
use blockmirror_tests::scratch::Scratch;
use blockmirror_tests::tool;
use blockmirror_tests::wait::PROMPT;

/// Argument of the process that receives: an address.
pub const SINK: &str = "--sink";
/// Argument of the process that sends: an address, then how many bytes.
pub const SOURCE: &str = "--source";
const PORT: u16 = 10_900;
const STEP: usize = 256 << 10;
const PATIENCE: Duration = Duration::from_secs(120);

/// Bytes per second from side 0 to side 1.
pub fn speed(link: &Namespaces, bytes: u64) -> Result<f64> {
    let scratch = Scratch::new()?;
    let own = std::env::current_exe()?.display().to_string();
    let address = format!("{}:{PORT}", link.address(1));
    let sink = ["netns", "exec", link.name(1), &own, SINK, &address].map(str::to_owned);
    let log = scratch.join("sink.log");
    let mut sink = Process::start("sink", Path::new("ip"), &sink, &log)?;
    sink.wait_until("it listens", PROMPT, |sink| sink.output().contains("listening"))?;
    let source = [
        "netns",
        "exec",
        link.name(0),
        &own,
        SOURCE,
        &address,
        &bytes.to_string(),
    ];
    let seconds: f64 = tool::check("ip", &source, PATIENCE)?.trim().parse()?;
    sink.wait_exit(PROMPT)?;
    Ok(bytes as f64 / seconds)
}

/// Receive until the end, then say so.
pub fn sink(address: &str) -> Result<()> {
    let listener = TcpListener::bind(address).context(address.to_owned())?;
    println!("listening");
    let (mut stream, _) = listener.accept()?;
    let mut buffer = vec![0; STEP];
    while stream.read(&mut buffer)? > 0 {}
    stream.write_all(b".")?;
    Ok(())
}

/// Send so many bytes and print the seconds until all have arrived.
pub fn source(address: &str, bytes: u64) -> Result<()> {
    let mut stream = TcpStream::connect(address).context(address.to_owned())?;
    let (started, buffer) = (Instant::now(), vec![0x5a; STEP]);
    let mut left = bytes;
    while left > 0 {
        let step = left.min(STEP as u64);
        stream.write_all(&buffer[..step as usize])?;
        left -= step;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.read_exact(&mut [0])?;
    println!("{}", started.elapsed().as_secs_f64());
    Ok(())
}
