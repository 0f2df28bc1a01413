//! Configurations that are wrong: each is refused with the line, the word that is wrong, and what to do.

use anyhow::{Context, Result, ensure};
use blockmirror_tests::node::check_config;
use blockmirror_tests::scratch::Scratch;

/// A good configuration; `{}` is the folder.
const GOOD: &str = r#"name = "alpha"
admin = "{}/alpha.admin"
listen = ["unix:{}/alpha.nbd"]

[[resource]]
name = "db"
[[resource.volume]]
export = "db"
image = "{}/db.img"
size = "16MiB"
[[resource.peer]]
name = "bravo"
uri = "nbd://127.0.0.1:10810/db"
mode = "sync"
on_disconnect = "continue"
"#;

/// What is replaced by what, the line that must be named (0: none), and a word that must be said.
const CASES: [(&str, &str, usize, &str); 22] = [
    ("name = \"alpha\"\n", "name = \"alpha\n", 1, "TOML"),
    ("admin =", "admim =", 2, "admim"),
    ("export = \"db\"", "expport = \"db\"", 8, "expport"),
    ("mode = \"sync\"", "mode = \"synch\"", 14, "synch"),
    ("\"continue\"", "\"panic\"", 15, "panic"),
    ("size = \"16MiB\"", "size = \"16MB!\"", 10, "16MB!"),
    ("size = \"16MiB\"", "size = -5", 10, "size"),
    ("size = \"16MiB\"", "size = \"1000\"", 10, "size"),
    ("listen = [\"unix:{}/alpha.nbd\"]", "listen = []", 3, "listen"),
    ("unix:{}/alpha.nbd", "udp:127.0.0.1:1", 3, "udp:127.0.0.1:1"),
    ("unix:{}/alpha.nbd", "tcp:127.0.0.1:99999", 3, "99999"),
    ("name = \"alpha\"\n", "", 0, "name"),
    ("image = \"{}/db.img\"\n", "", 0, "image"),
    ("image = \"{}/db.img\"", "image = \"db.img\"", 9, "absolute"),
    ("image = \"{}/db.img\"", "image = \"{}/nowhere/db.img\"", 9, "nowhere"),
    ("image = \"{}/db.img\"", "image = \"{}\"", 9, "regular file"),
    ("nbd://127.0.0.1:10810/db", "http://127.0.0.1/db", 13, "http"),
    ("nbd://127.0.0.1:10810/db", "nbd+unix:///db", 13, "socket"),
    ("name = \"bravo\"\n", "name = \"bravo\"\nnamed = 1\n", 13, "named"),
    (
        "mode = \"sync\"\n",
        "mode = \"async\"\non_disconnect = \"suspend\"\n",
        0,
        "on_disconnect",
    ),
    ("[[resource]]\n", "[[resource]]\nmirror = \"yes\"\n", 6, "mirror"),
    ("admin =", "data_threads = 0\nadmin =", 2, "data_threads"),
];

#[test]
fn wrong_configurations_are_explained() -> Result<()> {
    let scratch = Scratch::new()?;
    let path = scratch.join("alpha.toml");
    let folder = scratch.path().display().to_string();
    let check = |text: &str| -> Result<Result<String, String>> {
        std::fs::write(&path, text.replace("{}", &folder))?;
        check_config(&path)
    };
    let accepted = check(GOOD)?;
    ensure!(accepted.is_ok(), "the good configuration is refused: {accepted:?}");
    for (from, to, line, word) in CASES {
        let text = GOOD.replacen(from, to, 1);
        ensure!(text != GOOD, "the case {from:?} -> {to:?} changes nothing");
        let said = check(&text)?.err().with_context(|| format!("accepted: {to:?}"))?;
        ensure!(said.contains(word), "{to:?}: {word:?} is not in:\n{said}");
        let place = format!("alpha.toml:{line}:");
        ensure!(line == 0 || said.contains(&place), "{to:?}: no {place:?} in:\n{said}");
        ensure!(!said.contains("panicked"), "{to:?}:\n{said}");
    }
    Ok(())
}

#[test]
fn duplicates_are_named() -> Result<()> {
    let scratch = Scratch::new()?;
    let path = scratch.join("alpha.toml");
    let good = GOOD.replace("{}", &scratch.path().display().to_string());
    let volume =
        "\n[[resource]]\nname = \"RES\"\n[[resource.volume]]\nexport = \"EXP\"\nimage = \"IMG\"\nsize = \"1MiB\"\n";
    let other = scratch.join("other.img").display().to_string();
    let same = scratch.join("db.img").display().to_string();
    for (resource, export, image, word) in [
        ("db", "x", &other, "db"),
        ("x", "db", &other, "db"),
        ("x", "y", &same, "db.img"),
    ] {
        let more = volume
            .replace("RES", resource)
            .replace("EXP", export)
            .replace("IMG", image);
        std::fs::write(&path, format!("{good}{more}"))?;
        let said = check_config(&path)?.err().context("a duplicate was accepted")?;
        ensure!(said.contains(word) && said.contains("alpha.toml:"), "{said}");
    }
    Ok(())
}

#[test]
fn every_mistake_is_told_at_once() -> Result<()> {
    let scratch = Scratch::new()?;
    let path = scratch.join("alpha.toml");
    let text = GOOD.replace("{}", &scratch.path().display().to_string());
    std::fs::write(
        &path,
        text.replace("admin =", "admim =").replace("\"sync\"", "\"synch\""),
    )?;
    let said = check_config(&path)?.err().context("accepted")?;
    ensure!(said.contains("admim") && said.contains("synch"), "{said}");
    Ok(())
}

#[test]
fn a_configuration_that_is_not_there_is_named() -> Result<()> {
    let said = check_config("/nowhere/alpha.toml".as_ref())?
        .err()
        .context("accepted")?;
    ensure!(said.contains("/nowhere/alpha.toml"), "{said}");
    Ok(())
}
