//! How an event becomes a bus record: structured-mode JSON, keyed by its service, marked as CloudEvents so that
//! consumers in other languages recognise it.

use bytes::Bytes;
use rebound_schemas::{Event, ServiceId, codec};

use crate::bus::Record;

/// The record of an event, written by Rebound itself.
pub(crate) fn record_of(event: &Event) -> Record {
    structured(&event.subject, codec::encode(event).into())
}

/// The record of an event that already stands as structured-mode JSON.
pub(crate) fn structured(subject: &ServiceId, json: Bytes) -> Record {
    Record {
        key: Bytes::copy_from_slice(subject.as_str().as_bytes()),
        value: json,
        headers: vec![("content-type".to_owned(), Bytes::from_static(codec::CONTENT_TYPE.as_bytes()))],
    }
}
