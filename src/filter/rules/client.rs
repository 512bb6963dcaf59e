//! `[[client]]` of a native filter.

use serde::Deserialize;
use toml::Spanned;

use super::file::Reader;
use crate::record::{Kind, ModuleClient, refused_module};

/// See [`ModuleClient`].
#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a table of `module`, `begins` and `before`"
)]
pub(super) struct ClientPlace {
    module: Spanned<String>,
    begins: Spanned<String>,
    before: Option<Spanned<String>>,
}

/// Where a module writes the client; `None`: reported as wrong.
pub(super) fn client(
    reader: &mut Reader<'_>,
    log: Option<Kind>,
    item: &Spanned<ClientPlace>,
) -> Option<ModuleClient> {
    let place = item.get_ref();
    let before = place.before.as_ref().unwrap_or(&place.begins);
    let known = reader.problems.len();
    if log == Some(Kind::Access) {
        reader.problem(item.span(), "`[[client]]` is for the error log only");
    }
    if let Some(why) = refused_module(place.module.get_ref()) {
        reader.problem(place.module.span(), why);
    }
    let given = place.before.as_ref().map(|before| ("before", before));
    for (key, text) in [("begins", &place.begins)].into_iter().chain(given) {
        if text.get_ref().trim().is_empty() {
            reader.problem(text.span(), format!("`{key}` is empty: it fits everywhere"));
        }
    }
    if place.begins.get_ref().starts_with('[') {
        let message = "`begins` is the text behind the `[...]` that Apache writes first";
        reader.problem(place.begins.span(), message);
    }
    (reader.problems.len() == known).then(|| ModuleClient {
        module: place.module.get_ref().clone().into(),
        begins: place.begins.get_ref().clone().into(),
        before: before.get_ref().clone().into(),
    })
}
