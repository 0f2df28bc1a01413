//! One word for one thing: the glossary's "not" column is banned from identifiers and comments.

use crate::assert_none;
use crate::source::{self, Source};

/// A banned word, what to say instead, and where it is another body's term.
struct Banned {
    word: &'static str,
    say: &'static str,
    /// Only checked in these folders; everywhere when empty.
    only: &'static [&'static str],
    /// Folders or files where the word is the protocol's or the platform's own.
    except: &'static [&'static str],
    /// Names of the standard library and of foreign tools that contain it.
    names: &'static [&'static str],
}

const BANNED: [Banned; 13] = [
    anywhere("master", "Primary"),
    anywhere("slave", "Secondary"),
    anywhere("whitelist", "allow list"),
    anywhere("blacklist", "deny list"),
    anywhere("rebuild", "resync"),
    anywhere("scrub", "verify"),
    anywhere("outstanding", "in-flight"),
    Banned {
        word: "pending",
        say: "in-flight, waiting or queued",
        only: &[],
        except: &[],
        names: &["Poll::Pending", "future::pending", "pending()", "IsPending"],
    },
    Banned {
        word: "chunk",
        say: "extent or block",
        only: &["mirror-core/", "blockmirror-server/", "tests/sim/"],
        except: &[
            "blockmirror-server/src/data/",
            "blockmirror-server/src/control/",
            "blockmirror-server/src/export/",
        ],
        names: &[
            "chunks(",
            "chunks_exact(",
            "chunks_mut(",
            "chunks_exact_mut(",
            "as_chunks",
            "array_chunks",
            "first_chunk",
            "split_first_chunk",
            "last_chunk",
        ],
    },
    core("journal", "activity log"),
    core("leader", "Primary"),
    core("child", "leg or peer"),
    core("replica", "peer or leg"),
];

const fn anywhere(word: &'static str, say: &'static str) -> Banned {
    Banned {
        word,
        say,
        only: &[],
        except: &[],
        names: &[],
    }
}

const fn core(word: &'static str, say: &'static str) -> Banned {
    Banned {
        word,
        say,
        only: &["mirror-core/"],
        except: &[],
        names: &[],
    }
}

#[test]
fn one_word_for_one_thing() {
    let mut findings = Vec::new();
    // The glossary and this file name the banned words in order to ban them; the licence is not ours to reword.
    let named = ["docs/GLOSSARY.md", "tests/tidy/vocabulary.rs", "LICENSE-APACHE"];
    for file in source::all().iter().filter(|f| !named.contains(&f.path.as_str())) {
        findings.extend(synonyms(file));
    }
    assert_none("vocabulary", &findings);
}

#[test]
fn the_rule_finds_synonyms() {
    let found = |path: &str, text: &str| {
        synonyms(&Source {
            path: path.into(),
            text: text.into(),
        })
        .len()
    };
    assert_eq!(
        found(
            "mirror-core/src/a.rs",
            "struct PendingWrite; // two chunks\nfn a() { x.chunks(3) }\n"
        ),
        2
    );
    assert_eq!(found("nbd-proto/src/a.rs", "// an error chunk\n"), 0);
    assert_eq!(found("raid1-glue/src/lib.rs", "Poll::Pending\nlet is_master = 1;\n"), 1);
    assert_eq!(found("a.rs", "let spending = 1; // mastery\n"), 0);
}

fn synonyms(file: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    let in_any = |folders: &[&str]| folders.iter().any(|folder| file.path.starts_with(folder));
    for banned in &BANNED {
        if in_any(banned.except) || (!banned.only.is_empty() && !in_any(banned.only)) {
            continue;
        }
        for (index, line) in file.text.lines().enumerate() {
            let line = banned
                .names
                .iter()
                .fold(line.to_owned(), |line, name| line.replace(name, ""));
            if words(&line).any(|word| word == banned.word || word.strip_suffix('s') == Some(banned.word)) {
                findings.push(format!(
                    "{}:{}: \"{}\": say {}",
                    file.path,
                    index + 1,
                    banned.word,
                    banned.say
                ));
            }
        }
    }
    findings
}

/// The words of a line in lower case, `snake_case` and `CamelCase` taken apart.
fn words(line: &str) -> impl Iterator<Item = String> {
    let mut words = vec![String::new()];
    let mut before_was_lower = false;
    for c in line.chars() {
        if !c.is_ascii_alphabetic() || (c.is_ascii_uppercase() && before_was_lower) {
            words.push(String::new());
        }
        if c.is_ascii_alphabetic() {
            words.last_mut().expect("never empty").push(c.to_ascii_lowercase());
        }
        before_was_lower = c.is_ascii_lowercase();
    }
    words.into_iter().filter(|word| !word.is_empty())
}
