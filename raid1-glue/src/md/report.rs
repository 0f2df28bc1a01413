//! How an array is: what operators, programs and the watch are told.

use serde::Serialize;

use super::Machine;
use super::heal::DeviceState;
use super::record::Record;
use super::sysfs::{Array, Standing};

/// Bytes of the unit in which md counts.
const SECTOR: u64 = 512;

/// One array.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The name of its record.
    pub name: String,
    /// `/dev/md0`.
    pub array: String,
    /// Its UUID, as recorded.
    pub uuid: String,
    /// It serves.
    pub is_running: bool,
    /// The kernel's word for it: `clean`, `active` ...
    pub state: String,
    /// Bytes.
    pub size_bytes: u64,
    /// Legs that are missing.
    pub degraded: u32,
    /// What is copied or compared now.
    pub action: Option<Action>,
    /// The local leg.
    pub local: LegReport,
    /// The other one.
    pub leg: LegReport,
    /// The export behind that.
    pub uris: String,
    /// An operator has taken it out.
    pub is_removed: bool,
    /// The leg alone has everything, as is seen now, or was when both were seen last.
    pub is_local_behind: bool,
    /// How its device is.
    pub device: DeviceState,
    /// The process that keeps it attached.
    pub agent: Option<u32>,
    /// Writes that its device has under way.
    pub writes_in_flight: u64,
    /// Writes it may be behind; none: every write waits for it.
    pub write_behind: Option<WriteBehind>,
    /// What has changed since both legs were the same.
    pub bitmap: Option<BitmapReport>,
    /// What is wrong with the array as a whole.
    pub problem: Option<String>,
}

/// What md does beside serving.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Action {
    /// `recover`, `resync`, `check`, `repair`.
    pub name: String,
    /// Bytes done.
    pub done_bytes: u64,
    /// Of so many.
    pub total_bytes: u64,
    /// Lately.
    pub bytes_per_second: u64,
    /// Seconds that are left at that rate.
    pub eta_seconds: Option<u64>,
}

/// One leg.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LegReport {
    /// `/dev/nbd0`.
    pub device: String,
    /// What it is to the array; none: no part of it.
    pub standing: Option<Standing>,
    /// Errors that md has mended on it.
    pub errors: u64,
    /// Stretches that md has noted as bad on it.
    pub bad_blocks: usize,
}

/// Writes that do not wait for the leg.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WriteBehind {
    /// At most.
    pub limit: u64,
    /// The most there were.
    pub peak: u64,
}

/// The write-intent bitmap.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BitmapReport {
    /// Bytes of one bit.
    pub chunk_bytes: u64,
    /// What would be copied, at most.
    pub dirty_bytes: u64,
}

impl Machine {
    /// A look at the array of a record, and at the device of its leg.
    pub fn report(&self, name: &str, record: &Record, device: DeviceState, agent: Option<u32>) -> Report {
        let (array, problem) = match self.ours(record) {
            Ok(array) => (Some(array), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let bitmap = array.as_ref().and_then(|_| self.mdadm.bitmap(&record.local).ok()?);
        let array = array.as_ref();
        Report {
            name: name.to_owned(),
            array: record.array.clone(),
            uuid: record.uuid.clone(),
            is_running: array.is_some(),
            state: array.map_or_else(|| "not running".to_owned(), |array| array.state.clone()),
            size_bytes: array.map_or(0, |array| array.size),
            degraded: array.map_or(0, |array| array.degraded),
            action: array.and_then(action),
            local: leg(array, &record.local),
            leg: LegReport {
                standing: array.and_then(|array| array.standing_of_leg(&record.device)),
                ..leg(array, &record.device)
            },
            uris: record.uris.clone(),
            is_removed: record.is_removed,
            is_local_behind: array
                .and_then(|array| array.is_local_behind(record))
                .unwrap_or(record.is_local_behind),
            device,
            agent,
            writes_in_flight: self.blocks.writes_in_flight(&record.device).unwrap_or_default(),
            write_behind: array
                .and_then(|array| array.behind)
                .map(|(limit, peak)| WriteBehind { limit, peak }),
            bitmap: bitmap.map(|bitmap| BitmapReport {
                chunk_bytes: bitmap.chunk,
                dirty_bytes: bitmap.dirty_bytes(),
            }),
            problem,
        }
    }
}

fn leg(array: Option<&Array>, device: &str) -> LegReport {
    let member = array.and_then(|array| array.member(device));
    LegReport {
        device: device.to_owned(),
        standing: member.map(|member| member.standing()),
        errors: member.map_or(0, |member| member.errors),
        bad_blocks: member.map_or(0, |member| member.bad_blocks),
    }
}

fn action(array: &Array) -> Option<Action> {
    if matches!(array.action.as_str(), "" | "idle" | "frozen") {
        return None;
    }
    let (done, total) = array.progress.unwrap_or_default();
    let left = total.saturating_sub(done) * SECTOR;
    Some(Action {
        name: array.action.clone(),
        done_bytes: done * SECTOR,
        total_bytes: total * SECTOR,
        bytes_per_second: array.speed,
        eta_seconds: (total > 0).then(|| left.checked_div(array.speed)).flatten(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::md::scene::{Scene, UUID};

    #[test]
    fn an_array_on_its_way_is_told_with_what_is_left() {
        let scene = Scene::new();
        scene.array(Some("spare,write_mostly\n"));
        scene.put(
            "md0/md",
            &[
                ("sync_action", "recover\n"),
                ("sync_completed", "32768 / 131072\n"),
                ("sync_speed", "1024\n"),
            ],
        );
        scene.put("nbd0", &[("inflight", "0 4\n")]);
        scene.mdadm(&format!(
            "case $1 in --detail) echo MD_UUID={UUID};;
             *) echo 'Chunksize : 4 MB'; echo 'Bitmap : 16 bits (chunks), 3 dirty (18.8%)';; esac"
        ));
        let report = scene
            .machine()
            .report("data", &scene.record(), DeviceState::Alive, Some(7));
        assert!(report.is_running && report.problem.is_none(), "{report:?}");
        let action = report.action.unwrap();
        assert_eq!((action.done_bytes, action.total_bytes), (16 << 20, 64 << 20));
        assert_eq!((action.bytes_per_second, action.eta_seconds), (1 << 20, Some(48)));
        assert_eq!(report.leg.standing, Some(Standing::Syncing));
        assert_eq!(report.bitmap.unwrap().dirty_bytes, 12 << 20);
        assert_eq!((report.writes_in_flight, report.agent), (4, Some(7)));
    }

    #[test]
    fn an_array_that_is_gone_is_told_with_the_reason() {
        let scene = Scene::new();
        scene.mdadm("exit 1");
        let report = scene
            .machine()
            .report("data", &scene.record(), DeviceState::Absent, None);
        assert!(!report.is_running);
        assert!(report.problem.unwrap().contains("does not run"));
        assert_eq!((report.local.standing, report.leg.standing), (None, None));
    }
}
