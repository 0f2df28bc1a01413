//! One table of the configuration, read key by key; every wrong type, missing key and unknown key becomes a problem.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Problems, Span};
use super::value;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

/// A table being read.
pub(super) struct Section<'a> {
    table: &'a DeTable<'a>,
    span: Span,
    /// What it is, for messages: "a volume", "the limits".
    what: &'static str,
    problems: &'a Problems,
}

impl<'a> Section<'a> {
    /// Start reading `table`, whose keys can only be `keys`.
    pub(super) fn new(
        table: &'a DeTable<'a>,
        span: Span,
        what: &'static str,
        keys: &[&str],
        problems: &'a Problems,
    ) -> Self {
        for key in table.keys() {
            let name: &str = key.get_ref();
            if !keys.contains(&name) {
                problems.add(
                    key.span(),
                    format!("unknown key `{name}` in {what}"),
                    unknown_key_remedy(name, keys),
                );
            }
        }
        Self {
            table,
            span,
            what,
            problems,
        }
    }

    /// Where the section stands.
    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Where mistakes go.
    pub(super) fn problems(&self) -> &'a Problems {
        self.problems
    }

    /// Where `key` stands, when it is there.
    pub(super) fn key_span(&self, key: &str) -> Option<Span> {
        self.table.keys().find(|name| name.get_ref() == key).map(Spanned::span)
    }

    /// Note that `key` cannot be used here, when it is there. `why` is a whole message.
    pub(super) fn forbid(&self, key: &str, why: &str, remedy: &str) {
        if let Some(span) = self.key_span(key) {
            self.problems.add(span, why, remedy);
        }
    }

    pub(super) fn text(&self, key: &str) -> Option<Located<String>> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some(Located {
                value: text.clone().into_owned(),
                span: value.span(),
            }),
            other => self.wrong_type(key, value.span(), other, "text in double quotes"),
        }
    }

    /// A text that must be there; `example` is shown when it is not.
    pub(super) fn required_text(&self, key: &str, example: &str) -> Option<Located<String>> {
        if self.value(key).is_none() {
            self.missing(key, example);
            return None;
        }
        self.text(key)
    }

    pub(super) fn boolean(&self, key: &str) -> Option<bool> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::Boolean(flag) => Some(*flag),
            other => self.wrong_type(key, value.span(), other, "true or false, without quotes"),
        }
    }

    /// A whole number within `range`.
    pub(super) fn count(&self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let value = self.value(key)?;
        let DeValue::Integer(number) = value.get_ref() else {
            return self.wrong_type(key, value.span(), value.get_ref(), "a whole number");
        };
        match u64::from_str_radix(number.as_str(), number.radix()) {
            Ok(count) if range.contains(&count) => Some(count),
            _ => {
                let remedy = format!("choose a number from {} to {}", range.start(), range.end());
                let message = format!("`{key}` = {number} is out of range");
                self.problems.add(value.span(), message, remedy);
                None
            }
        }
    }

    /// A size in bytes within `range`: a whole number, or text such as "10GiB".
    pub(super) fn size(&self, key: &str, range: RangeInclusive<u64>) -> Option<Located<u64>> {
        let value = self.value(key)?;
        let span = value.span();
        let parsed = match value.get_ref() {
            DeValue::String(text) => blockmirror_client::size::parse(text),
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix())
                .map_err(|_| format!("`{number}` is not a size in bytes")),
            other => return self.wrong_type(key, span, other, "a size such as \"10GiB\""),
        };
        let outcome = parsed.and_then(|size| {
            if range.contains(&size) {
                return Ok(size);
            }
            let (low, high) = (value::show_size(*range.start()), value::show_size(*range.end()));
            Err(format!("{} is not from {low} to {high}", value::show_size(size)))
        });
        self.noted(key, span, outcome, "write a size such as \"64MiB\" or \"10GiB\"")
    }

    /// A duration within `range`, as text such as "10s".
    pub(super) fn duration(&self, key: &str, range: RangeInclusive<Duration>) -> Option<Located<Duration>> {
        let value = self.value(key)?;
        let span = value.span();
        let DeValue::String(text) = value.get_ref() else {
            return self.wrong_type(key, span, value.get_ref(), "a duration such as \"10s\"");
        };
        let outcome = value::parse_duration(text).and_then(|duration| {
            if range.contains(&duration) {
                return Ok(duration);
            }
            Err(format!(
                "\"{text}\" is not from {:?} to {:?}",
                range.start(),
                range.end()
            ))
        });
        self.noted(
            key,
            span,
            outcome,
            "write a duration such as \"500ms\", \"10s\" or \"2m\"",
        )
    }

    /// One of the named choices.
    pub(super) fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Option<Located<T>> {
        let text = self.text(key)?;
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text.value) {
            return Some(Located {
                value: *value,
                span: text.span,
            });
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let listed: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        let remedy = match value::nearest(&text.value, &names) {
            Some(near) => format!("did you mean \"{near}\"? It can be {}", listed.join(", ")),
            None => format!("it can be {}", listed.join(", ")),
        };
        self.problems
            .add(text.span, format!("`{key}` cannot be \"{}\"", text.value), remedy);
        None
    }

    /// An absolute path.
    pub(super) fn path(&self, key: &str) -> Option<Located<PathBuf>> {
        let text = self.text(key)?;
        let path = PathBuf::from(&text.value);
        if path.is_absolute() && !text.value.contains('\0') {
            return Some(Located {
                value: path,
                span: text.span,
            });
        }
        self.problems.add(
            text.span,
            format!("`{key}` is not an absolute path: \"{}\"", text.value),
            "write the whole path, from /: a daemon has no useful working directory",
        );
        None
    }

    /// Whether `key` is there as a list with nothing in it.
    pub(super) fn is_empty_list(&self, key: &str) -> bool {
        matches!(self.value(key).map(Spanned::get_ref), Some(DeValue::Array(items)) if items.is_empty())
    }

    /// A list of texts.
    pub(super) fn texts(&self, key: &str) -> Vec<Located<String>> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let DeValue::Array(items) = value.get_ref() else {
            let _: Option<()> =
                self.wrong_type(key, value.span(), value.get_ref(), "a list of texts in square brackets");
            return Vec::new();
        };
        let read = |item: &Spanned<DeValue<'a>>| match item.get_ref() {
            DeValue::String(text) => Some(Located {
                value: text.clone().into_owned(),
                span: item.span(),
            }),
            other => self.wrong_type(key, item.span(), other, "a list of texts"),
        };
        items.iter().filter_map(read).collect()
    }

    /// The table `[key]`, with its span.
    pub(super) fn table(&self, key: &str) -> Option<(&'a DeTable<'a>, Span)> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some((table, value.span())),
            other => self.wrong_type(key, value.span(), other, "a table: start it with [name]"),
        }
    }

    /// The tables `[[key]]`, with their spans.
    pub(super) fn tables(&self, key: &str) -> Vec<(&'a DeTable<'a>, Span)> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let wanted = "a list of tables: start each one with double square brackets";
        let DeValue::Array(items) = value.get_ref() else {
            let _: Option<()> = self.wrong_type(key, value.span(), value.get_ref(), wanted);
            return Vec::new();
        };
        let read = |item: &'a Spanned<DeValue<'a>>| match item.get_ref() {
            DeValue::Table(table) => Some((table, item.span())),
            other => self.wrong_type(key, item.span(), other, wanted),
        };
        items.iter().filter_map(read).collect()
    }

    /// Note that a required key is not there.
    pub(super) fn missing(&self, key: &str, example: &str) {
        self.problems.add(
            self.span(),
            format!("{} has no `{key}`", self.what),
            format!("add: {example}"),
        );
    }

    fn value(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table.get(key)
    }

    fn wrong_type<T>(&self, key: &str, span: Span, got: &DeValue<'_>, wanted: &str) -> Option<T> {
        self.problems.add(
            span,
            format!("`{key}` in {} cannot be {}", self.what, type_name(got)),
            format!("it has to be {wanted}"),
        );
        None
    }

    fn noted<T>(&self, key: &str, span: Span, outcome: Result<T, String>, remedy: &str) -> Option<Located<T>> {
        match outcome {
            Ok(value) => Some(Located { value, span }),
            Err(why) => {
                self.problems.add(span, format!("`{key}`: {why}"), remedy);
                None
            }
        }
    }
}

fn unknown_key_remedy(name: &str, keys: &[&str]) -> String {
    match value::nearest(name, keys) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("remove it; known keys here: {}", keys.join(", ")),
    }
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
