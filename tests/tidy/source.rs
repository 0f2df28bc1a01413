//! The files of the tree, read once each.

use std::fs;
use std::path::{Path, PathBuf};

/// A text file of the project.
pub struct Source {
    /// Path from the root of the tree, with `/`.
    pub path: String,
    /// Its text.
    pub text: String,
}

impl Source {
    /// Tests and test support may unwrap; everything else may not.
    pub fn is_test_code(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or("");
        self.path.starts_with("tests/")
            || self.path.starts_with("benches/")
            || self.path.contains("/tests/")
            || self.path.contains("/fuzz/")
            || self.path.contains("/examples/")
            || name == "tests.rs"
            || name.ends_with("_tests.rs")
    }

    /// Rust source.
    pub fn is_rust(&self) -> bool {
        Path::new(&self.path).extension().is_some_and(|e| e == "rs")
    }
}

/// The root of the tree.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the tree")
        .to_path_buf()
}

/// Every text file of the tree, without what git ignores.
pub fn all() -> Vec<Source> {
    let root = root();
    let mut found = Vec::new();
    walk(&root, &root, &mut found);
    assert!(found.len() > 40, "the walk found only {} files", found.len());
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Every Rust file.
pub fn rust() -> Vec<Source> {
    all().into_iter().filter(Source::is_rust).collect()
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<Source>) {
    const SKIPPED: [&str; 6] = [
        "target",
        ".git",
        "corpus",
        "artifacts",
        "node_modules",
        "proptest-regressions",
    ];
    for entry in fs::read_dir(folder).expect("folder is readable") {
        let entry = entry.expect("entry is readable");
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            if !SKIPPED.contains(&name.as_str()) {
                walk(root, &path, found);
            }
        } else if !["Cargo.lock", ".git"].contains(&name.as_str())
            && let Ok(text) = fs::read_to_string(&path)
        {
            let path = path
                .strip_prefix(root)
                .expect("below the root")
                .to_string_lossy()
                .into_owned();
            found.push(Source { path, text });
        }
    }
}
