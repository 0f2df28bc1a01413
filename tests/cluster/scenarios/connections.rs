//! Connections and their handshakes.

use mirror_core::event::PeerIndex;
use mirror_core::resource::event::Input;
use mirror_core::stream::Control;

use crate::faults::{Action, Cut};
use crate::net::id_of;
use crate::stage::{LONG_US, Row, Stage, Step};

/// Names and scripts.
pub const ALL: &[Row] = &[
    ("connect", connect),
    ("connect-abort", connect_abort),
    ("closed-on-purpose", closed_on_purpose),
    ("connect-differing-sizes", connect_differing_sizes),
    ("concurrent-disconnect", concurrent_disconnect),
    ("promote_while_connecting", promote_while_connecting),
    ("uuid_send_receive_race", uuid_send_receive_race),
    ("stress-connect-and-2pc", stress_connect),
];

/// Four nodes meet and stay connected though nobody ever declared data.
fn connect(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 4, 1);
    stage.until("all are connected", |world| {
        (0..4).all(|a| (0..4).all(|b| a == b || world.is_connected(a, b)))
    })?;
    stage.pass(2_000_000)?;
    stage.expect("nobody is Primary", stage.world.primaries() == 0)
}

/// The Primary closes a connection, and it takes a while until there is another one: it has not died.
fn closed_on_purpose(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    stage.write(0, 0, 1)?;
    let connection = stage.world.nodes[0].links[0].conn.map(id_of).ok_or("no connection")?;
    let peer = PeerIndex(0);
    let asked_for_by_nobody = Control::Bitmap {
        volume: 0,
        blocks: std::iter::once(0..1).collect(),
        last: true,
    };
    for (one, other) in [(0, 1), (1, 0)] {
        stage.world.broken_until[one][other] = stage.world.now + LONG_US;
    }
    let input = Input::Control {
        peer,
        connection,
        control: asked_for_by_nobody,
    };
    let fed = stage.world.feed_resource(0, input);
    fed.and_then(|()| stage.world.settle(0))
        .map_err(|violation| violation.to_string())?;
    stage.until("both have noticed", |world| !world.linked(0, 1))?;
    stage.refuses(Action::Promote { node: 1, force: false })?;
    stage.join(0, 1);
    stage.until_whole()
}

/// A link is cut in the middle of a handshake: the third node can still be promoted.
fn connect_abort(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 1);
    stage.until("a connection begins", |world| !world.conns.is_empty())?;
    stage.pass(seed % 9 * 200)?;
    stage.break_link(0, 1, Cut::Both, (5_000, 5_000), LONG_US)?;
    stage.until("2 is connected to both", |world| {
        world.is_connected(0, 2) && world.is_connected(1, 2)
    })?;
    stage.promote(0, true)?;
    stage.write(0, 0, 1)?;
    stage.join(0, 1);
    stage.until_whole()
}

/// An image of another size is refused, and nobody's data is touched.
fn connect_differing_sizes(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1);
    stage.world.nodes[1].volumes[0].size -= 4096;
    stage.promote(0, true)?;
    stage.write(0, 0, 1)?;
    stage.pass(3_000_000)?;
    stage.expect("they do not replicate", !stage.same(0, 1))?;
    stage.write(0, 0, 3)
}

/// Two nodes disconnect the Primary at once: it goes on, and everything comes back.
fn concurrent_disconnect(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 1).ready()?;
    stage.does(Action::Disconnect { node: 1, from: 0 })?;
    stage.does(Action::Disconnect { node: 2, from: 0 })?;
    stage.write(0, 0, 1)?;
    stage.does(Action::Connect {
        node: 1,
        to: 0,
        discard: false,
    })?;
    stage.does(Action::Connect {
        node: 2,
        to: 0,
        discard: false,
    })?;
    for node in [1, 2] {
        let to = node;
        if stage.link(0, node) == Some(mirror_core::resource::status::LinkState::StandAlone) {
            stage.does(Action::Connect {
                node: 0,
                to,
                discard: false,
            })?;
        }
    }
    stage.until_whole()
}

/// A node is promoted while its handshake is under way.
fn promote_while_connecting(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 2, 1).ready()?;
    stage.does(Action::Demote(0))?;
    stage.cut(0, 1)?;
    stage.join(0, 1);
    let before = stage.world.conns.len();
    stage.until("a connection begins", move |world| world.conns.len() > before)?;
    stage.pass(seed % 7 * 150)?;
    stage.world.nodes[1].forcing = true;
    stage.does(Action::Promote { node: 1, force: true })?;
    stage.until("hosts may write", |world| world.serves_hosts(1))?;
    stage.write(1, 0, 2)?;
    stage.until_whole()
}

/// The generation changes while identities are exchanged: both come to the same conclusion.
fn uuid_send_receive_race(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 3, 1).ready()?;
    stage.cut(0, 1)?;
    stage.join(0, 1);
    let before = stage.world.conns.len();
    stage.until("a connection begins", move |world| world.conns.len() > before)?;
    stage.pass(seed % 11 * 100)?;
    // The third node falls away: the next write needs a new generation.
    stage.break_link(0, 2, Cut::Both, (0, 0), LONG_US)?;
    stage.write(0, 0, 1)?;
    stage.until("0 and 1 are connected", |world| world.is_connected(0, 1))?;
    stage.join(0, 2);
    stage.until_whole()
}

/// Twenty rounds of links going up and down: in the end everybody is connected.
fn stress_connect(seed: u64) -> Step {
    let mut stage = Stage::new(seed, 4, 1).ready()?;
    for round in 0..20_u64 {
        let (a, b) = ((round % 4) as usize, ((round + 1 + round / 4 % 3) % 4) as usize);
        if a != b {
            let notice = (round * 37 % 900, round * 91 % 900);
            stage.break_link(a, b, Cut::Both, notice, 20_000)?;
        }
        stage.pass(15_000)?;
        stage.write(0, 0, round as usize)?;
    }
    stage.until_whole()
}
