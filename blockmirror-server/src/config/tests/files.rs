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
    std::fs::write(dir.join("i.blockmirror"), "").unwrap();
    assert!(load(dir, &format!("{named}\nsize = 4096")).is_ok(), "it has grown");
    assert!(load(dir, &format!("{named}\nsize = 16384")).is_ok(), "it has shrunk");
    std::fs::remove_file(dir.join("i.blockmirror")).unwrap();
    load_fails(dir, &format!("{named}\nsize = 16384"), "has 8192 bytes (8 KiB)");
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
    let path = dir.join("c.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let with_branches = text.replace(
        "name = \"db\"",
        &format!("name = \"db\"\nbranch_dir = \"{}/b\"", dir.display()),
    );
    std::fs::write(&path, with_branches.replacen("metadata", "#", 1)).unwrap();
    let error = Config::load(&path).unwrap_err().to_string();
    assert!(error.contains("the directory for branches"), "{error}");
    std::fs::create_dir(dir.join("b")).unwrap();
    assert!(Config::load(&path).is_ok());
    std::fs::write(dir.join("s"), "").unwrap();
    load_fails(dir, &named, "is not a socket");
}

#[test]
fn an_image_that_was_mirrored_is_not_changed_behind_the_back_of_its_metadata() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("i");
    let volume = format!("image = \"{}\"", image.display());
    let plain = |volume: &str| {
        load(dir.path(), volume).unwrap();
        let path = dir.path().join("c.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("name = \"db\"", "name = \"db\"\nmirror = false")).unwrap();
        Config::load(&path)
    };
    std::fs::write(&image, [0; 8192]).unwrap();
    assert!(plain(&volume).is_ok());
    std::fs::write(dir.path().join("i.blockmirror"), "").unwrap();
    let error = plain(&volume).unwrap_err().to_string();
    assert!(
        error.contains("has been mirrored") && error.contains("copied in full"),
        "{error}"
    );
    assert!(
        plain(&format!("{volume}\nread_only = true")).is_ok(),
        "nothing is changed"
    );
    assert!(load(dir.path(), &volume).is_ok(), "the mirror knows");
}
