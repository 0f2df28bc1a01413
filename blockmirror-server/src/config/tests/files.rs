//! What is found when the files a configuration names are looked at.

use std::path::Path;

use super::super::*;

/// Writes a configuration whose image is `image` into a directory of its own and loads it.
fn load(dir: &Path, volume: &str) -> Result<Config, ConfigError> {
    let path = dir.join("c.toml");
    let head = format!("name = \"a\"\nlisten = [\"unix:{}/s\"]\n", dir.display());
    let resource = "[[resource]]\nname = \"db\"\n[[resource.volume]]\nexport = \"db\"\n";
    std::fs::write(&path, format!("{head}{resource}{volume}\n")).unwrap();
    Config::load(&path)
}

#[track_caller]
fn load_fails(dir: &Path, volume: &str, message: &str) {
    let error = load(dir, volume).unwrap_err().to_string();
    assert!(error.contains(message), "{error}");
}

#[test]
fn files_are_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let image = dir.join("i");
    let named = format!("image = \"{}\"", image.display());
    load_fails(dir, &named, "does not exist");
    load_fails(
        dir,
        &format!("{named}\nsize = \"1MiB\"\nread_only = true"),
        "does not exist",
    );
    assert!(load(dir, &format!("{named}\nsize = \"1MiB\"")).is_ok());
    load_fails(
        dir,
        &format!("image = \"{}/no/i\"\nsize = \"1MiB\"", dir.display()),
        "mkdir -p",
    );
    load_fails(
        dir,
        &format!("image = \"{}\"", dir.display()),
        "neither a regular file nor a block device",
    );
    std::fs::write(&image, "").unwrap();
    load_fails(dir, &named, "is empty");
    std::fs::write(&image, [0; 100]).unwrap();
    load_fails(dir, &named, "truncate --size=512");
    std::fs::write(&image, [0; 8192]).unwrap();
    assert!(load(dir, &named).is_ok());
    assert!(load(dir, &format!("{named}\nsize = 8192")).is_ok());
    load_fails(
        dir,
        &format!("{named}\nsize = 4096"),
        "has 8192 bytes (8 KiB), `size` says 4096 (4 KiB)",
    );
    load_fails(
        dir,
        &format!("{named}\nmetadata = \"{}\"", dir.display()),
        "is not a regular file",
    );
    load_fails(
        dir,
        &format!("{named}\nmetadata = \"{}/no/m\"", dir.display()),
        "directory of the metadata file",
    );
    std::fs::write(dir.join("s"), "").unwrap();
    load_fails(dir, &named, "is not a socket");
}
