//! DNS probes: one question to one server, over UDP and, when the answer was cut short, over TCP.
//!
//! The question goes straight to the server that the check names: no cache, no search list, no second server, since
//! that server is what is probed. Answers that don't belong to the question are passed over, as a resolver would.

use std::str::FromStr;

use hickory_resolver::proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use rebound_schemas::event::ErrorClass;
use rebound_schemas::plan::DnsCheck;
use regex::Regex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;

use super::fault::{Fault, Stage, connect};
use super::{Verdict, Wrong, wrong};

/// A compiled DNS check.
#[derive(Debug)]
pub(super) struct DnsProbe {
    query: Query,
    server: String,
    rcodes: Vec<String>,
    answers: Vec<Regex>,
}

/// What the server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DnsAnswer {
    /// As in `NOERROR`.
    pub rcode: String,
    /// Each record of the answer section: its data, and the whole record.
    pub records: Vec<(String, String)>,
}

impl DnsProbe {
    pub(super) fn new(check: &DnsCheck) -> Result<Self, Wrong> {
        let mut name = Name::from_utf8(&check.name).map_err(|e| wrong("name", e))?;
        name.set_fqdn(true);
        let kind = RecordType::from_str(&check.record.to_ascii_uppercase())
            .map_err(|e| wrong("record", format!("{:?}: {e}: expected A, AAAA, CNAME, MX…", check.record)))?;
        let answers = check.answers_match.iter().map(|text| Regex::new(text).map_err(|e| wrong("answers_match", e)));
        Ok(Self {
            query: Query::query(name, kind),
            server: check.server.clone(),
            rcodes: match check.rcode.as_slice() {
                [] => vec!["NOERROR".into()],
                list => list.iter().map(|code| code.to_ascii_uppercase()).collect(),
            },
            answers: answers.collect::<Result<_, _>>()?,
        })
    }

    pub(super) async fn ask(&self, stage: &Stage) -> Result<DnsAnswer, Fault> {
        let mut question = Message::query();
        question.metadata.recursion_desired = true;
        question.add_query(self.query.clone());
        let bytes = question.to_vec().map_err(|e| Fault::from_error(&e, ErrorClass::Configuration))?;
        let mut answer = self.ask_udp(&bytes, question.metadata.id, stage).await?;
        if answer.metadata.truncation {
            answer = self.ask_tcp(&bytes, question.metadata.id, stage).await?;
        }
        Ok(DnsAnswer {
            rcode: rcode_name(answer.metadata.response_code),
            records: answer.answers.iter().map(|r| (r.data.to_string(), r.to_string())).collect(),
        })
    }

    async fn ask_udp(&self, question: &[u8], id: u16, stage: &Stage) -> Result<Message, Fault> {
        let fault = |e: std::io::Error| {
            let Fault { class, reason } = Fault::from_error(&e, ErrorClass::Network);
            Fault::new(class, format!("can't ask {}: {reason}", self.server))
        };
        stage.enter(Stage::RESOLVING);
        let server = tokio::net::lookup_host(&self.server).await.map_err(fault)?.next();
        let server =
            server.ok_or_else(|| Fault::new(ErrorClass::Network, format!("{} resolves to no address", self.server)))?;
        let socket = UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).await.map_err(fault)?;
        // Connected, so that only this server is heard and a closed port is told.
        socket.connect(server).await.map_err(fault)?;
        socket.send(question).await.map_err(fault)?;
        stage.enter(Stage::WAITING);
        let mut buffer = vec![0; 4096];
        loop {
            let n = socket.recv(&mut buffer).await.map_err(fault)?;
            if let Some(answer) = self.own_answer(&buffer[..n], id) {
                return Ok(answer);
            }
        }
    }

    async fn ask_tcp(&self, question: &[u8], id: u16, stage: &Stage) -> Result<Message, Fault> {
        let fault = |e| Fault::from_error(&e, ErrorClass::Network);
        let mut stream = connect(&self.server, stage).await?;
        let length = u16::try_from(question.len()).expect("one question is short");
        stream.write_all(&[&length.to_be_bytes(), question].concat()).await.map_err(fault)?;
        stage.enter(Stage::WAITING);
        let length = stream.read_u16().await.map_err(fault)?;
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await.map_err(fault)?;
        self.own_answer(&answer, id)
            .ok_or_else(|| Fault::new(ErrorClass::DataIntegrity, "the answer over TCP is not one to the question"))
    }

    /// The message, if it is an answer to this question.
    fn own_answer(&self, bytes: &[u8], id: u16) -> Option<Message> {
        let answer = Message::from_vec(bytes).ok()?;
        // Servers may leave the question out of an error.
        let same = answer.queries.first().is_none_or(|q| *q == self.query);
        (answer.metadata.message_type == MessageType::Response && answer.metadata.id == id && same).then_some(answer)
    }

    pub(super) fn judge(&self, answer: &DnsAnswer) -> Verdict {
        if !self.rcodes.contains(&answer.rcode) {
            let class = match answer.rcode.as_str() {
                "SERVFAIL" => ErrorClass::Dependency,
                "REFUSED" | "NOTAUTH" => ErrorClass::Security,
                "NXDOMAIN" | "NOERROR" => ErrorClass::DataIntegrity,
                "NOTIMP" | "FORMERR" => ErrorClass::Configuration,
                _ => ErrorClass::Unknown,
            };
            return Verdict::failed(class, format!("{}, expected {}", answer.rcode, self.rcodes.join(", ")));
        }
        for pattern in &self.answers {
            let found = answer.records.iter().any(|(data, whole)| pattern.is_match(data) || pattern.is_match(whole));
            if !found {
                let got = match answer.records.as_slice() {
                    [] => "there was none".to_owned(),
                    records => records.iter().map(|(data, _)| data.as_str()).collect::<Vec<_>>().join(", "),
                };
                let reason = format!("no answer matches /{pattern}/: {got}");
                return Verdict::failed(ErrorClass::DataIntegrity, reason);
            }
        }
        Verdict::healthy()
    }
}

/// The code as RFC 6895 and the plan write it.
fn rcode_name(code: ResponseCode) -> String {
    let name = match code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::YXDomain => "YXDOMAIN",
        ResponseCode::YXRRSet => "YXRRSET",
        ResponseCode::NXRRSet => "NXRRSET",
        ResponseCode::NotAuth => "NOTAUTH",
        ResponseCode::NotZone => "NOTZONE",
        other => return format!("RCODE{}", u16::from(other)),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Duration;

    use super::super::testing::run;
    use super::*;
    use hickory_resolver::proto::rr::{RData, Record, rdata};
    use rebound_schemas::event::Outcome;
    use rebound_schemas::plan::Check;
    use tokio::net::TcpListener;

    fn check(server: &str, name: &str, record: &str) -> DnsCheck {
        DnsCheck {
            name: name.into(),
            record: record.into(),
            server: server.into(),
            rcode: vec![],
            answers_match: vec![],
        }
    }

    #[test]
    fn rcode_and_answers_decide() {
        let judge = |rcodes: &[&str], patterns: &[&str], rcode: &str, records: &[&str]| {
            let mut check = check("127.0.0.1:53", "a.example", "A");
            check.rcode = rcodes.iter().map(ToString::to_string).collect();
            check.answers_match = patterns.iter().map(ToString::to_string).collect();
            let records = records.iter().map(|d| (d.to_string(), format!("a.example. 60 IN A {d}"))).collect();
            let verdict = DnsProbe::new(&check).ok().unwrap().judge(&DnsAnswer { rcode: rcode.into(), records });
            verdict.error_class
        };
        assert_eq!(judge(&[], &[], "NOERROR", &[]), None);
        assert_eq!(judge(&[], &[], "NXDOMAIN", &[]), Some(ErrorClass::DataIntegrity));
        assert_eq!(judge(&["nxdomain"], &[], "NXDOMAIN", &[]), None);
        assert_eq!(judge(&["NXDOMAIN"], &[], "NOERROR", &[]), Some(ErrorClass::DataIntegrity));
        assert_eq!(judge(&[], &[], "SERVFAIL", &[]), Some(ErrorClass::Dependency));
        assert_eq!(judge(&[], &[], "REFUSED", &[]), Some(ErrorClass::Security));
        assert_eq!(judge(&[], &["^10\\."], "NOERROR", &["10.0.0.1"]), None);
        assert_eq!(judge(&[], &["IN A 10"], "NOERROR", &["10.0.0.1"]), None, "the whole record, as blackbox");
        assert_eq!(judge(&[], &["^10\\.", "^11\\."], "NOERROR", &["10.0.0.1", "11.0.0.1"]), None);
        assert_eq!(judge(&[], &["^10\\.", "^12\\."], "NOERROR", &["10.0.0.1"]), Some(ErrorClass::DataIntegrity));
        assert_eq!(judge(&[], &["."], "NOERROR", &[]), Some(ErrorClass::DataIntegrity));
    }

    /// Answers over UDP and TCP on one port: `a.example` has an address, `big.example` is cut short over UDP,
    /// `spoof.example` is first answered with a wrong id, anything else does not exist.
    async fn server() -> SocketAddr {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).await.unwrap();
        fn answer(question: &[u8], over_udp: bool) -> (Message, String) {
            let question = Message::from_vec(question).unwrap();
            let query = question.queries[0].clone();
            let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
            answer.add_query(query.clone());
            let name = query.name().to_utf8();
            match name.as_str() {
                "big.example." if over_udp => answer.metadata.truncation = true,
                "a.example." | "big.example." | "spoof.example." => {
                    let data = RData::A(rdata::A(Ipv4Addr::new(10, 0, 0, 1)));
                    answer.add_answer(Record::from_rdata(query.name().clone(), 60, data));
                }
                _ => answer.metadata.response_code = ResponseCode::NXDomain,
            }
            (answer, name)
        }
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((n, from)) = udp.recv_from(&mut buffer).await {
                let (answer, name) = answer(&buffer[..n], true);
                if name == "spoof.example." {
                    let mut wrong = answer.clone();
                    wrong.metadata.id = wrong.metadata.id.wrapping_add(1);
                    wrong.metadata.response_code = ResponseCode::ServFail;
                    udp.send_to(&wrong.to_vec().unwrap(), from).await.unwrap();
                }
                udp.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let n = stream.read_u16().await.unwrap();
                let mut question = vec![0; usize::from(n)];
                stream.read_exact(&mut question).await.unwrap();
                let answer = answer(&question, false).0.to_vec().unwrap();
                stream.write_u16(answer.len() as u16).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn a_real_server_is_asked() {
        let server = server().await.to_string();
        let probe = async |name: &str, patterns: &[&str]| {
            let mut check = check(&server, name, "A");
            check.answers_match = patterns.iter().map(ToString::to_string).collect();
            run(Check::Dns(check), Duration::from_secs(20)).await
        };
        for name in ["a.example", "big.example", "spoof.example"] {
            let found = probe(name, &["^10\\.0\\.0\\.1$"]).await;
            assert_eq!(found.outcome, Outcome::Healthy, "{name}: {found:?}");
        }
        let found = probe("a.example", &["^192\\."]).await;
        assert_eq!(found.reason.as_deref(), Some("no answer matches /^192\\./: 10.0.0.1"));
        let found = probe("none.example", &[]).await;
        assert_eq!((found.outcome, found.reason.as_deref()), (Outcome::Failed, Some("NXDOMAIN, expected NOERROR")));
    }

    #[tokio::test]
    async fn a_mute_server_times_out() {
        let mute = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let check = Check::Dns(check(&mute.local_addr().unwrap().to_string(), "a.example", "AAAA"));
        let found = run(check, Duration::from_millis(200)).await;
        assert_eq!((found.outcome, found.error_class), (Outcome::Failed, Some(ErrorClass::Timeout)));
        assert!(found.reason.unwrap().contains("waiting for the answer"));
    }

    #[test]
    fn a_wrong_setting_names_its_key() {
        let key = |name: &str, record: &str| DnsProbe::new(&check("127.0.0.1:53", name, record)).err().map(|w| w.key);
        assert_eq!(key("a.example", "mx"), None);
        assert_eq!(key("a.example", "Q"), Some("record"));
        assert_eq!(key(&"x".repeat(70), "A"), Some("name"));
    }
}
