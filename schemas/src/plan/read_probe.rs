//! Probes as the plan writes them: one key says the kind (`http = "https://…"`), the others refine it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::model::{Check, CommandCheck, DnsCheck, Exchange, GrpcCheck, HttpCheck, TcpCheck, TlsCheck};
use super::read::{Reading, set};
use super::reader::article;
use super::section::Section;
use crate::event::Outcome;

/// The keys of which a probe has exactly one.
pub(super) const KINDS: [&str; 6] = ["http", "tcp", "tls", "dns", "grpc", "command"];

/// Remaining life of a certificate that a TLS probe finds worrying.
const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 24 * 3600);
/// Record types that a DNS probe may ask for.
const RECORDS: [&str; 9] = ["A", "AAAA", "CNAME", "MX", "NS", "SOA", "SRV", "TXT", "PTR"];
/// Answer codes that a DNS probe may accept.
const RCODES: [&str; 6] = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

fn same(words: &[&'static str]) -> Vec<(&'static str, &'static str)> {
    words.iter().map(|word| (*word, *word)).collect()
}

/// The one key of `kinds` that a section has; a fault when it has none or several.
pub(super) fn one_of<'k>(section: &Section<'_>, kinds: &[&'k str], what: &str) -> Option<&'k str> {
    let written: Vec<&str> = kinds.iter().copied().filter(|kind| section.has(kind)).collect();
    match written.as_slice() {
        [kind] => Some(*kind),
        [] => {
            let remedy = format!("write one of the keys {}", kinds.join(", "));
            section.reader.fault_at(section.at, &section.path, format!("does not say what {what}"), remedy);
            None
        }
        several => {
            let message = format!("says {} at once", several.join(" and "));
            section.reader.fault_at(
                section.at,
                &section.path,
                message,
                "write one of them here, and the other in a table of its own",
            );
            None
        }
    }
}

/// An HTTP method, GET or POST by default.
pub(super) fn method(section: &Section<'_>, default: &str) -> String {
    section.word("method", &same(&METHODS)).unwrap_or(default).to_owned()
}

/// `host:port`, both written.
pub(super) fn check_address(section: &Section<'_>, key: &str, text: &str) -> bool {
    let example = format!("write {key} = \"host:port\", as in \"127.0.0.1:5432\"");
    let Some((host, port)) = text.rsplit_once(':') else {
        section.fault(key, format!("{text:?} has no port"), example);
        return false;
    };
    if !port.parse::<u16>().is_ok_and(|port| port > 0) {
        section.fault(key, format!("{port:?} is not a port"), "write a number from 1 to 65535 after the last \":\"");
        return false;
    }
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let valid = match bracketed {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains(|c: char| c == ':' || c == '/' || c == '@' || c.is_whitespace()),
    };
    if !valid {
        let remedy = "write a name or an address without a scheme; an IPv6 address in brackets, as in \"[::1]:53\"";
        section.fault(key, format!("{host:?} is not a host"), remedy);
    }
    valid
}

/// An `http://` or `https://` address.
pub(super) fn check_url(section: &Section<'_>, key: &str, text: &str) -> Option<url::Url> {
    let example = format!("write {key} = \"https://host/path\"");
    match url::Url::parse(text) {
        Err(error) => section.fault(key, format!("{text:?} is not an address: {error}"), example),
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            section.fault(key, format!("the scheme {:?} is not http or https", url.scheme()), example);
        }
        Ok(url) => return Some(url),
    }
    None
}

impl<'a> Reading<'a> {
    /// What a probe does.
    pub(super) fn check(&self, section: &Section<'a>) -> Option<Check> {
        let kind = one_of(section, &KINDS, "to probe");
        let check = match kind? {
            "http" => self.http(section).map(Check::Http),
            "tcp" => tcp(section).map(Check::Tcp),
            "tls" => self.tls(section).map(Check::Tls),
            "dns" => dns(section).map(Check::Dns),
            "grpc" => grpc(section).map(Check::Grpc),
            _ => self.command(section).map(Check::Command),
        };
        section.finish(&format!("{} probe", article(kind?)));
        check
    }

    fn http(&self, section: &Section<'a>) -> Option<HttpCheck> {
        let url = section.text("http").and_then(|text| check_url(section, "http", &text));
        let header_matches = section.text_map("header_matches").unwrap_or_default();
        for (name, text) in &header_matches {
            check_header_name(section, "header_matches", name);
            section.check_regex(&format!("header_matches.{name}"), section.place("header_matches"), text);
        }
        // The address comes last, so that every other key is read without it too.
        Some(HttpCheck {
            method: method(section, "GET"),
            headers: headers(section),
            body: section.text("body"),
            status: section.counts("status", 100, 599).unwrap_or_default(),
            follow_redirects: section.flag("follow_redirects").unwrap_or(true),
            body_matches: section.regexes("body_matches").unwrap_or_default(),
            body_not_matches: section.regexes("body_not_matches").unwrap_or_default(),
            header_matches,
            expiry_warning: section.duration("expiry_warning"),
            ca_file: self.file(section, "ca_file"),
            insecure: section.flag("insecure").unwrap_or(false),
            url: url?,
        })
    }

    fn tls(&self, section: &Section<'a>) -> Option<TlsCheck> {
        let address = section.text("tls")?;
        check_address(section, "tls", &address);
        Some(TlsCheck {
            address,
            server_name: section.words("server_name"),
            expiry_warning: Some(section.duration("expiry_warning").unwrap_or(EXPIRY_WARNING)),
            ca_file: self.file(section, "ca_file"),
            insecure: section.flag("insecure").unwrap_or(false),
        })
    }

    fn command(&self, section: &Section<'a>) -> Option<CommandCheck> {
        let argv = self.argv(section, "command");
        let mut exit_codes = BTreeMap::from([(0, Outcome::Healthy), (1, Outcome::Degraded)]);
        if let Some(written) = section.section("exit_codes") {
            exit_codes.clear();
            let mut sound = true;
            for name in written.keys() {
                let Ok(code) = name.parse::<u8>() else {
                    written.fault(&name, "is not an exit code", "write a number from 0 to 255");
                    sound = false;
                    continue;
                };
                exit_codes.extend(written.word(&name, set!(Outcome)).map(|outcome| (i32::from(code), outcome)));
            }
            if sound && exit_codes.values().all(|outcome| *outcome != Outcome::Healthy) {
                section.fault("exit_codes", "no exit code means healthy", "add 0 = \"healthy\"");
            }
        }
        Some(CommandCheck { argv: argv?, exit_codes })
    }

    /// A file's path, absolute or within the plan's folder.
    pub(super) fn file(&self, section: &Section<'a>, key: &str) -> Option<String> {
        let text = section.text(key)?;
        self.path(section.place(key), &section.key(key), &text)
    }
}

fn tcp(section: &Section<'_>) -> Option<TcpCheck> {
    let address = section.text("tcp")?;
    check_address(section, "tcp", &address);
    let mut dialogue = Vec::new();
    for turn in section.sections("dialogue") {
        let exchange = Exchange { send: turn.text("send"), expect: turn.text("expect") };
        if let Some(pattern) = &exchange.expect {
            turn.check_regex("expect", turn.place("expect"), pattern);
        }
        if !turn.has("send") && !turn.has("expect") {
            turn.reader.fault_at(
                turn.at,
                &turn.path,
                "neither sends nor expects",
                "write send = \"…\" or expect = \"…\"",
            );
        }
        turn.finish("a dialogue's turn");
        dialogue.push(exchange);
    }
    Some(TcpCheck { address, dialogue })
}

fn dns(section: &Section<'_>) -> Option<DnsCheck> {
    let name = section.words("dns");
    let record = section.word("record", &same(&RECORDS)).unwrap_or("A").to_owned();
    section.required("server", "server = \"host:port\", the server to ask");
    let server = section.text("server");
    if let Some(server) = &server {
        check_address(section, "server", server);
    }
    let mut rcode = Vec::new();
    for (at, code) in section.texts("rcode").unwrap_or_else(|| vec![(0, "NOERROR".to_owned())]) {
        if !RCODES.contains(&code.as_str()) {
            let remedy = super::reader::suggest(&code, RCODES.iter().copied());
            section.reader.fault_at(at, &section.key("rcode"), format!("{code:?} is not an answer code"), remedy);
        }
        rcode.push(code);
    }
    let answers_match = section.regexes("answers_match").unwrap_or_default();
    Some(DnsCheck { name: name?, record, server: server?, rcode, answers_match })
}

fn grpc(section: &Section<'_>) -> Option<GrpcCheck> {
    let url = section.text("grpc").and_then(|text| check_url(section, "grpc", &text));
    let service = section.text("service").unwrap_or_default();
    Some(GrpcCheck { url: url?, service })
}

/// Headers whose names and values can be sent.
pub(super) fn headers(section: &Section<'_>) -> BTreeMap<String, String> {
    let headers = section.text_map("headers").unwrap_or_default();
    for (name, value) in &headers {
        check_header_name(section, "headers", name);
        if value.chars().any(char::is_control) {
            section.fault(&format!("headers.{name}"), "its value has a control character", "write it on one line");
        }
    }
    headers
}

fn check_header_name(section: &Section<'_>, key: &str, name: &str) {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || !name.chars().all(token) {
        section.fault(&format!("{key}.{name}"), format!("{name:?} is not a header's name"), "as in \"X-Api-Version\"");
    }
}
