//! Rows that did not go in, with why: in the file's own form, so that they can be mended and imported again.

use std::io::Write;

use serde_json::{Map, Value};

use super::source::{Line, Row};

const LINE: &str = "rejected_line";
const REASON: &str = "rejected_reason";

/// Writes rejected rows: as CSV with the columns `rejected_line` and `rejected_reason` behind the row's own, or one
/// JSON object a line with these two members beside its own.
pub struct Rejects<W: Write> {
    out: Out<W>,
    width: usize,
}

enum Out<W: Write> {
    Csv(Box<csv::Writer<W>>),
    Json(W),
}

impl<W: Write> std::fmt::Debug for Rejects<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rejects").finish_non_exhaustive()
    }
}

impl<W: Write> Rejects<W> {
    /// For a file with this header, or with none.
    ///
    /// # Errors
    /// The header can't be written.
    pub fn new(out: W, header: Option<&[String]>) -> std::io::Result<Self> {
        let Some(header) = header else { return Ok(Self { out: Out::Json(out), width: 0 }) };
        let mut out = csv::WriterBuilder::new().flexible(true).from_writer(out);
        // A file of rejects that is imported again has these columns already.
        let names = header.iter().map(String::as_str).filter(|name| ![LINE, REASON].contains(name));
        out.write_record(names.chain([LINE, REASON])).map_err(std::io::Error::other)?;
        Ok(Self { out: Out::Csv(Box::new(out)), width: header.len() })
    }

    /// Writes one.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write(&mut self, line: &Line, reason: &str) -> std::io::Result<()> {
        match &mut self.out {
            Out::Csv(out) => {
                let number = line.number.to_string();
                let kept: Vec<&str> = match &line.row {
                    Ok(Row::Cells { header, cells }) => {
                        let named = header.names.iter().zip(cells);
                        named
                            .filter(|(name, _)| ![LINE, REASON].contains(&name.as_str()))
                            .map(|(_, cell)| cell)
                            .collect()
                    }
                    // What could not be told apart stands in the first column.
                    _ => {
                        let raw = line.raw.as_deref().unwrap_or_default();
                        std::iter::once(raw).chain(std::iter::repeat_n("", self.width.saturating_sub(1))).collect()
                    }
                };
                out.write_record(kept.into_iter().chain([number.as_str(), reason])).map_err(std::io::Error::other)
            }
            Out::Json(out) => {
                let mut object = match &line.row {
                    Ok(Row::Object(Value::Object(members))) => members.clone(),
                    _ => Map::from_iter([("raw".to_owned(), line.raw.clone().into())]),
                };
                object.insert(LINE.to_owned(), line.number.into());
                object.insert(REASON.to_owned(), reason.into());
                serde_json::to_writer(&mut *out, &object)?;
                out.write_all(b"\n")
            }
        }
    }

    /// Ends the file.
    ///
    /// # Errors
    /// What is left can't be written.
    pub fn finish(&mut self) -> std::io::Result<()> {
        match &mut self.out {
            Out::Csv(out) => out.flush(),
            Out::Json(out) => out.flush(),
        }
    }
}
