//! `blockmirror map`: what a metadata context says of an export, from its beginning to its end.

use std::borrow::Cow;
use std::time::Duration;

use blockmirror_client::client::{Client, ClientError};
use blockmirror_client::connect::{ConnectError, Wishes};
use blockmirror_client::uri::NbdUri;
use nbd_proto::Extent;
use nbd_proto::client::HandshakeError;
use nbd_proto::extent_flags::{DIRTY, HOLE, ZERO};
use serde_json::json;

use crate::failure::{Failure, print};
use crate::info;

/// Time a server has to be reached.
const DEADLINE: Duration = Duration::from_secs(10);
/// The context that every server which has any should have.
pub const ALLOCATION: &str = "base:allocation";

/// Extents as they come, equal neighbours joined; each is written as soon as it has ended.
struct Lines<'a> {
    context: &'a str,
    json: bool,
    first: bool,
    /// Where the present one begins, and what it is so far.
    at: u64,
    present: Option<Extent>,
}

/// Shows the whole map, in the form of `nbdinfo --map`.
pub async fn run(uri: &NbdUri, context: &str, json: bool) -> Result<(), Failure> {
    let client = open(uri, context).await?;
    let mut lines = Lines {
        context,
        json,
        first: true,
        at: 0,
        present: None,
    };
    let size = client.size();
    let mut at = 0;
    while at < size {
        let extents = client.status(context, at, size - at).await;
        for extent in
            extents.map_err(|error| Failure::Unreachable(format!("cannot map {uri} from {at} on: {error}")))?
        {
            at += extent.length;
            lines.add(extent)?;
        }
    }
    lines.end()?;
    // Everything has been shown; how the server parts changes nothing of it.
    let _ = client.disconnect().await;
    Ok(())
}

async fn open(uri: &NbdUri, context: &str) -> Result<Client, Failure> {
    let wishes = Wishes {
        contexts: vec![context.to_owned()],
        contexts_demanded: true,
        ..Wishes::default()
    };
    match Client::connect_wishing(uri, &wishes, DEADLINE).await {
        Ok(client) => Ok(client),
        Err(ClientError::Connect(error)) if lacks_context(&error) => {
            let others = info::contexts(uri).await.unwrap_or_default();
            let others = match others.is_empty() {
                true => "it has none".to_owned(),
                false => format!("it has {}", others.join(", ")),
            };
            Err(Failure::Failed(format!("{error}; {others}")))
        }
        Err(ClientError::Connect(error)) => Err(info::failed(&error)),
        Err(error) => Err(Failure::Unreachable(error.to_string())),
    }
}

fn lacks_context(error: &ConnectError) -> bool {
    matches!(
        error,
        ConnectError::Handshake {
            source: HandshakeError::NoContext { .. },
            ..
        }
    )
}

impl Lines<'_> {
    fn add(&mut self, extent: Extent) -> Result<(), Failure> {
        match &mut self.present {
            Some(present) if present.flags == extent.flags => present.length += extent.length,
            _ => {
                self.finish()?;
                self.present = Some(extent);
            }
        }
        Ok(())
    }

    /// Writes the present extent.
    fn finish(&mut self) -> Result<(), Failure> {
        let Some(Extent { length, flags }) = self.present.take() else {
            return Ok(());
        };
        let meaning = meaning(self.context, flags);
        let text = if self.json {
            let before = if self.first { "[\n" } else { ",\n" };
            let line = json!({ "offset": self.at, "length": length, "type": flags, "description": meaning });
            format!("{before}{line}")
        } else {
            let line = format!("{:>12} {length:>12} {flags:>4}  {meaning}", self.at);
            format!("{}\n", line.trim_end())
        };
        self.first = false;
        self.at += length;
        print(&text)
    }

    fn end(&mut self) -> Result<(), Failure> {
        self.finish()?;
        match (self.json, self.first) {
            (true, true) => print("[]\n"),
            (true, false) => print("\n]\n"),
            (false, _) => Ok(()),
        }
    }
}

/// What flags mean in the contexts that are known; nothing in others.
fn meaning(context: &str, flags: u64) -> Cow<'static, str> {
    let is_dirty_map = context.starts_with("qemu:dirty-bitmap:") || context.starts_with("x-blockmirror:dirty");
    Cow::Borrowed(match context {
        ALLOCATION => match (flags & HOLE != 0, flags & ZERO != 0) {
            (false, false) => "data",
            (true, false) => "hole",
            (false, true) => "zero",
            (true, true) => "hole,zero",
        },
        "qemu:allocation-depth" => match flags {
            0 => "unallocated",
            1 => "local",
            depth => return Cow::Owned(format!("backing depth {depth}")),
        },
        _ if is_dirty_map && flags & DIRTY != 0 => "dirty",
        _ if is_dirty_map => "clean",
        _ => "",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_have_names_where_the_context_is_known() {
        for (context, flags, name) in [
            (ALLOCATION, 0, "data"),
            (ALLOCATION, 1, "hole"),
            (ALLOCATION, 2, "zero"),
            (ALLOCATION, 3, "hole,zero"),
            ("qemu:dirty-bitmap:bravo", 1, "dirty"),
            ("x-blockmirror:dirty/bravo", 0, "clean"),
            ("qemu:allocation-depth", 3, "backing depth 3"),
            ("x-other:thing", 1, ""),
        ] {
            assert_eq!(meaning(context, flags), name, "{context} {flags}");
        }
    }
}
