//! `blockmirror info`, `map` and `copy`: what servers say of their exports, shown and used.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../../tests/common/mod.rs"]
mod common;
mod stage;

use common::{EXPORT, Shared, Toy, pattern, uri};
use nbd_proto::TransmissionFlags;
use nbd_proto::constants::command;
use serde_json::{Value, json};
use stage::scene::Scene;

const ALLOCATION: &str = "base:allocation";
const KIB: u64 = 1 << 10;

/// A toy at a socket of this name, which holds the pattern; its URI.
fn serve(scene: &Scene, name: &str, toy: Toy) -> (String, Shared) {
    let path = scene.directory.path().join(name);
    let data = pattern(toy.size as usize);
    (uri(&path).to_string(), toy.serve(&path, data))
}

fn small() -> Toy {
    Toy {
        size: 5 * KIB + 100,
        flags: TransmissionFlags::HAS_FLAGS | TransmissionFlags::READ_ONLY | TransmissionFlags::SEND_FLUSH,
        contexts: &[ALLOCATION, "x-toy:other"],
        ..Toy::default()
    }
}

#[tokio::test]
async fn an_export_is_shown() {
    let scene = Scene::without_daemon();
    let (uri, _) = serve(&scene, "s", small());
    let people = scene.run(&["info", &uri]).await;
    assert_eq!((people.code, people.stderr.as_str()), (Some(0), ""));
    let expected = format!(
        "toy
  uri       {uri}
  size      5.1 KiB (5220 bytes), read-only
  about     a toy
  blocks    1 B at least, 4 KiB preferred, 4 KiB at most in one request
  offers    flush, df
  replies   extended, with 64-bit lengths
  contexts  base:allocation, x-toy:other
"
    );
    assert_eq!(people.stdout, expected);
    let programs = scene.run(&["--json", "info", &uri]).await;
    let report: Value = serde_json::from_str(&programs.stdout).unwrap();
    let expected = json!({ "exports": [{
        "name": EXPORT,
        "uri": uri,
        "description": "a toy",
        "size_bytes": 5220,
        "read_only": true,
        "block_sizes": { "minimum_bytes": 1, "preferred_bytes": 4096, "maximum_payload_bytes": 4096 },
        "offers": ["flush", "df"],
        "replies": "extended",
        "contexts": [ALLOCATION, "x-toy:other"],
    }] });
    assert_eq!(report, expected);
}

#[tokio::test]
async fn all_exports_are_shown_and_what_is_wrong_with_one() {
    let scene = Scene::without_daemon();
    let (uri, _) = serve(&scene, "s", small());
    let server = uri.replace("/toy?", "?");
    let people = scene.run(&["info", &server]).await;
    assert_eq!((people.code, people.stderr.as_str()), (Some(0), ""));
    let second = people.stdout.split("\n\n").nth(1).unwrap();
    assert!(second.starts_with("other  cannot open export \"other\""), "{second}");
    let programs = scene.run(&["--json", "info", &server]).await;
    let report: Value = serde_json::from_str(&programs.stdout).unwrap();
    assert_eq!(report["exports"][0]["size_bytes"], 5220);
    assert!(report["exports"][1]["error"].is_string());
    // Asked for by its name, it has to be there.
    let missing = scene.run(&["info", &uri.replace("/toy?", "/other?")]).await;
    assert_eq!(missing.code, Some(1), "{}", missing.stderr);
    let nowhere = scene.run(&["info", &uri.replace("/s", "/nowhere")]).await;
    assert_eq!(nowhere.code, Some(3), "{}", nowhere.stderr);
}

#[tokio::test]
async fn a_map_is_shown_as_nbdinfo_does() {
    let scene = Scene::without_daemon();
    let (uri, _) = serve(&scene, "s", small());
    let people = scene.run(&["map", &uri]).await;
    assert_eq!((people.code, people.stderr.as_str()), (Some(0), ""));
    let expected = [
        "           0         1024    0  data",
        "        1024         1024    3  hole,zero",
        "        2048         1024    0  data",
        "        3072         1024    3  hole,zero",
        "        4096         1024    0  data",
        "        5120          100    3  hole,zero",
    ];
    assert_eq!(people.stdout.lines().collect::<Vec<_>>(), expected);
    let programs = scene.run(&["--json", "map", &uri, "--context", "x-toy:other"]).await;
    let report: Value = serde_json::from_str(&programs.stdout).unwrap();
    assert_eq!(report.as_array().unwrap().len(), 6);
    let last = json!({ "offset": 5120, "length": 100, "type": 3, "description": "" });
    assert_eq!(report[5], last);
}

#[tokio::test]
async fn a_context_that_is_not_there_is_told_with_those_that_are() {
    let scene = Scene::without_daemon();
    let (uri, _) = serve(&scene, "s", small());
    let outcome = scene.run(&["map", &uri, "--context", "x-toy:none"]).await;
    assert_eq!(outcome.code, Some(1));
    let expected = "\"x-toy:none\" for this export; it has base:allocation, x-toy:other\n";
    assert!(outcome.stderr.ends_with(expected), "{}", outcome.stderr);
    let (uri, _) = serve(&scene, "t", Toy::default());
    let outcome = scene.run(&["map", &uri]).await;
    assert!(outcome.stderr.ends_with("it has none\n"), "{}", outcome.stderr);
    let outcome = scene.run(&["map", &uri, "--context", "allocation"]).await;
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("a namespace, a colon"), "{}", outcome.stderr);
}

/// The source's map is believed: what it calls zero is zeroed and never read, though the toy would tell otherwise.
#[tokio::test]
async fn a_copy_reads_only_what_is_data() {
    let grain = 256 * KIB;
    let size = 5 * grain + 100;
    for can_zero in [true, false] {
        let scene = Scene::without_daemon();
        let source = Toy {
            size,
            grain,
            contexts: &[ALLOCATION],
            ..Toy::default()
        };
        let mut flags = Toy::default().flags;
        flags.set(TransmissionFlags::SEND_WRITE_ZEROES, can_zero);
        let target = Toy {
            size,
            flags,
            ..Toy::default()
        };
        let ((from, read), (to, written)) = (serve(&scene, "from", source), serve(&scene, "to", target));
        let outcome = scene.run(&["--json", "copy", &from, &to]).await;
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
        // The last grain begins where zeroes may, and ends with the export.
        let expected = json!({ "done": true, "size_bytes": size, "zeroed_bytes": 2 * grain + 100 });
        assert_eq!(report, expected);
        let mut expected = pattern(size as usize);
        for hole in [1, 3, 5] {
            let start = (hole * grain) as usize;
            let end = size.min((hole + 1) * grain) as usize;
            expected[start..end].fill(0);
        }
        let (read, written) = (read.lock().unwrap(), written.lock().unwrap());
        assert!(written.data == expected, "what is zero and what is data");
        let reads = read.requests.iter().filter(|request| request.command == command::READ);
        assert_eq!(reads.map(|request| request.length).sum::<u64>(), 3 * grain);
        let zeroed = written
            .requests
            .iter()
            .filter(|request| request.command == command::WRITE_ZEROES);
        assert_eq!(zeroed.count(), if can_zero { 3 } else { 0 });
    }
}
