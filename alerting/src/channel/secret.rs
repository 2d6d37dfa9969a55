//! Secrets: read once from where the plan says they are, never shown again.

use std::fmt;
use std::io::Read;

use rebound_schemas::plan::SecretRef;

/// Longest secret read from a file, in bytes.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Shorter texts are not searched for in messages: they would be found everywhere.
const MIN_REDACTED_BYTES: usize = 4;

/// A text that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Secret {
    /// Reads the secret; the error says where it should have been.
    pub fn load(reference: &SecretRef) -> Result<Self, String> {
        let text = match reference {
            SecretRef::Plain(text) => text.clone(),
            SecretRef::Env(name) => std::env::var(name).map_err(|error| match error {
                std::env::VarError::NotPresent => format!("the environment variable {name} is not set"),
                std::env::VarError::NotUnicode(_) => format!("the environment variable {name} is not UTF-8"),
            })?,
            SecretRef::File(path) => {
                let mut text = String::new();
                let file = std::fs::File::open(path).map_err(|e| format!("the file {path} can't be read: {e}"))?;
                let read = file.take(MAX_SECRET_BYTES + 1).read_to_string(&mut text);
                read.map_err(|e| format!("the file {path} can't be read: {e}"))?;
                if text.len() as u64 > MAX_SECRET_BYTES {
                    return Err(format!("the file {path} is larger than the {MAX_SECRET_BYTES} bytes of a secret"));
                }
                let line = text.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text));
                line.map(str::to_owned).unwrap_or(text)
            }
        };
        match (text.is_empty(), reference) {
            (false, _) => Ok(Self(text)),
            (true, SecretRef::Plain(_)) => Err("it is empty".into()),
            (true, SecretRef::Env(name)) => Err(format!("the environment variable {name} is empty")),
            (true, SecretRef::File(path)) => Err(format!("the file {path} is empty")),
        }
    }

    /// The secret itself, for the one use it is meant for.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Takes secrets out of messages that others wrote: servers like to repeat what they were asked.
#[derive(Default)]
pub(crate) struct Redactor {
    secrets: Vec<String>,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} secrets)", self.secrets.len())
    }
}

impl Redactor {
    /// Also this text is a secret.
    pub(crate) fn add(&mut self, text: &str) {
        if text.len() >= MIN_REDACTED_BYTES {
            self.secrets.push(text.to_owned());
            // The longest first, so that no part of one is left behind by another.
            self.secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        }
    }

    /// Also an address, and what in it could be a key: its path and long parts of that, its query, its password.
    pub(crate) fn add_url(&mut self, url: &url::Url) {
        self.add(url.as_str());
        if url.path().len() > 8 {
            self.add(url.path());
        }
        url.path_segments().into_iter().flatten().filter(|part| part.len() >= 8).for_each(|part| self.add(part));
        url.query().into_iter().for_each(|query| self.add(query));
        url.query_pairs().filter(|(_, value)| value.len() >= 8).for_each(|(_, value)| self.add(&value));
        url.password().into_iter().for_each(|password| self.add(password));
    }

    /// The text without any of the secrets.
    pub(crate) fn redact(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "[redacted]"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_from_where_they_are_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            SecretRef::File(path.display().to_string())
        };
        let load = |reference: SecretRef| Secret::load(&reference).map(|secret| secret.expose().to_owned());
        assert_eq!(load(file("a", "hunter2\n")).unwrap(), "hunter2");
        assert_eq!(load(file("b", "hunter2\r\n")).unwrap(), "hunter2");
        assert_eq!(load(file("c", " hunter2\n\n")).unwrap(), " hunter2\n");
        assert_eq!(load(SecretRef::Plain("x".into())).unwrap(), "x");
        // Cargo sets this one for tests.
        let name = "CARGO_PKG_NAME";
        assert_eq!(load(SecretRef::Env(name.into())).unwrap(), "rebound-alerting");

        assert!(load(file("d", "\n")).unwrap_err().ends_with("is empty"));
        assert!(load(file("e", &"x".repeat(70_000))).unwrap_err().contains("larger"));
        assert!(load(SecretRef::File("/none/there".into())).unwrap_err().starts_with("the file /none/there can't"));
        let error = load(SecretRef::Env("REBOUND_TEST_NOT_SET".into())).unwrap_err();
        assert_eq!(error, "the environment variable REBOUND_TEST_NOT_SET is not set");
        assert_eq!(format!("{:?}", Secret::load(&SecretRef::Plain("hunter2".into()))), "Ok([redacted])");
    }

    #[test]
    fn messages_lose_every_part_of_an_address_that_could_be_a_key() {
        let mut redactor = Redactor::default();
        let url = "https://me:pass-word@hooks.example.com/services/T0/B0/abcdefghijk?token=secret-token&a=b";
        redactor.add_url(&url::Url::parse(url).unwrap());
        redactor.add("key");
        for (text, want) in [
            (url, "[redacted]"),
            ("no abcdefghijk here", "no [redacted] here"),
            ("bad secret-token, pass-word", "bad [redacted], [redacted]"),
            ("key is too short to be looked for", "key is too short to be looked for"),
        ] {
            assert_eq!(redactor.redact(text), want);
        }
        assert_eq!(format!("{redactor:?}"), "Redactor(7 secrets)");
    }
}
