//! Ways in: programs that start our server themselves, or that it starts.

use anyhow::{Result, ensure};

use super::programs::SIZE;
use crate::compare;
use crate::pair::seed;
use crate::scratch::Scratch;
use crate::tool;
use crate::wait::PATIENT;

/// One way, and what goes through it.
pub type Way = (&'static str, fn() -> Result<()>);

/// All of them.
pub const WAYS: [Way; 4] = [
    ("`nbdinfo [ blockmirror-server serve IMAGE ]`", nbdinfo_starts_us),
    (
        "`nbdcopy [ blockmirror-server serve IMAGE ] FILE`, and back",
        nbdcopy_starts_us,
    ),
    (
        "`blockmirror-server serve IMAGE --run 'nbdcopy $uri FILE'`",
        we_start_nbdcopy,
    ),
    (
        "`nbdkit nbd command=blockmirror-server arg=serve arg=IMAGE`",
        nbdkit_starts_us,
    ),
];

/// Our server, as a command.
pub fn server() -> Result<String> {
    Ok(tool::binary("blockmirror-server")?.display().to_string())
}

/// An image with random data, its name, and the name of a file to copy it to.
fn image() -> Result<(Scratch, String, String)> {
    let scratch = Scratch::new()?;
    let image = scratch.sparse_file("image", SIZE)?;
    seed(&image, 10 << 20)?;
    let (image, copy) = (image.display().to_string(), scratch.join("copy").display().to_string());
    Ok((scratch, image, copy))
}

fn nbdinfo_starts_us() -> Result<()> {
    let (_scratch, image, _) = image()?;
    let arguments = ["--size", "--", "[", &server()?, "serve", &image, "]"];
    let size = tool::check("nbdinfo", &arguments, PATIENT)?;
    ensure!(size.trim() == SIZE.to_string(), "{size}");
    Ok(())
}

fn nbdcopy_starts_us() -> Result<()> {
    let (scratch, image, copy) = image()?;
    let server = server()?;
    tool::check("nbdcopy", &["--", "[", &server, "serve", &image, "]", &copy], PATIENT)?;
    compare::assert_identical(image.as_ref(), copy.as_ref())?;
    let back = scratch.sparse_file("back", SIZE)?;
    let name = back.display().to_string();
    tool::check(
        "nbdcopy",
        &["--flush", "--", &copy, "[", &server, "serve", &name, "]"],
        PATIENT,
    )?;
    compare::assert_identical(image.as_ref(), &back)
}

fn we_start_nbdcopy() -> Result<()> {
    let (_scratch, image, copy) = image()?;
    let command = format!("nbdcopy \"$uri\" {copy}");
    tool::check(&server()?, &["serve", &image, "--run", &command], PATIENT)?;
    compare::assert_identical(image.as_ref(), copy.as_ref())
}

fn nbdkit_starts_us() -> Result<()> {
    let (_scratch, image, copy) = image()?;
    let command = format!("command={}", server()?);
    let arg = format!("arg={image}");
    let run = format!("nbdcopy \"$uri\" {copy}");
    let arguments = [
        "-U",
        "-",
        "nbd",
        &command,
        "arg=serve",
        &arg,
        "shared=true",
        "--run",
        &run,
    ];
    tool::check("nbdkit", &arguments, PATIENT)?;
    compare::assert_identical(image.as_ref(), copy.as_ref())
}
