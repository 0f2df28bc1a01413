//! `blockmirror info`: what a server says about its exports, without opening them.

use std::fmt::Write;
use std::time::Duration;

use blockmirror_client::connect::{self, ConnectError, Server};
use blockmirror_client::uri::NbdUri;
use nbd_proto::client::{HandshakeError, Negotiated};
use nbd_proto::{ReplyStyle, TransmissionFlags};
use serde_json::{Value, json};

use crate::failure::{Failure, print};
use crate::human::{bytes, clean};
use crate::terminal::{Style, Tone};

/// Time a server has for each answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// What an export can offer, in the words of the protocol.
const OFFERS: [(TransmissionFlags, &str); 10] = [
    (TransmissionFlags::SEND_FLUSH, "flush"),
    (TransmissionFlags::SEND_FUA, "fua"),
    (TransmissionFlags::SEND_TRIM, "trim"),
    (TransmissionFlags::SEND_WRITE_ZEROES, "write_zeroes"),
    (TransmissionFlags::SEND_FAST_ZERO, "fast_zero"),
    (TransmissionFlags::SEND_CACHE, "cache"),
    (TransmissionFlags::SEND_DF, "df"),
    (TransmissionFlags::CAN_MULTI_CONN, "multi_conn"),
    (TransmissionFlags::BLOCK_STATUS_PAYLOAD, "block_status_payload"),
    (TransmissionFlags::ROTATIONAL, "rotational"),
];

/// One export, and what is said about it.
struct Export {
    uri: NbdUri,
    told: Result<Told, ConnectError>,
}

struct Told {
    negotiated: Negotiated,
    contexts: Vec<String>,
}

/// Shows the export that `uri` names, or all of the server's when it names none.
pub async fn run(uri: &NbdUri, json: bool) -> Result<(), Failure> {
    let names = match &uri.export {
        Some(name) => vec![name.clone()],
        None => listed(uri).await?,
    };
    let mut exports = Vec::new();
    for name in names {
        let uri = NbdUri {
            export: Some(name),
            ..uri.clone()
        };
        let told = ask(&uri).await;
        exports.push(Export { uri, told });
    }
    // Asked for by its name, it is there or the command has failed.
    if uri.export.is_some()
        && let Some(Export { told: Err(error), .. }) = exports.first()
    {
        return Err(failed(error));
    }
    if json {
        let report = json!({ "exports": exports.iter().map(as_json).collect::<Vec<_>>() });
        let text = serde_json::to_string_pretty(&report)
            .map_err(|error| Failure::Failed(format!("cannot write the report as JSON: {error}")))?;
        return print(&format!("{text}\n"));
    }
    if exports.is_empty() {
        return print("the server shows no exports\n");
    }
    let style = Style::of_stdout();
    let shown: Vec<String> = exports.iter().map(|export| described(export, style)).collect();
    print(&shown.join("\n"))
}

/// How a server that cannot be asked ends a command.
pub fn failed(error: &ConnectError) -> Failure {
    match error {
        ConnectError::Handshake { .. } => Failure::Failed(error.to_string()),
        _ => Failure::Unreachable(error.to_string()),
    }
}

/// The names of all exports; a server that tells none may still have a default one.
async fn listed(uri: &NbdUri) -> Result<Vec<String>, Failure> {
    let server = Server::of(uri).map_err(|error| failed(&error))?;
    match connect::list(&server, DEADLINE).await {
        Ok(exports) => Ok(exports.into_iter().map(|(name, _)| name).collect()),
        Err(error) if is_refusal(&error) => Ok(vec![String::new()]),
        Err(error) => Err(failed(&error)),
    }
}

async fn ask(uri: &NbdUri) -> Result<Told, ConnectError> {
    let name = uri.export.as_deref().unwrap_or_default();
    let server = Server::of(uri)?;
    let (negotiated, contexts) = tokio::join!(connect::info(&server, name, DEADLINE), contexts(uri));
    Ok(Told {
        negotiated: negotiated?,
        contexts: contexts?,
    })
}

/// The metadata contexts of an export; none when the server does not want to tell.
pub async fn contexts(uri: &NbdUri) -> Result<Vec<String>, ConnectError> {
    let name = uri.export.as_deref().unwrap_or_default();
    match connect::contexts(&Server::of(uri)?, name, DEADLINE).await {
        Err(error) if is_refusal(&error) => Ok(Vec::new()),
        answer => answer,
    }
}

fn is_refusal(error: &ConnectError) -> bool {
    matches!(
        error,
        ConnectError::Handshake {
            source: HandshakeError::Refused { .. },
            ..
        }
    )
}

fn offers(negotiated: &Negotiated) -> Vec<&'static str> {
    let offered = OFFERS.iter().filter(|(flag, _)| negotiated.flags.contains(*flag));
    offered.map(|(_, name)| *name).collect()
}

fn is_read_only(negotiated: &Negotiated) -> bool {
    negotiated.flags.contains(TransmissionFlags::READ_ONLY)
}

fn as_json(export: &Export) -> Value {
    let uri = export.uri.to_string();
    let told = match &export.told {
        Ok(told) => told,
        Err(error) => return json!({ "name": export.uri.export, "uri": uri, "error": error.to_string() }),
    };
    let negotiated = &told.negotiated;
    json!({
        "name": negotiated.name.as_ref().or(export.uri.export.as_ref()),
        "uri": uri,
        "description": negotiated.description,
        "size_bytes": negotiated.size,
        "read_only": is_read_only(negotiated),
        "block_sizes": negotiated.block_sizes.map(|sizes| json!({
            "minimum_bytes": sizes.minimum,
            "preferred_bytes": sizes.preferred,
            "maximum_payload_bytes": sizes.maximum_payload,
        })),
        "offers": offers(negotiated),
        "replies": match negotiated.replies {
            ReplyStyle::Simple => "simple",
            ReplyStyle::Structured => "structured",
            ReplyStyle::Extended => "extended",
        },
        "contexts": told.contexts,
    })
}

/// Some lines for people.
fn described(export: &Export, style: Style) -> String {
    let name = match export.uri.export.as_deref() {
        None | Some("") => "(default)",
        Some(name) => name,
    };
    let mut text = style.paint(Tone::Strong, &clean(name));
    let told = match &export.told {
        Ok(told) => told,
        Err(error) => {
            text.push_str(&format!("  {}\n", style.paint(Tone::Bad, &clean(&error.to_string()))));
            return text;
        }
    };
    let negotiated = &told.negotiated;
    let access = if is_read_only(negotiated) {
        "read-only"
    } else {
        "read-write"
    };
    text.push('\n');
    let mut line = |label: &str, value: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {:<9} {value}", label);
    };
    line("uri", &clean(&export.uri.to_string()));
    line(
        "size",
        &format!("{} ({} bytes), {access}", bytes(negotiated.size), negotiated.size),
    );
    for (label, told) in [("name", &negotiated.name), ("about", &negotiated.description)] {
        if let Some(told) = told.as_deref().filter(|told| !told.is_empty() && *told != name) {
            line(label, &clean(told));
        }
    }
    line("blocks", &blocks(negotiated));
    line("offers", &words(offers(negotiated).into_iter()));
    let replies = match negotiated.replies {
        ReplyStyle::Simple => "simple",
        ReplyStyle::Structured => "structured",
        ReplyStyle::Extended => "extended, with 64-bit lengths",
    };
    line("replies", replies);
    line("contexts", &words(told.contexts.iter().map(String::as_str)));
    text
}

fn blocks(negotiated: &Negotiated) -> String {
    let Some(sizes) = negotiated.block_sizes else {
        return "not told".to_owned();
    };
    let maximum = match sizes.maximum_payload {
        nbd_proto::constants::UNLIMITED_PAYLOAD => "any".to_owned(),
        maximum => bytes(u64::from(maximum)),
    };
    let [minimum, preferred] = [sizes.minimum, sizes.preferred].map(|size| bytes(u64::from(size)));
    format!("{minimum} at least, {preferred} preferred, {maximum} at most in one request")
}

fn words<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<_> = words.map(clean).collect();
    match words.is_empty() {
        true => "none".to_owned(),
        false => words.join(", "),
    }
}
