#![allow(clippy::unwrap_used)]
use super::*;
use crate::md::scene::Scene;

#[test]
fn records_come_back_and_no_other_array_is_ours() {
    let scene = Scene::new();
    let records = Records::at(&scene.path("raid"));
    let record = scene.record();
    let unknown = records.read("data").unwrap_err().to_string();
    assert!(unknown.contains("create or adopt"), "{unknown}");
    assert!(matches!(
        records.replace("data", &record),
        Err(RecordError::Unknown { .. })
    ));
    records.add("data", &record).unwrap();
    assert_eq!(records.read("data").unwrap(), record);
    assert!(matches!(records.add("data", &record), Err(RecordError::Taken { .. })));
    let unknown = records.read("date").unwrap_err().to_string();
    assert!(unknown.contains("there are data"), "{unknown}");
    let refused = records.add("more", &record).unwrap_err().to_string();
    assert!(refused.contains("under care as data already"), "{refused}");
    let other = Record {
        is_removed: true,
        is_local_behind: true,
        tls: Some(Certificates::default()),
        ..record
    };
    records.replace("data", &other).unwrap();
    assert_eq!(records.read("data").unwrap(), other);
    fs::write(scene.path("raid/odd.toml"), "array = 3").unwrap();
    assert!(matches!(records.read("odd"), Err(RecordError::File { .. })));
    records.remove("data").unwrap();
    assert_eq!(records.names(), ["odd"]);
}

#[test]
fn that_the_local_leg_is_behind_is_noted_where_nobody_is_in_the_way() {
    let scene = Scene::new();
    let records = Records::at(&scene.path("raid"));
    let record = scene.record();
    records.add("data", &record).unwrap();
    assert!(!records.note_behind("data", &record, false).unwrap());
    let held = records.lock("data").unwrap();
    assert!(!records.note_behind("data", &record, true).unwrap());
    drop(held);
    assert!(records.note_behind("data", &record, true).unwrap());
    let noted = records.read("data").unwrap();
    assert!(noted.is_local_behind);
    // By one who has read it before.
    assert!(!records.note_behind("data", &record, true).unwrap());
    assert!(records.note_behind("data", &noted, false).unwrap());
    assert_eq!(records.read("data").unwrap(), record);
}

#[test]
fn names_are_those_of_files() {
    let records = Records::at(Path::new("/nonexistent"));
    for name in ["", "../x", "a/b", "-x", "a b"] {
        assert!(matches!(records.read(name), Err(RecordError::Name(_))), "{name}");
    }
    assert!(records.names().is_empty());
}

#[test]
fn one_at_a_time_does_something_to_an_array() {
    let scene = Scene::new();
    let records = Records::at(&scene.path("raid"));
    let held = records.lock("data").unwrap();
    assert!(records.try_lock("data").unwrap().is_none());
    assert!(records.try_lock("other").unwrap().is_some());
    assert!(matches!(records.claim("data"), Err(RecordError::Busy(_))));
    drop(held);
    assert!(records.try_lock("data").unwrap().is_some());
    assert!(records.names().is_empty());
    // Who waits while it is forgotten has the lock that those after him look for.
    let held = records.claim("data").unwrap();
    records.add("data", &scene.record()).unwrap();
    assert!(matches!(records.claim("data"), Err(RecordError::Taken { .. })));
    records.remove("data").unwrap();
    assert!(records.try_lock("data").unwrap().is_none());
    drop(held);
    fs::write(scene.path("file"), "").unwrap();
    let nowhere = Records::at(&scene.path("file/raid"));
    assert!(matches!(nowhere.claim("data"), Err(RecordError::File { .. })));
}
