//! Atom feeds of status pages: an entry an incident.
//!
//! A feed says when an entry was published and last updated, and tells the story as text. An incident is taken to be
//! over, at its last update, when the story says so as status pages do: in a strong word of its own.

use std::path::Path;

use quick_xml::Reader;
use quick_xml::events::Event as Xml;
use serde_json::{Map, Value};

use super::ImportError;

/// Words that say that it is over.
const OVER: &[&str] = &["resolved", "completed", "postmortem"];

/// The entries as objects: `id`, `title`, `published`, `updated`, `content`, and `resolved` if it is over.
pub(super) fn entries(path: &Path, text: &str) -> Result<Vec<Value>, ImportError> {
    let fault = |line, message: String| ImportError::Malformed { file: path.to_owned(), line, message };
    let line_at = |position: u64| {
        let before = text.as_bytes().get(..usize::try_from(position).unwrap_or(usize::MAX)).unwrap_or_default();
        before.iter().filter(|byte| **byte == b'\n').count() as u64 + 1
    };
    let mut reader = Reader::from_str(text);
    let mut found = Vec::new();
    let mut entry: Option<Map<String, Value>> = None;
    let mut member: Option<(String, String)> = None;
    loop {
        let read = reader.read_event();
        let at = || Some(line_at(reader.buffer_position()));
        let read = read.map_err(|e| fault(at(), format!("no XML: {e}")))?;
        match read {
            Xml::Eof => break,
            Xml::Start(tag) => {
                let name = String::from_utf8_lossy(tag.local_name().as_ref()).into_owned();
                if name == "entry" {
                    entry = Some(Map::new());
                } else if entry.is_some() && member.is_none() {
                    member = Some((name, String::new()));
                } else if let Some((_, told)) = &mut member {
                    // Markup within content of type xhtml: kept as the others write it.
                    told.push_str(&format!("<{name}>"));
                }
            }
            Xml::Text(piece) => {
                if let Some((_, told)) = &mut member {
                    told.push_str(&piece.decode().map_err(|e| fault(at(), e.to_string()))?);
                }
            }
            Xml::GeneralRef(reference) => {
                if let Some((_, told)) = &mut member {
                    let name = reference.decode().map_err(|e| fault(at(), e.to_string()))?;
                    let resolved = reference.resolve_char_ref().map_err(|e| fault(at(), e.to_string()))?;
                    match (resolved, quick_xml::escape::resolve_predefined_entity(&name)) {
                        (Some(c), _) => told.push(c),
                        (None, Some(text)) => told.push_str(text),
                        (None, None) => told.push(' '),
                    }
                }
            }
            Xml::CData(piece) => {
                if let Some((_, told)) = &mut member {
                    told.push_str(&String::from_utf8_lossy(&piece));
                }
            }
            Xml::End(tag) => {
                let name = String::from_utf8_lossy(tag.local_name().as_ref()).into_owned();
                if name == "entry" {
                    found.extend(entry.take().map(finished));
                } else if member.as_ref().is_some_and(|(open, _)| *open == name) {
                    if let (Some(entry), Some((name, told))) = (&mut entry, member.take()) {
                        entry.entry(name).or_insert(Value::String(told));
                    }
                } else if let Some((_, told)) = &mut member {
                    told.push_str(&format!("</{name}>"));
                }
            }
            _ => {}
        }
    }
    if found.is_empty() {
        return Err(ImportError::Empty { file: path.to_owned(), hint: ": expected an Atom feed with <entry>" });
    }
    Ok(found)
}

fn finished(mut entry: Map<String, Value>) -> Value {
    let story = entry.get("content").or_else(|| entry.get("summary")).and_then(Value::as_str).unwrap_or_default();
    let story = story.to_lowercase();
    let over = OVER.iter().any(|word| story.contains(&format!("<strong>{word}</strong>")));
    if let (true, Some(updated)) = (over, entry.get("updated").cloned()) {
        entry.insert("resolved".to_owned(), updated);
    }
    Value::Object(entry)
}
