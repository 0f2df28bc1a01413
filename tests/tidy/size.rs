//! Files of at most 400 lines, functions of at most 70.

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::assert_none;
use crate::source;

const FILE_LINES: usize = 400;
const FUNCTION_LINES: usize = 70;

/// Files allowed to be longer, with the length they have. An entry may only shrink or go.
const LONGER_FILES: [(&str, usize); 0] = [];

#[test]
fn files_are_short() {
    let mut findings = Vec::new();
    for file in source::all()
        .iter()
        .filter(|f| f.is_rust() || f.path.starts_with("scripts/"))
    {
        let lines = file.text.lines().count();
        match LONGER_FILES.iter().find(|(path, _)| *path == file.path) {
            Some((_, allowed)) if lines == *allowed => {}
            Some((_, allowed)) => findings.push(format!(
                "{}: allowed {allowed} lines, has {lines}: lower the entry",
                file.path
            )),
            None if lines > FILE_LINES => findings.push(format!("{}: {lines} lines, at most {FILE_LINES}", file.path)),
            None => {}
        }
    }
    assert_none("file length", &findings);
}

#[test]
fn functions_are_short() {
    let mut findings = Vec::new();
    let mut functions = 0;
    for file in source::rust() {
        let lengths = function_lengths(&file.text).unwrap_or_else(|error| panic!("{}: {error}", file.path));
        functions += lengths.len();
        for (name, line, length) in lengths {
            if length > FUNCTION_LINES {
                findings.push(format!(
                    "{}:{line}: fn {name} has {length} lines, at most {FUNCTION_LINES}",
                    file.path
                ));
            }
        }
    }
    assert!(functions > 100, "only {functions} functions were seen");
    assert_none("function length", &findings);
}

#[test]
fn the_rule_measures_functions() {
    let long = format!(
        "impl A {{\n/// Doc.\nfn f() {{\n{}}}\n}}\nfn g() {{}}\n",
        "  g();\n".repeat(80)
    );
    assert_eq!(
        function_lengths(&long).unwrap(),
        vec![("f".to_owned(), 3, 82), ("g".to_owned(), 86, 1)]
    );
}

/// Name, first line and length of every function, attributes and doc comments not counted.
fn function_lengths(text: &str) -> syn::Result<Vec<(String, usize, usize)>> {
    let mut lengths = Lengths::default();
    lengths.visit_file(&syn::parse_file(text)?);
    Ok(lengths.found)
}

#[derive(Default)]
struct Lengths {
    found: Vec<(String, usize, usize)>,
}

impl Lengths {
    fn add(&mut self, signature: &syn::Signature, end: Span) {
        let start = signature.span().start().line;
        self.found
            .push((signature.ident.to_string(), start, end.end().line + 1 - start));
    }
}

impl<'ast> Visit<'ast> for Lengths {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.add(&item.sig, item.block.span());
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add(&item.sig, item.block.span());
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.add(&item.sig, block.span());
        }
        visit::visit_trait_item_fn(self, item);
    }
}
