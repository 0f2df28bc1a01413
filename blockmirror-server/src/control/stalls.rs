//! What hosts wait for, or are refused, though this node is Primary and lets them in.

use std::time::Duration;

use mirror_core::config::PeerKind;
use mirror_core::status::NoData;

use super::roster::{PeerView, Served};
use crate::data::{PeerSnapshot, VolumeSnapshot};

/// One thing that keeps hosts from being served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stall {
    /// What is so.
    pub(super) what: String,
    /// What an operator can do.
    pub(super) remedy: String,
}

/// Of one volume.
pub(super) fn of(served: &Served, volume: &VolumeSnapshot) -> Vec<Stall> {
    let peers = served.peer_views();
    let peers: Vec<&PeerSnapshot> = peers
        .filter_map(|peer: PeerView<'_>| volume.peers.get(peer.number))
        .collect();
    stalls(&served.config.name, volume, &peers)
}

fn stalls(resource: &str, volume: &VolumeSnapshot, peers: &[&PeerSnapshot]) -> Vec<Stall> {
    if let Some(no_data) = volume.no_data {
        return vec![without_data(resource, volume, no_data, peers)];
    }
    let waited = peers
        .iter()
        .filter_map(|peer| Some((peer.name.as_str(), peer.waited_for?)));
    let stall = |(peer, away): (&str, Duration)| Stall {
        what: format!(
            "volume {}: writes and flushes of hosts wait for {peer}, which has been away for {} (on_disconnect = \"suspend\"){}",
            volume.export,
            spelled(away),
            waiting(volume)
        ),
        remedy: format!("bring {peer} back, or go on without it: `blockmirror disconnect {resource} {peer}`"),
    };
    waited.map(stall).collect()
}

fn without_data(resource: &str, volume: &VolumeSnapshot, no_data: NoData, peers: &[&PeerSnapshot]) -> Stall {
    let export = &volume.export;
    let away = |peer: &&&PeerSnapshot| peer.kind == PeerKind::Partner && !is_connected(peer);
    let names: Vec<&str> = peers.iter().filter(away).map(|peer| peer.name.as_str()).collect();
    let writes = match no_data.rest {
        Some(Duration::ZERO) => {
            "reads of what is not here and all writes are refused until one that has it is back".to_owned()
        }
        Some(rest) => format!(
            "reads of what is not here are refused, and writes wait for one that has it, {} more{}; then they are refused, too",
            spelled(rest),
            waiting(volume)
        ),
        None => format!(
            "reads of what is not here are refused, and writes wait for one that has it, without end \
             (on_disconnect = \"suspend\"){}",
            waiting(volume)
        ),
    };
    let mut remedy = if names.is_empty() {
        format!("have a peer that had everything take its image again: on it `blockmirror attach {export}`")
    } else {
        format!("bring back who had everything last: {}", names.join(" or "))
    };
    let suspends = peers.iter().filter(|peer| peer.waited_for.is_some());
    let suspends: Vec<String> = suspends
        .map(|peer| format!("`blockmirror disconnect {resource} {}`", peer.name))
        .collect();
    if !suspends.is_empty() {
        remedy.push_str(&format!("; or have what waits refused: {}", suspends.join(" and ")));
    }
    Stall {
        what: format!(
            "volume {export}: for {} neither its image here nor any connected peer has all of it: {writes}",
            spelled(no_data.elapsed)
        ),
        remedy,
    }
}

fn is_connected(peer: &PeerSnapshot) -> bool {
    peer.connection_state == blockmirror_client::admin::ConnectionState::Connected
}

fn waiting(volume: &VolumeSnapshot) -> String {
    match volume.requests_held {
        0 => String::new(),
        1 => ": 1 request waits".to_owned(),
        more => format!(": {more} requests wait"),
    }
}

fn spelled(time: Duration) -> String {
    match time.as_secs_f64().ceil() as u64 {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use blockmirror_client::admin::ConnectionState;

    fn volume(requests_held: usize, no_data: Option<NoData>) -> VolumeSnapshot {
        VolumeSnapshot {
            export: "db".to_owned(),
            requests_held,
            no_data,
            ..VolumeSnapshot::default()
        }
    }

    fn peer(name: &str, waited_for: Option<u64>) -> PeerSnapshot {
        PeerSnapshot {
            name: name.to_owned(),
            kind: PeerKind::Partner,
            connection_state: ConnectionState::Connecting,
            waited_for: waited_for.map(Duration::from_secs),
            ..PeerSnapshot::default()
        }
    }

    fn told(volume: &VolumeSnapshot, peers: &[&PeerSnapshot]) -> Vec<(String, String)> {
        let stalls = stalls("shop", volume, peers).into_iter();
        stalls.map(|stall| (stall.what, stall.remedy)).collect()
    }

    #[test]
    fn nothing_is_said_while_nobody_is_waited_for() {
        assert_eq!(told(&volume(0, None), &[&peer("bravo", None)]), []);
    }

    #[test]
    fn who_is_waited_for_since_when_and_how_one_goes_on_without_him() {
        let what = "volume db: writes and flushes of hosts wait for bravo, which has been away for 12 s (on_disconnect = \"suspend\"): \
                    2 requests wait";
        let remedy = "bring bravo back, or go on without it: `blockmirror disconnect shop bravo`";
        let peers = [&peer("bravo", Some(12)), &peer("charlie", None)];
        assert_eq!(told(&volume(2, None), &peers), [(what.to_owned(), remedy.to_owned())]);
    }

    #[test]
    fn where_the_data_are_gone_it_is_told_how_long_writes_wait() {
        let no_data = |rest| {
            Some(NoData {
                elapsed: Duration::from_secs(5),
                rest,
            })
        };
        let rests = [
            (Some(15), "15 s more: 1 request waits; then"),
            (Some(0), "all writes are refused"),
            (None, "without end"),
        ];
        for (rest, words) in rests {
            let volume = volume(1, no_data(rest.map(Duration::from_secs)));
            let told = told(&volume, &[&peer("bravo", None)]);
            assert!(told[0].0.contains(words), "{told:?}");
            assert_eq!(told[0].1, "bring back who had everything last: bravo");
        }
        let endless = told(&volume(0, no_data(None)), &[&peer("bravo", Some(5))]);
        assert!(
            endless[0]
                .1
                .ends_with("or have what waits refused: `blockmirror disconnect shop bravo`")
        );
        let here = PeerSnapshot {
            connection_state: ConnectionState::Connected,
            ..peer("bravo", None)
        };
        assert!(
            told(&volume(0, no_data(None)), &[&here])[0]
                .1
                .contains("on it `blockmirror attach db`")
        );
    }
}
