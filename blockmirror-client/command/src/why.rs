//! `blockmirror why`: the reasons behind the present state, in plain words. Writing to a String cannot fail.

use std::fmt::Write;

use blockmirror_client::admin::{AdminClient, DecisionReport, HandshakeReport, WhyReport};

use crate::failure::{Failure, print};
use crate::human::{clean, duration};
use crate::terminal::{Style, Tone};

/// Explains one resource, or all.
pub async fn run(admin: &AdminClient, resource: Option<&str>, json: bool) -> Result<(), Failure> {
    let names = match resource {
        Some(name) => vec![name.to_owned()],
        None => {
            let report = admin.status().await?;
            let mirrored = report.resources.into_iter().filter(|resource| resource.role.is_some());
            mirrored.map(|resource| resource.name).collect()
        }
    };
    let mut reports = Vec::new();
    for name in &names {
        reports.push(admin.why(name).await?);
    }
    if json {
        let text = if resource.is_some() {
            serde_json::to_string_pretty(&reports[0])
        } else {
            serde_json::to_string_pretty(&reports)
        };
        let text = text.map_err(|error| Failure::Failed(format!("cannot write the report as JSON: {error}")))?;
        return print(&format!("{text}\n"));
    }
    if reports.is_empty() {
        return print("no resource here is mirrored: there is nothing to explain\n");
    }
    let texts: Vec<String> = reports
        .iter()
        .map(|report| explain(report, Style::of_stdout()))
        .collect();
    print(&texts.join("\n"))
}

/// One resource, ending in a newline.
pub fn explain(why: &WhyReport, style: Style) -> String {
    let mut text = format!(
        "{} is {} on {}: {}\n",
        style.paint(Tone::Strong, &clean(&why.resource)),
        why.role,
        clean(&why.node),
        clean(&why.role_because)
    );
    for fact in &why.facts {
        text.push_str(&format!("  - {}\n", clean(fact)));
    }
    for handshake in &why.handshakes {
        push_handshake(&mut text, handshake, style);
    }
    if !why.advice.is_empty() {
        text.push_str(&format!("\n{}\n", style.paint(Tone::Strong, "What to do:")));
        for step in &why.advice {
            text.push_str(&format!("  {}\n", clean(step)));
        }
    }
    text
}

fn push_handshake(text: &mut String, handshake: &HandshakeReport, style: Style) {
    let when = handshake
        .seconds_ago
        .map(|seconds| format!(", last handshake {} ago", duration(seconds)))
        .unwrap_or_default();
    let _ = writeln!(
        text,
        "\n{}: {}{when}",
        style.paint(Tone::Strong, &clean(&handshake.peer)),
        clean(&handshake.state)
    );
    if !handshake.outcome.is_empty() {
        let _ = writeln!(text, "  {}", clean(&handshake.outcome));
    }
    for decision in &handshake.volumes {
        push_decision(text, decision, style);
    }
}

fn push_decision(text: &mut String, decision: &DecisionReport, style: Style) {
    let _ = writeln!(
        text,
        "  {}: {} {}",
        clean(&decision.volume),
        clean(&decision.verdict),
        style.paint(Tone::Dim, &format!("(rule {})", clean(&decision.rule)))
    );
    if !decision.because.is_empty() {
        let _ = writeln!(text, "    {}", clean(&decision.because));
    }
    for input in &decision.inputs {
        let _ = writeln!(text, "    {}", clean(input));
    }
    if !decision.tried.is_empty() {
        let line = format!("    did not apply: {}", clean(&decision.tried.join(", ")));
        let _ = writeln!(text, "{}", style.paint(Tone::Dim, &line));
    }
    for alternative in &decision.alternatives {
        let _ = writeln!(text, "    you can: {}", clean(alternative));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use blockmirror_client::admin::Role;

    #[test]
    fn golden() {
        let why = WhyReport {
            node: "alpha".to_owned(),
            resource: "db".to_owned(),
            role: Role::Secondary,
            role_because: "an operator demoted it".to_owned(),
            facts: vec!["hosts are shut out".to_owned()],
            advice: vec!["blockmirror promote db".to_owned()],
            handshakes: vec![HandshakeReport {
                peer: "bravo".to_owned(),
                seconds_ago: Some(12.0),
                state: "Connected".to_owned(),
                outcome: "bravo copies to this node".to_owned(),
                volumes: vec![DecisionReport {
                    volume: "log".to_owned(),
                    rule: "peer-has-my-past".to_owned(),
                    verdict: "target".to_owned(),
                    because: "bravo went on from what is here".to_owned(),
                    inputs: vec!["alpha: generation aa".to_owned(), "bravo: generation bb".to_owned()],
                    tried: vec!["size-mismatch".to_owned(), "fresh-both".to_owned()],
                    alternatives: vec!["connect --discard-my-data on bravo".to_owned()],
                    ..DecisionReport::default()
                }],
            }],
        };
        let golden = "\
db is Secondary on alpha: an operator demoted it
  - hosts are shut out

bravo: Connected, last handshake 12 s ago
  bravo copies to this node
  log: target (rule peer-has-my-past)
    bravo went on from what is here
    alpha: generation aa
    bravo: generation bb
    did not apply: size-mismatch, fresh-both
    you can: connect --discard-my-data on bravo

What to do:
  blockmirror promote db
";
        let text = explain(&why, Style::PLAIN);
        assert_eq!(text, golden, "\n{text}");
    }
}
