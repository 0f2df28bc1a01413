//! `scripts/kernel-test`: scenarios in guests of QEMU, whose kernels can what this machine's need not: nbd, md, DRBD.
//!
//! - [`guest`]: a kernel with a root of Debian's packages and our programs; told what to do through [`port`].
//! - [`switch`]: the link between guests, which can be cut, slow and far.
//! - [`stage`]: what one scenario has of these. [`daemon`]: our daemon in guests. [`device`]: devices of the
//!   kernel. [`raid`]: an array. [`page`]: lines of `docs`.
//! - [`scenarios`]: small files, a behaviour each.

mod daemon;
mod device;
mod guest;
mod page;
mod port;
mod raid;
mod scenarios;
mod stage;
mod switch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::guest::Materials;
use crate::scenarios::{ALL, Scenario};
use crate::stage::Stage;

const USAGE: &str = "usage: kernel --materials KERNELS ROOT [--list] [--smoke] [--only NAME]... [--keep FOLDER]";

struct Options {
    materials: Materials,
    list: bool,
    smoke: bool,
    only: Vec<String>,
    keep: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let options = options()?;
    let chosen = chosen(&options)?;
    if options.list {
        for scenario in chosen {
            println!(
                "{:24} {:6} {}",
                scenario.name,
                if scenario.smoke { "smoke" } else { "" },
                scenario.about
            );
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut failed = Vec::new();
    for scenario in &chosen {
        let started = Instant::now();
        let outcome = play(scenario, &options);
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!(
            "{word:7}{:24} {:>4} s  {}",
            scenario.name,
            started.elapsed().as_secs(),
            scenario.about
        );
        match outcome {
            Ok(notes) => notes.iter().for_each(|note| println!("         {note}")),
            Err(error) => {
                error.chain().for_each(|cause| println!("{cause}"));
                failed.push(scenario.name);
            }
        }
    }
    println!(
        "\n{} scenarios, {} failed: {}",
        chosen.len(),
        failed.len(),
        failed.join(" ")
    );
    Ok(if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn play(scenario: &Scenario, options: &Options) -> Result<Vec<String>> {
    let folder = options.keep.as_ref().map(|folder| folder.join(scenario.name));
    let stage = Stage::new(&options.materials, folder)?;
    let ended = (scenario.play)(&stage).and_then(|()| stage.conclude());
    match ended {
        Ok(()) => Ok(stage.notes()),
        Err(error) => Err(error.context(format!("{}\n{}", stage.notes().join("\n"), stage.wreckage()))),
    }
}

fn chosen(options: &Options) -> Result<Vec<&'static Scenario>> {
    for name in &options.only {
        if !ALL.iter().any(|scenario| scenario.name == name) {
            bail!("no scenario is called {name}; --list shows them");
        }
    }
    let wanted = |scenario: &&Scenario| {
        if options.only.is_empty() {
            scenario.smoke || !options.smoke
        } else {
            options.only.iter().any(|name| name == scenario.name)
        }
    };
    Ok(ALL.iter().filter(wanted).collect())
}

fn options() -> Result<Options> {
    let mut words = std::env::args().skip(1);
    let (mut materials, mut list, mut smoke, mut only, mut keep) = (None, false, false, Vec::new(), None);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--materials" => {
                materials = Some(Materials {
                    kernels: words.next().context(USAGE)?.into(),
                    root: words.next().context(USAGE)?.into(),
                });
            }
            "--list" => list = true,
            "--smoke" => smoke = true,
            "--only" => only.push(words.next().context(USAGE)?),
            "--keep" => keep = Some(words.next().context(USAGE)?.into()),
            _ => bail!("{word}: {USAGE}"),
        }
    }
    Ok(Options {
        materials: materials.context(USAGE)?,
        list,
        smoke,
        only,
        keep,
    })
}
