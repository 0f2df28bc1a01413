//! Orders to resources and volumes: what is asked, and what is said about it.

use blockmirror_client::admin::{AdminClient, AdminError, Loss, NeedsAccept, Order, ReloadReport};
use serde_json::json;

use crate::failure::{Failure, print};
use crate::human::{bytes, clean, duration};

/// Gives an order; says `done`, or `{"done": true}`.
pub async fn give(admin: &AdminClient, order: &Order, json: bool, done: &str) -> Result<(), Failure> {
    match admin.order(order).await {
        Ok(answer) if json => print(&format!(
            "{}\n",
            json!({ "done": true, "export": answer.export, "note": answer.note })
        )),
        Ok(answer) => {
            let note = answer
                .note
                .map(|note| format!("{}\n", clean(&note)))
                .unwrap_or_default();
            print(&format!("{done}\n{note}"))
        }
        Err(error) => Err(refused(error, order, json)),
    }
}

/// What a refusal comes to. For programs it is on stdout too.
pub fn refused(error: AdminError, order: &Order, json: bool) -> Failure {
    let AdminError::Refused {
        status,
        error: text,
        needs_accept,
    } = error
    else {
        return error.into();
    };
    if json {
        let body = json!({ "done": false, "status": status, "error": text, "needs_accept": needs_accept });
        if let Err(failure) = print(&format!("{body}\n")) {
            return failure;
        }
    }
    match (needs_accept, order) {
        (Some(accept), Order::Promote { resource, .. }) => Failure::Failed(would_lose(resource, &text, &accept)),
        _ => Failure::Failed(text),
    }
}

/// The loss, and the exact command that accepts it.
fn would_lose(resource: &str, why: &str, accept: &NeedsAccept) -> String {
    let mut text = format!("not promoted: {}\n\n  What would be lost:\n", clean(why));
    for line in loss(&accept.loss) {
        text.push_str(&format!("    {line}\n"));
    }
    text.push_str(&format!(
        "\n  To give that up and promote \"{resource}\" here, type:\n    blockmirror promote --force --accept {} {}",
        quoted(&accept.token),
        quoted(resource)
    ));
    text
}

/// The parts of a loss, one line each.
pub fn loss(loss: &Loss) -> Vec<String> {
    let mut lines = Vec::new();
    if loss.inconsistent_bytes > 0 {
        lines.push(format!(
            "the data here is not complete: a resync to it was interrupted with {} missing. What hosts find here is a \
             mixture of old and new",
            bytes(loss.inconsistent_bytes)
        ));
    }
    if loss.bytes > 0 || loss.flushes > 0 {
        let flushes = if loss.flushes == 1 { "flush" } else { "flushes" };
        lines.push(format!(
            "{} of writes and {} {flushes} that the Primary had and this node has not, as far as it was told",
            bytes(loss.bytes),
            loss.flushes
        ));
        lines.push(format!(
            "the oldest of them was {} old when the contact was lost",
            duration(loss.age_seconds)
        ));
    }
    if loss.unknown {
        lines.push("whatever the Primary has written since: it may be running still, or was not heard of".to_owned());
    }
    if lines.is_empty() {
        lines.push("nothing, as far as is known".to_owned());
    }
    lines
}

/// As a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Has the configuration read again.
pub async fn reload(admin: &AdminClient, json: bool) -> Result<(), Failure> {
    let report = admin.reload().await?;
    if json {
        let text = serde_json::to_string_pretty(&report)
            .map_err(|error| Failure::Failed(format!("cannot write the report as JSON: {error}")))?;
        print(&format!("{text}\n"))?;
    } else {
        print(&reloaded(&report))?;
    }
    if report.failed.is_empty() {
        Ok(())
    } else {
        Err(Failure::Failed(format!(
            "{} of the changes could not be carried out",
            report.failed.len()
        )))
    }
}

fn reloaded(report: &ReloadReport) -> String {
    let mut text = String::new();
    let mut section = |title: &str, lines: &[String]| {
        if !lines.is_empty() {
            text.push_str(&format!("{title}:\n"));
            for line in lines {
                text.push_str(&format!("  {}\n", clean(line)));
            }
        }
    };
    section("done", &report.applied);
    section("takes effect with a restart", &report.needs_restart);
    section("failed", &report.failed);
    if text.is_empty() {
        text.push_str("nothing has changed\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_lost_and_how_to_accept_it() {
        let accept = NeedsAccept {
            loss: Loss {
                age_seconds: 1.25,
                bytes: 12 << 20,
                flushes: 37,
                inconsistent_bytes: 0,
                unknown: true,
            },
            token: "12MiB-37".to_owned(),
        };
        let text = would_lose("my db", "alpha is not connected", &accept);
        for part in [
            "not promoted: alpha is not connected",
            "12 MiB of writes and 37 flushes",
            "1.2 s old",
            "it may be running still, or was not heard of",
            "blockmirror promote --force --accept 12MiB-37 'my db'",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert_eq!(loss(&Loss::default()), ["nothing, as far as is known"]);
        let mixed = Loss {
            inconsistent_bytes: 4096,
            ..Loss::default()
        };
        assert!(loss(&mixed)[0].contains("4 KiB missing"));
    }

    #[test]
    fn words_for_a_shell() {
        assert_eq!(quoted("db"), "db");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn what_a_reload_did() {
        assert_eq!(reloaded(&ReloadReport::default()), "nothing has changed\n");
        let report = ReloadReport {
            applied: vec!["peer bravo added".to_owned()],
            needs_restart: vec!["listen".to_owned()],
            failed: Vec::new(),
        };
        assert_eq!(
            reloaded(&report),
            "done:\n  peer bravo added\ntakes effect with a restart:\n  listen\n"
        );
    }
}
