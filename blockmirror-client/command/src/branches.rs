//! `blockmirror branch`: what was saved of a volume before it was overwritten.

use blockmirror_client::admin::{AdminClient, BranchReport, Order};

use crate::args::BranchCommand;
use crate::failure::{Failure, print};
use crate::human::{bytes, clean, duration};
use crate::orders;

const HEADINGS: [&str; 6] = ["BRANCH", "VOLUME", "GENERATION", "SAVED", "EXPIRES IN", "EXPORTED AS"];
/// Between two columns.
const GAP: &str = "  ";

pub async fn run(admin: &AdminClient, command: &BranchCommand, json: bool) -> Result<(), Failure> {
    match command {
        BranchCommand::List => {
            let report = admin.branches().await?;
            if json {
                let text = serde_json::to_string_pretty(&report)
                    .map_err(|error| Failure::Failed(format!("cannot write the report as JSON: {error}")))?;
                return print(&format!("{text}\n"));
            }
            print(&list(&report))
        }
        BranchCommand::Export { branch } => export(admin, branch, json).await,
        BranchCommand::Unexport { branch } => {
            let order = Order::BranchUnexport { branch: branch.clone() };
            orders::give(
                admin,
                &order,
                json,
                &format!("branch {} is served no longer", clean(branch)),
            )
            .await
        }
        BranchCommand::Expire { branch } => {
            let order = Order::BranchExpire { branch: branch.clone() };
            orders::give(admin, &order, json, &format!("branch {} is removed", clean(branch))).await
        }
    }
}

async fn export(admin: &AdminClient, branch: &str, json: bool) -> Result<(), Failure> {
    let order = Order::BranchExport {
        branch: branch.to_owned(),
    };
    let answer = match admin.order(&order).await {
        Ok(answer) => answer,
        Err(error) => return Err(orders::refused(error, &order, json)),
    };
    if json {
        return print(&format!(
            "{}\n",
            serde_json::json!({ "done": true, "export": answer.export })
        ));
    }
    let name = answer.export.unwrap_or_else(|| branch.to_owned());
    print(&format!(
        "branch {} is served read-only as export \"{}\"\n",
        clean(branch),
        clean(&name)
    ))
}

/// A table, ending in a newline.
fn list(report: &BranchReport) -> String {
    if report.branches.is_empty() {
        return "no branches: nothing was overwritten\n".to_owned();
    }
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    for branch in &report.branches {
        let expires = branch
            .expires_in_seconds
            .map_or_else(|| "never".to_owned(), |seconds| duration(seconds as f64));
        rows.push([
            clean(&branch.name).into_owned(),
            clean(&branch.volume).into_owned(),
            clean(&branch.generation).into_owned(),
            bytes(branch.saved_bytes),
            expires,
            branch.exported_as.as_deref().map_or("-".into(), clean).into_owned(),
        ]);
    }
    let widths: Vec<usize> = (0..HEADINGS.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(cells.join(GAP).trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use blockmirror_client::admin::BranchStatus;

    #[test]
    fn golden() {
        let branch = BranchStatus {
            name: "db-8f3a".to_owned(),
            volume: "db".to_owned(),
            generation: "8f3a".to_owned(),
            saved_bytes: 5 << 20,
            expires_in_seconds: Some(3 * 86_400),
            ..BranchStatus::default()
        };
        let kept = BranchStatus {
            name: "log-1".to_owned(),
            expires_in_seconds: None,
            exported_as: Some("branch:log-1".to_owned()),
            ..branch.clone()
        };
        let report = BranchReport {
            branches: vec![branch, kept],
        };
        let golden = "\
BRANCH   VOLUME  GENERATION  SAVED  EXPIRES IN  EXPORTED AS
db-8f3a  db      8f3a        5 MiB  3 d 0 h     -
log-1    db      8f3a        5 MiB  never       branch:log-1
";
        assert_eq!(list(&report), golden);
        assert!(list(&BranchReport::default()).starts_with("no branches"));
    }
}
