//! What production code may not contain: panicking shortcuts, and `unsafe` outside the ring.

use syn::visit::{self, Visit};

use crate::assert_none;
use crate::source;

/// The only place where `unsafe` is permitted.
const UNSAFE_HOME: &str = "blockmirror-server/src/ring/";

#[test]
fn production_code_does_not_unwrap() {
    let mut findings = Vec::new();
    for file in source::rust().iter().filter(|f| !f.is_test_code()) {
        findings.extend(
            shortcuts(&file.text)
                .into_iter()
                .map(|found| format!("{}:{found}", file.path)),
        );
    }
    assert_none("panicking shortcut outside tests", &findings);
}

#[test]
fn unsafe_lives_in_the_ring_only() {
    let mut findings = Vec::new();
    for file in source::rust().iter().filter(|f| !f.path.starts_with(UNSAFE_HOME)) {
        findings.extend(
            unsafe_lines(&file.text)
                .into_iter()
                .map(|line| format!("{}:{line}", file.path)),
        );
    }
    assert_none("unsafe outside the ring module", &findings);
}

#[test]
fn the_rules_find_what_they_ban() {
    let bad =
        "fn f() { a.unwrap(); b.expect(\"x\"); panic!(); todo!(); }\n#[cfg(test)] mod tests { fn g() { a.unwrap(); } }";
    let found = shortcuts(bad);
    assert_eq!(found.len(), 4, "{found:?}");
    assert_eq!(
        shortcuts("fn f() { a.unwrap_or(1); assert!(true); } #[test] fn t() { a.unwrap() }"),
        Vec::<String>::new()
    );
    assert_eq!(
        unsafe_lines("fn f() {\n  unsafe { g() }\n}\n// unsafe in words\n"),
        vec![2]
    );
}

/// Lines with a call that panics instead of returning an error, test items left out.
fn shortcuts(text: &str) -> Vec<String> {
    let file = syn::parse_file(text).expect("the tree compiles");
    let inner_test = file.attrs.iter().any(is_test_attribute);
    let mut visitor = Shortcuts::default();
    if !inner_test {
        visitor.visit_file(&file);
    }
    visitor.found
}

#[derive(Default)]
struct Shortcuts {
    found: Vec<String>,
}

impl<'ast> Visit<'ast> for Shortcuts {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !attributes.iter().any(is_test_attribute) {
            visit::visit_item(self, item);
        }
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let name = call.method.to_string();
        if ["unwrap", "expect", "unwrap_err", "expect_err", "unwrap_unchecked"].contains(&name.as_str()) {
            self.found
                .push(format!("{}: .{name}()", call.method.span().start().line));
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, used: &'ast syn::Macro) {
        if let Some(last) = used.path.segments.last() {
            let name = last.ident.to_string();
            if ["panic", "todo", "unimplemented", "dbg"].contains(&name.as_str()) {
                self.found.push(format!("{}: {name}!", last.ident.span().start().line));
            }
        }
        visit::visit_macro(self, used);
    }
}

fn is_test_attribute(attribute: &syn::Attribute) -> bool {
    if attribute.path().is_ident("test") {
        return true;
    }
    let mut found = false;
    if attribute.path().is_ident("cfg")
        && let syn::Meta::List(list) = &attribute.meta
    {
        found = list.tokens.to_string() == "test";
    }
    found
}

/// Lines with the keyword, comments and strings left out.
fn unsafe_lines(text: &str) -> Vec<usize> {
    fn scan(tokens: proc_macro2::TokenStream, lines: &mut Vec<usize>) {
        for token in tokens {
            match token {
                proc_macro2::TokenTree::Group(group) => scan(group.stream(), lines),
                proc_macro2::TokenTree::Ident(ident) if ident == "unsafe" => lines.push(ident.span().start().line),
                _ => {}
            }
        }
    }
    let mut lines = Vec::new();
    scan(text.parse().expect("the tree compiles"), &mut lines);
    lines
}
