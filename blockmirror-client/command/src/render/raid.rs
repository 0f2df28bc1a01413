//! Arrays for people: one short table each.

use raid1_glue::md::heal::DeviceState;
use raid1_glue::md::report::{Action, LegReport};
use raid1_glue::md::{Report, Standing};

use super::{GAP, line};
use crate::human::{bytes, clean, duration, percent, rate};
use crate::terminal::{Style, Tone};

const HEADINGS: [&str; 4] = ["LEG", "DEVICE", "STATE", "NOTES"];

/// All of them, ending in a newline.
pub fn arrays(reports: &[Report], style: Style) -> String {
    if reports.is_empty() {
        return "no array is under care; for a new one: `blockmirror raid create data --local /dev/vdb nbd://bravo/data /dev/nbd0`\n".to_owned();
    }
    let mut text = String::new();
    for (index, report) in reports.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        push_array(&mut text, report, style);
    }
    text
}

fn push_array(text: &mut String, report: &Report, style: Style) {
    let name = style.paint(Tone::Strong, &clean(&report.name));
    let head = match (&report.problem, report.degraded) {
        (Some(problem), _) => style.paint(Tone::Bad, &clean(problem)),
        (None, 0) => style.paint(Tone::Good, &clean(&report.state)),
        (None, _) => style.paint(Tone::Warn, &format!("{}, degraded", clean(&report.state))),
    };
    line(text, &[&name, &clean(&report.array), &bytes(report.size_bytes), &head]);
    if let Some(action) = &report.action {
        line(text, &["", &style.paint(Tone::Warn, &under_way(action))]);
    }
    push_legs(text, report, style);
    let mut facts = Vec::new();
    if let Some(bitmap) = &report.bitmap {
        let dirty = format!(
            "{} changed at most, {} per bit",
            bytes(bitmap.dirty_bytes),
            bytes(bitmap.chunk_bytes)
        );
        facts.push(format!("bitmap: {dirty}"));
    }
    if let Some(behind) = &report.write_behind {
        facts.push(format!(
            "write-behind: {} writes, {} at most so far",
            behind.limit, behind.peak
        ));
    }
    if !facts.is_empty() {
        line(text, &["", &facts.join("; ")]);
    }
    if let Some(todo) = todo(report) {
        line(text, &["", &style.paint(Tone::Bad, &todo)]);
    }
}

/// One line about what md copies or compares.
fn under_way(action: &Action) -> String {
    let mut text = format!(
        "{} {}: {} of {}, {}",
        action.name,
        percent(action.done_bytes, action.total_bytes),
        bytes(action.done_bytes),
        bytes(action.total_bytes),
        rate(action.bytes_per_second as f64)
    );
    if let Some(seconds) = action.eta_seconds {
        text.push_str(&format!(", {} left", duration(seconds as f64)));
    }
    text
}

fn push_legs(text: &mut String, report: &Report, style: Style) {
    let rows = [
        ("local", &report.local, of_member(&report.local)),
        (
            "blockmirror",
            &report.leg,
            [of_member(&report.leg), of_device(report)].concat(),
        ),
    ];
    let cells = rows.map(|(name, leg, notes)| {
        [
            name.to_owned(),
            clean(&leg.device).into_owned(),
            state(leg).to_owned(),
            notes.join(", "),
        ]
    });
    let headings = HEADINGS.map(str::to_owned);
    let width = |column: usize| {
        let all = std::iter::once(&headings).chain(&cells);
        all.map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    let widths = [width(0), width(1), width(2)];
    let row = |cells: &[String; 4], tone: &dyn Fn(usize) -> Option<Tone>| {
        let mut parts = Vec::new();
        for (column, cell) in cells.iter().enumerate() {
            let padding = widths.get(column).map_or(0, |width| width - cell.chars().count());
            let painted = tone(column).map_or_else(|| cell.clone(), |tone| style.paint(tone, cell));
            parts.push(painted + &" ".repeat(padding));
        }
        parts.join(GAP)
    };
    line(text, &["", &row(&headings, &|_| Some(Tone::Dim))]);
    for (cells, leg) in cells.iter().zip([&report.local, &report.leg]) {
        line(text, &["", &row(cells, &|column| (column == 2).then(|| tone(leg)))]);
    }
}

const fn state(leg: &LegReport) -> &'static str {
    match leg.standing {
        Some(Standing::InSync) => "in sync",
        Some(Standing::Syncing) => "syncing",
        Some(Standing::Faulty) => "failed",
        None => "absent",
    }
}

const fn tone(leg: &LegReport) -> Tone {
    match leg.standing {
        Some(Standing::InSync) => Tone::Good,
        Some(Standing::Syncing) => Tone::Warn,
        Some(Standing::Faulty) | None => Tone::Bad,
    }
}

fn of_member(leg: &LegReport) -> Vec<String> {
    let mut notes = Vec::new();
    if leg.errors > 0 {
        notes.push(format!("{} errors mended", leg.errors));
    }
    if leg.bad_blocks > 0 {
        notes.push(format!("{} bad stretches", leg.bad_blocks));
    }
    notes
}

fn of_device(report: &Report) -> Vec<String> {
    let mut notes = vec![clean(&report.uris).into_owned()];
    notes.push(match (report.device, report.agent) {
        (DeviceState::Absent, _) => "not attached".to_owned(),
        (DeviceState::Foreign, _) => "attached to something else".to_owned(),
        (_, Some(agent)) => format!("kept by process {agent}"),
        (_, None) => "nobody keeps it attached".to_owned(),
    });
    if report.writes_in_flight > 0 {
        notes.push(format!("{} writes under way", report.writes_in_flight));
    }
    notes
}

/// What an operator has to do.
fn todo(report: &Report) -> Option<String> {
    let name = clean(&report.name);
    if report.is_local_behind {
        return Some(format!(
            "only the leg has everything: the local one has old data, and `blockmirror raid start {name}` refuses to start with it"
        ));
    }
    if !report.is_running {
        return None;
    }
    match report.leg.standing {
        Some(Standing::Faulty) | None if report.is_removed => Some(format!(
            "the leg has been taken out: `blockmirror raid add {name}` brings it back"
        )),
        Some(Standing::Faulty) | None => Some(format!(
            "without its leg: `blockmirror raid heal {name}`, unless a watch is about it"
        )),
        Some(Standing::InSync | Standing::Syncing) => None,
    }
}

#[cfg(test)]
mod tests {
    use raid1_glue::md::report::{BitmapReport, WriteBehind};

    use super::*;

    fn leg(device: &str, standing: Option<Standing>) -> LegReport {
        LegReport {
            device: device.to_owned(),
            standing,
            errors: 0,
            bad_blocks: 0,
        }
    }

    fn good() -> Report {
        Report {
            name: "data".to_owned(),
            array: "/dev/md0".to_owned(),
            uuid: "1:2:3:4".to_owned(),
            is_running: true,
            state: "clean".to_owned(),
            size_bytes: 1 << 30,
            degraded: 0,
            action: None,
            local: leg("/dev/vda", Some(Standing::InSync)),
            leg: leg("/dev/nbd0", Some(Standing::InSync)),
            uris: "nbd://bravo/data".to_owned(),
            is_removed: false,
            is_local_behind: false,
            device: DeviceState::Alive,
            agent: Some(77),
            writes_in_flight: 0,
            write_behind: None,
            bitmap: Some(BitmapReport {
                chunk_bytes: 4 << 20,
                dirty_bytes: 0,
            }),
            problem: None,
        }
    }

    #[test]
    fn arrays_that_are_well_and_arrays_that_are_not() {
        let copied = Report {
            name: "more".to_owned(),
            degraded: 1,
            action: Some(Action {
                name: "recover".to_owned(),
                done_bytes: 16 << 20,
                total_bytes: 64 << 20,
                bytes_per_second: 1 << 20,
                eta_seconds: Some(48),
            }),
            leg: LegReport {
                bad_blocks: 2,
                ..leg("/dev/nbd1", Some(Standing::Syncing))
            },
            agent: None,
            writes_in_flight: 4,
            write_behind: Some(WriteBehind { limit: 256, peak: 17 }),
            ..good()
        };
        assert_eq!(
            arrays(&[good(), copied], Style::PLAIN),
            "data  /dev/md0  1 GiB  clean
  LEG          DEVICE     STATE    NOTES
  local        /dev/vda   in sync
  blockmirror  /dev/nbd0  in sync  nbd://bravo/data, kept by process 77
  bitmap: 0 B changed at most, 4 MiB per bit

more  /dev/md0  1 GiB  clean, degraded
  recover 25 %: 16 MiB of 64 MiB, 1 MiB/s, 48 s left
  LEG          DEVICE     STATE    NOTES
  local        /dev/vda   in sync
  blockmirror  /dev/nbd1  syncing  2 bad stretches, nbd://bravo/data, nobody keeps it attached, 4 writes under way
  bitmap: 0 B changed at most, 4 MiB per bit; write-behind: 256 writes, 17 at most so far
"
        );
    }

    #[test]
    fn what_is_to_be_done_is_said() {
        let without = |is_removed| Report {
            leg: leg("/dev/nbd0", None),
            degraded: 1,
            is_removed,
            ..good()
        };
        let failed = arrays(&[without(false)], Style::PLAIN);
        assert!(failed.contains("blockmirror raid heal data"), "{failed}");
        let removed = arrays(&[without(true)], Style::PLAIN);
        assert!(removed.contains("blockmirror raid add data"), "{removed}");
        let gone = Report {
            is_running: false,
            problem: Some("/dev/md0 does not run".to_owned()),
            ..good()
        };
        let behind = Report {
            is_local_behind: true,
            ..gone.clone()
        };
        let gone = arrays(&[gone], Style::PLAIN);
        assert!(
            gone.contains("/dev/md0 does not run") && !gone.contains("old data"),
            "{gone}"
        );
        let behind = arrays(&[behind], Style::PLAIN);
        assert!(behind.contains("the local one has old data"), "{behind}");
        assert!(arrays(&[], Style::PLAIN).contains("raid create"));
    }
}
