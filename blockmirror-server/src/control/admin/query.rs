//! The part of a request behind the question mark.

use axum::http::StatusCode;
use percent_encoding::percent_decode_str;

use super::Refused;

/// Keys and values, decoded.
pub(super) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// `known`: the keys this request has; any other is refused.
    pub(super) fn parse(raw: Option<&str>, known: &[&str]) -> Result<Self, Refused> {
        let raw = raw.unwrap_or_default();
        let mut pairs: Vec<(String, String)> = Vec::new();
        for part in raw.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            if !known.contains(&key) {
                let keys = match known {
                    [] => "it takes none".to_owned(),
                    known => format!("it takes {}", known.join(", ")),
                };
                return Err(bad(format!("?{part} means nothing to this request: {keys}")));
            }
            let value = percent_decode_str(value)
                .decode_utf8()
                .map_err(|_| bad(format!("the value of ?{key} is not text")))?;
            if pairs.iter().any(|(seen, _)| seen == key) {
                return Err(bad(format!("?{key} is given twice")));
            }
            pairs.push((key.to_owned(), value.into_owned()));
        }
        Ok(Self { pairs })
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        let found = self.pairs.iter().find(|(name, _)| name == key)?;
        Some(&found.1)
    }

    pub(super) fn flag(&self, key: &str) -> Result<bool, Refused> {
        match self.text(key) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(bad(format!(
                "?{key}={other} means nothing: write ?{key}=true, or nothing"
            ))),
        }
    }

    /// A number of bytes that must be there.
    pub(super) fn bytes(&self, key: &str) -> Result<u64, Refused> {
        let text = self.text(key).ok_or_else(|| bad(format!("?{key}=BYTES is missing")))?;
        blockmirror_client::size::parse(text).map_err(|why| bad(format!("?{key}: {why}")))
    }
}

fn bad(text: String) -> Refused {
    Refused::new(StatusCode::BAD_REQUEST, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal<T>(outcome: Result<T, Refused>) -> String {
        outcome.err().map(|refused| refused.body.error).unwrap_or_default()
    }

    #[test]
    fn keys_and_values() {
        let Ok(query) = Query::parse(Some("force=true&accept=a%2Db%20c"), &["force", "accept", "peer"]) else {
            panic!("it is right");
        };
        assert!(query.flag("force").is_ok_and(|force| force));
        assert!(query.flag("peer").is_ok_and(|flag| !flag));
        assert_eq!((query.text("accept"), query.text("peer")), (Some("a-b c"), None));
        assert!(refusal(query.flag("accept")).contains("write ?accept=true"));
        assert!(refusal(query.bytes("peer")).contains("?peer=BYTES is missing"));
        assert!(Query::parse(None, &[]).is_ok() && Query::parse(Some(""), &[]).is_ok());
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for (raw, words) in [
            ("full=true", "it takes force, peer"),
            ("force=true&force=true", "is given twice"),
            ("peer=%FF", "is not text"),
            ("nonsense", "?nonsense means nothing"),
        ] {
            let text = refusal(Query::parse(Some(raw), &["force", "peer"]));
            assert!(text.contains(words), "{raw}: {text}");
        }
    }
}
