//! LIST_META_CONTEXT and SET_META_CONTEXT.

use alloc::string::String;
use alloc::vec::Vec;

use super::answer::put_unknown_export;
use super::{Advance, Exports, Handshake, Selected};
use crate::context::{Context, ContextQuery};
use crate::option::{OptionCode, ReplyType, put_refusal, put_reply};

impl Handshake {
    pub(super) fn answer_contexts(
        &mut self,
        option: OptionCode,
        data: &[u8],
        exports: &dyn Exports,
        output: &mut Vec<u8>,
    ) -> Advance {
        let asked = match ContextQuery::decode(data) {
            Ok(asked) => asked,
            Err((error, text)) => {
                put_refusal(output, option, error, &text);
                return Advance::On;
            }
        };
        // Outside TLS its answer is not `NBD_REP_ERR_TLS_REQD`: the protocol keeps that for INFO and GO.
        let hidden = self.hides(exports, &asked.export);
        let export = exports.find(&asked.export).filter(|_| !hidden);
        let Some(export) = export else {
            put_unknown_export(output, option, &asked.export);
            return Advance::On;
        };
        let offered = exports.contexts(&export.name);
        let contexts = match option {
            OptionCode::ListMetaContext => listed(offered, &asked.queries),
            _ => selected(offered, &asked.queries),
        };
        for context in &contexts {
            put_reply(output, option, ReplyType::MetaContext, &context.encode());
        }
        put_reply(output, option, ReplyType::Ack, &[]);
        if option == OptionCode::SetMetaContext {
            self.selected = Some(Selected {
                export: export.name,
                contexts,
            });
        }
        Advance::On
    }

    /// What was selected for this export.
    pub(super) fn contexts_of(&self, export: &str) -> &[Context] {
        match &self.selected {
            Some(selected) if selected.export == export => &selected.contexts,
            _ => &[],
        }
    }
}

/// All, or what a query names; one that ends where a leaf would begin stands for all that start with it. Numbers mean
/// nothing in a list.
fn listed(offered: Vec<String>, queries: &[String]) -> Vec<Context> {
    let names = |query: &String, name: &String| match query.ends_with([':', '/']) {
        true => name.starts_with(query.as_str()),
        false => name == query,
    };
    let is_asked = |name: &String| queries.is_empty() || queries.iter().any(|query| names(query, name));
    let asked = offered.into_iter().filter(is_asked);
    asked.map(|name| Context { id: 0, name }).collect()
}

/// What a query names whole, each once. A context has the same number however often and in which order it is asked for.
fn selected(offered: Vec<String>, queries: &[String]) -> Vec<Context> {
    let numbered = (1..).zip(offered).map(|(id, name)| Context { id, name });
    numbered.filter(|context| queries.contains(&context.name)).collect()
}
