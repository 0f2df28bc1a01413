//! Mistakes that need a look at more than one key.

use std::path::Path;

use super::super::*;
use super::{GOOD, HEAD, one_problem, problems, resource_with};

#[test]
fn missing_keys() {
    one_problem(
        &format!("listen = [\"tcp:[::1]:0\"]\n{GOOD}"),
        1,
        "",
        "has no `name`",
        "name = \"alpha\"",
    );
    one_problem(&format!("name = \"a\"\n{GOOD}"), 1, "", "has no `listen`", "listen = [");
    one_problem(
        &format!("name = \"a\"\nlisten = []\n{GOOD}"),
        2,
        "listen",
        "no client could connect",
        "listen = [",
    );
    one_problem(HEAD, 1, "", "has no `[[resource]]`", "[[resource.volume]]");
    let no_volume = format!("{HEAD}[[resource]]\nname = \"db\"\n");
    one_problem(&no_volume, 3, "[[resource]]", "has no `[[resource.volume]]`", "export");
    let no_image = format!("{HEAD}[[resource]]\nname = \"db\"\n[[resource.volume]]\nexport = \"db\"\n");
    one_problem(
        &no_image,
        5,
        "[[resource.volume]]",
        "a volume has no `image`",
        "image = ",
    );
    let no_size = no_image + "image = \"memory:\"\n";
    one_problem(&no_size, 5, "[[resource.volume]]", "a volume has no `size`", "size = ");
    one_problem(
        &resource_with("", "name = \"b\""),
        9,
        "[[resource.peer]]",
        "a peer has no `uri`",
        "nbd://",
    );
}

#[test]
fn names_are_unique() {
    let second = GOOD.replace("\"db\"", "\"db2\"").replace("/i/db", "/i/db2");
    let both = |second: &str| format!("{HEAD}{GOOD}{second}");
    assert_eq!(problems(&both(&second)), []);
    one_problem(
        &both(&second.replacen("db2", "db", 1)),
        9,
        "\"db\"",
        "resource name \"db\" is used twice; first in line 4",
        "own",
    );
    one_problem(
        &both(&second.replace("export = \"db2\"", "export = \"db\"")),
        11,
        "\"db\"",
        "export name",
        "own",
    );
    one_problem(
        &both(&second.replace("/i/db2", "/i/db.blockmirror")),
        12,
        "\"/i/db.blockmirror\"",
        "used twice",
        "destroy",
    );
    let image = problems(&both(&second.replace("/i/db2", "/i/db")));
    assert_eq!(image.len(), 2, "the image, and its metadata file: {image:?}");
    let peers = "name = \"b\"\nuri = \"nbd://h/x\"\n[[resource.peer]]\nname = \"b\"\nuri = \"nbd://h/y\"";
    one_problem(
        &resource_with("", peers),
        13,
        "\"b\"",
        "peer name \"b\" is used twice",
        "own",
    );
    let same_leg = peers.replace("/y", "/x").replacen("\"b\"", "\"c\"", 1);
    one_problem(
        &resource_with("", &same_leg),
        14,
        "\"nbd://h/x\"",
        "remote export",
        "destroy",
    );
    one_problem(
        &format!("name = \"a b\"\nlisten = [\"tcp:[::1]:0\"]\n{GOOD}"),
        1,
        "\"a b\"",
        "is not a name",
        "letters",
    );
}

#[test]
fn too_many_peers() {
    let peer = |n: usize| format!("name = \"p{n}\"\nuri = \"nbd://h{n}/x\"\n");
    let peers: Vec<String> = (0..9).map(peer).collect();
    let text = resource_with("", &peers.join("[[resource.peer]]\n"));
    one_problem(&text, 33, "[[resource.peer]]", "at most 8 peers", "remove");
}

#[test]
fn all_problems_come_at_once_in_the_order_of_the_text() {
    let text = "nmae = \"a\"\nlisten = [\"tcp:h\"]\n[[resource]]\nname = \"db\"\n[[resource.volume]]\nexport = \"db\"\nimage = \"i\"\nsize = \"1G\"\n";
    let found = problems(text);
    let lines: Vec<usize> = found.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [1, 1, 2, 7, 8], "{found:#?}");
    let told = Config::parse(text, "test.toml").unwrap_err().to_string();
    assert!(told.contains("test.toml:1:1: unknown key `nmae`"), "{told}");
    assert!(told.contains("7 | image = \"i\"\n    |         ^^^"), "{told}");
    assert!(told.ends_with("5 problems in the configuration"), "{told}");
}

#[test]
fn text_that_is_not_toml() {
    let found = problems("name = \"a\nlisten = [\n");
    assert!(!found.is_empty());
    assert!(
        found.iter().all(|problem| problem.message.contains("not TOML")),
        "{found:#?}"
    );
    assert_eq!(found[0].line, 1);
    assert!(!problems("name = \"a\"\nname = \"b\"\n").is_empty(), "a key twice");
    assert!(matches!(
        Config::load(Path::new("/nonexistent.toml")),
        Err(ConfigError::Unreadable { .. })
    ));
}
