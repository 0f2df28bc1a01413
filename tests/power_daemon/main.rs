//! The daemon on disks that lose what was not made durable when it is killed; see [`blockmirror_tests::power`].

mod layer;
mod platter;
mod ranges;

use std::path::Path;

use anyhow::{Context, Result, bail};
use blockmirror_server::config::Config;
use blockmirror_server::control::{self, Options};
use blockmirror_server::log;

use crate::layer::PowerLayer;

const USAGE: &str = "usage: power-daemon --config FILE [--lying-disks]";

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some("--config"), Some(file)) = (arguments.next().as_deref(), arguments.next()) else {
        bail!(USAGE)
    };
    let wrap = match arguments.next().as_deref() {
        None => PowerLayer::honest,
        Some("--lying-disks") => PowerLayer::lying,
        Some(other) => bail!("unknown argument {other:?}; {USAGE}"),
    };
    let config = Config::load(Path::new(&file)).context("the configuration")?;
    log::start(log::Format::Text, "info")?;
    let options = Options {
        wrap: Some(wrap),
        ..Options::default()
    };
    // Nobody stops it in order.
    let (_trigger, shutdown) = control::shutdown();
    Ok(control::run(config, options, shutdown).await?)
}
