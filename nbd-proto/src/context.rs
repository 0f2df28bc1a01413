//! Metadata contexts in the handshake: what a client asks and what a server answers, both ways.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::constants::{MAX_CONTEXTS, MAX_STRING};
use crate::info::strict_text;
use crate::misbehaved::PeerMisbehaved;
use crate::option::{OptionError, length_of};
use crate::reader::{Reader, Truncated};

/// A metadata context that was selected: what BLOCK_STATUS answers for, under a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Its number on this connection.
    pub id: u32,
    /// Its name: a namespace, a colon, a leaf.
    pub name: String,
}

impl Context {
    /// The data of the reply that names it.
    pub fn encode(&self) -> Vec<u8> {
        let mut data = self.id.to_be_bytes().to_vec();
        data.extend_from_slice(self.name.as_bytes());
        data
    }

    /// Reads the data of such a reply.
    ///
    /// # Errors
    /// The rule that was broken.
    pub fn decode(data: &[u8]) -> Result<Self, PeerMisbehaved> {
        let mut reader = Reader::new(data);
        let length = data.len();
        let id = reader.u32().map_err(|_| PeerMisbehaved::ContextTruncated { length })?;
        let name = strict_text("metadata context", reader.rest())?;
        match name.is_empty() {
            true => Err(PeerMisbehaved::ContextTruncated { length }),
            false => Ok(Self { id, name }),
        }
    }
}

/// The data of LIST_META_CONTEXT and SET_META_CONTEXT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextQuery {
    /// The export that is meant.
    pub export: String,
    /// Names of contexts, or what a namespace makes of them: `base:` stands for all of that namespace in a list.
    pub queries: Vec<String>,
}

impl ContextQuery {
    /// The data as it goes out.
    pub fn encode(&self) -> Vec<u8> {
        let mut data = Vec::new();
        put_text(&mut data, &self.export);
        let count = u32::try_from(self.queries.len()).unwrap_or(u32::MAX);
        data.extend_from_slice(&count.to_be_bytes());
        for query in &self.queries {
            put_text(&mut data, query);
        }
        data
    }

    /// Reads the data of an option.
    ///
    /// # Errors
    /// The error of the reply, and its text.
    pub fn decode(data: &[u8]) -> Result<Self, (OptionError, String)> {
        let invalid = |text: &str| (OptionError::Invalid, text.to_owned());
        let lengths = |Truncated| invalid("the lengths inside the option do not add up to its own");
        let mut reader = Reader::new(data);
        let export = text(&mut reader).map_err(lengths)?;
        let count = reader.u32().map_err(lengths)?;
        // Each query has a length of its own: what cannot be there is refused before it is looked for.
        if u64::from(count) * 4 > reader.remaining() as u64 {
            return Err(lengths(Truncated));
        }
        let mut queries = Vec::new();
        for _ in 0..count {
            let query = text(&mut reader).map_err(lengths)?;
            if queries.len() < MAX_CONTEXTS {
                queries.push(query);
            }
        }
        if !reader.is_empty() {
            return Err(lengths(Truncated));
        }
        if count as usize > MAX_CONTEXTS {
            let text = format!("{count} queries; this server takes {MAX_CONTEXTS} at most");
            return Err((OptionError::TooBig, text));
        }
        if export.len() > MAX_STRING || queries.iter().any(|query| query.len() > MAX_STRING) {
            let text = format!("a name or query has at most {MAX_STRING} bytes");
            return Err((OptionError::TooBig, text));
        }
        let not_text = |_| invalid("a name or query is not UTF-8 text, or has a NUL");
        let export = strict_text("the export name", export).map_err(not_text)?;
        let queries = queries
            .into_iter()
            .map(|query| strict_text("a query", query).map_err(not_text))
            .collect::<Result<Vec<_>, _>>()?;
        match queries.iter().all(|query| has_namespace(query)) {
            true => Ok(Self { export, queries }),
            false => Err(invalid(
                "a query must start with a namespace and a colon, like base:allocation",
            )),
        }
    }
}

/// Whether there is something before a colon.
pub(crate) fn has_namespace(query: &str) -> bool {
    query.find(':').is_some_and(|colon| colon > 0)
}

fn put_text(data: &mut Vec<u8>, text: &str) {
    data.extend_from_slice(&length_of(text.as_bytes()).to_be_bytes());
    data.extend_from_slice(text.as_bytes());
}

fn text<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Truncated> {
    let length = usize::try_from(reader.u32()?).map_err(|_| Truncated)?;
    reader.take(length)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use alloc::vec;

    fn query(queries: &[&str]) -> ContextQuery {
        ContextQuery {
            export: "db".to_owned(),
            queries: queries.iter().map(|&query| query.to_owned()).collect(),
        }
    }

    fn refused(data: &[u8]) -> OptionError {
        ContextQuery::decode(data).unwrap_err().0
    }

    #[test]
    fn queries_survive_the_wire() {
        for queries in [&[][..], &["base:allocation"], &["base:", "x-a:b:c", "qemu:"]] {
            let asked = query(queries);
            assert_eq!(ContextQuery::decode(&asked.encode()), Ok(asked));
        }
    }

    #[test]
    fn lengths_must_add_up() {
        let good = query(&["base:allocation"]).encode();
        for end in 0..good.len() {
            assert_eq!(refused(&good[..end]), OptionError::Invalid, "{end}");
        }
        let mut long = good.clone();
        long.push(0);
        assert_eq!(refused(&long), OptionError::Invalid);
        // Four thousand million queries, of which none is there.
        assert_eq!(refused(b"\0\0\0\0\xff\xff\xff\xff"), OptionError::Invalid);
    }

    #[test]
    fn what_is_too_much_and_what_is_no_query() {
        let many = vec!["base:a"; MAX_CONTEXTS + 1];
        assert_eq!(refused(&query(&many).encode()), OptionError::TooBig);
        assert!(ContextQuery::decode(&query(&many[1..]).encode()).is_ok());
        let long = format!("x-a:{}", "b".repeat(MAX_STRING));
        assert_eq!(refused(&query(&[&long]).encode()), OptionError::TooBig);
        for query in [
            query(&["allocation"]),
            query(&[":allocation"]),
            query(&["base:\0"]),
            query(&[""]),
        ] {
            assert_eq!(refused(&query.encode()), OptionError::Invalid, "{query:?}");
        }
    }

    #[test]
    fn contexts_survive_the_wire() {
        let context = Context {
            id: u32::MAX,
            name: "base:allocation".to_owned(),
        };
        assert_eq!(Context::decode(&context.encode()), Ok(context));
        for length in [0, 3, 4] {
            let truncated = Context::decode(&[0; 9][..length]);
            assert_eq!(truncated, Err(PeerMisbehaved::ContextTruncated { length }));
        }
    }
}
