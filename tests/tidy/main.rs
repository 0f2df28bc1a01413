//! The tree kept small and in one vocabulary: every rule is a ratchet, an exception may only shrink.
//!
//! Each rule is a pure function from text to findings, shown to find something on a bad sample before it is
//! believed to find nothing in the tree.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod promises;
mod protocol;
mod purity;
mod rust_rules;
mod scenarios;
mod size;
mod source;
mod text_rules;
mod vocabulary;

/// Fails with every finding at once, so that one run shows all there is to mend.
fn assert_none(rule: &str, findings: &[String]) {
    assert!(
        findings.is_empty(),
        "{rule}: {} finding(s)\n  {}",
        findings.len(),
        findings.join("\n  ")
    );
}
