//! The JSON Schemas that `schemas/json/` holds: one a kind, for producers in other languages.

use crate::event::{EventData, Kind};

/// The JSON Schema (draft 2020-12) of a whole CloudEvent of this kind, as pretty-printed text.
#[must_use]
pub fn schema(kind: Kind) -> String {
    let mut generator = schemars::SchemaGenerator::default();
    let data = EventData::schema(kind, &mut generator);
    let id = |what: &str| serde_json::json!({ "type": "string", "minLength": 1, "maxLength": crate::ids::MAX_ID_BYTES, "description": what });
    let schema = serde_json::json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": kind.type_name(),
        "type": "object",
        "required": ["specversion", "id", "source", "type", "subject", "time", "data"],
        "properties": {
            "specversion": { "const": crate::codec::SPEC_VERSION },
            "id": id("Unique within the source; (source, id) identifies the event."),
            "source": id("Who says so."),
            "type": { "const": kind.type_name() },
            "subject": id("The service that it is about."),
            "time": { "type": "string", "format": "date-time", "description": "When it happened (RFC 3339)." },
            "planversion": id("The plan that a decision was made under."),
            "datacontenttype": { "const": "application/json" },
            "data": data,
        },
        "$defs": generator.take_definitions(true),
    });
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema is JSON");
    text.push('\n');
    text
}

/// The file name of a kind's schema within `schemas/json/`.
#[must_use]
pub fn file_name(kind: Kind) -> String {
    format!("{}.v{}.json", kind.as_str(), kind.version())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The committed files are what the types say. `REBOUND_BLESS=1 cargo test -p rebound-schemas` writes them anew.
    #[test]
    fn committed_schemas_are_up_to_date() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("json");
        let bless = std::env::var_os("REBOUND_BLESS").is_some();
        for kind in Kind::ALL {
            let path = folder.join(file_name(*kind));
            if bless {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(&path, schema(*kind)).unwrap();
            }
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(committed, schema(*kind), "{} is out of date: run with REBOUND_BLESS=1", path.display());
        }
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), Kind::ALL.len(), "a file without a kind");
    }
}
