//! An HTTP client that can't be talked into reaching what it should not: for webhooks and for procedures' requests.
//!
//! Addresses are judged where they are used: the client's resolver hands on only addresses that passed, and those
//! are the ones connected to, so a name that answers differently a moment later gains nothing. Redirects are not
//! followed and proxies from the environment not used, since either would connect to an address nobody judged.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Why an address is not connected to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// Not an address at all.
    #[error("the address is not a URL: {0}")]
    NotUrl(url::ParseError),
    /// Neither http nor https.
    #[error("the address begins with {0}:, but only http: and https: are used")]
    Scheme(String),
    /// A private, loopback, link-local or otherwise special address.
    #[error("{0} is {1}, which is refused unless allow_private = true is set")]
    Refused(IpAddr, &'static str),
    /// A name whose every address is refused.
    #[error("the host's name leads to {0}, which is {1} and refused unless allow_private = true is set")]
    NameRefused(IpAddr, &'static str),
    /// A name without any address.
    #[error("the host's name has no address")]
    NoAddress,
    /// The client could not be made, for want of usable root certificates for instance.
    #[error("the HTTP client can't be made: {0}")]
    Client(String),
}

/// What makes an address special; `None` for one that is reachable from everywhere.
///
/// IPv6 addresses that carry an IPv4 address (mapped, compatible, NAT64, 6to4) are judged by it too.
#[must_use]
pub fn special(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => special_v6(address),
    }
}

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = address.octets();
    Some(match (a, b, c) {
        (0, _, _) => "an address of this network",
        (127, _, _) => "a loopback address",
        (10, _, _) | (172, 16..=31, _) | (192, 168, _) => "a private address",
        (169, 254, _) => "a link-local address, where clouds keep metadata",
        (100, 64..=127, _) => "an address behind a carrier's NAT",
        // Azure's wire server: public by its number, the machine's own by its effect.
        (168, 63, 129) if address == Ipv4Addr::new(168, 63, 129, 16) => "a cloud's metadata address",
        (192, 0, 0) | (198, 18..=19, _) | (192, 0, 2) | (198, 51, 100) | (203, 0, 113) => "a reserved address",
        (224..=239, _, _) => "a multicast address",
        (240..=255, _, _) => "a reserved or broadcast address",
        _ => return None,
    })
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    let segments = address.segments();
    let inner = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        special_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("the unspecified address"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("a loopback address"),
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => inner(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => inner(high, low),
        [0x64, 0xff9b, 1, ..] => Some("a private address"),
        [0x2002, high, low, ..] => inner(high, low),
        [0x2001, 0, ..] => Some("a tunnel's address"),
        [0x2001, 0xdb8, ..] | [0x100, 0, 0, 0, ..] => Some("a reserved address"),
        [first, ..] if first & 0xfe00 == 0xfc00 => Some("a private address"),
        [first, ..] if first & 0xffc0 == 0xfe80 => Some("a link-local address"),
        [first, ..] if first & 0xffc0 == 0xfec0 => Some("a private address"),
        [first, ..] if first & 0xff00 == 0xff00 => Some("a multicast address"),
        _ => None,
    }
}

/// Of the addresses that a name has, those that may be connected to; the first refused one if there are none.
fn permitted(addresses: Vec<SocketAddr>, allow_private: bool) -> Result<Vec<SocketAddr>, GuardError> {
    if allow_private {
        return if addresses.is_empty() { Err(GuardError::NoAddress) } else { Ok(addresses) };
    }
    let (good, bad): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|a| special(a.ip()).is_none());
    match (good.is_empty(), bad.first().and_then(|a| Some((a.ip(), special(a.ip())?)))) {
        (false, _) => Ok(good),
        (true, Some((ip, why))) => Err(GuardError::NameRefused(ip, why)),
        (true, None) => Err(GuardError::NoAddress),
    }
}

/// Reads an address and refuses it if it is not http(s), or if its host is written as a refused IP address: those
/// never come by the resolver.
pub fn check_url(text: &str, allow_private: bool) -> Result<Url, GuardError> {
    let url = Url::parse(text).map_err(GuardError::NotUrl)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(GuardError::Scheme(url.scheme().to_owned()));
    }
    let literal = match url.host() {
        Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        Some(Host::Domain(_)) => None,
        None => return Err(GuardError::NotUrl(url::ParseError::EmptyHost)),
    };
    match literal.and_then(|ip| Some((ip, special(ip)?))) {
        Some((ip, why)) if !allow_private => Err(GuardError::Refused(ip, why)),
        _ => Ok(url),
    }
}

/// A client for addresses that [`check_url`] passed. `timeout` bounds a whole exchange, body included.
pub fn client(allow_private: bool, timeout: Duration) -> Result<reqwest::Client, GuardError> {
    reqwest::Client::builder()
        .dns_resolver(GuardedResolver { allow_private })
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .timeout(timeout)
        .connect_timeout(timeout)
        .pool_max_idle_per_host(1)
        .user_agent(concat!("rebound/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|e| GuardError::Client(chain(&e)))
}

/// The system's resolver, with refused addresses taken out of its answers.
#[derive(Debug, Clone)]
struct GuardedResolver {
    allow_private: bool,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let good = permitted(found.collect(), allow_private)?;
            Ok(Box::new(good.into_iter()) as Addrs)
        })
    }
}

/// What an HTTP exchange failed of, without the address (which may be a secret): the error and what lies under it.
pub(crate) fn describe(error: reqwest::Error) -> String {
    chain(&error.without_url())
}

/// An error and what lies under it, in one text.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut under = error.source();
    while let Some(error) = under {
        let more = error.to_string();
        // Wrappers often repeat what they wrap.
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        under = error.source();
    }
    text
}

/// Reads a body up to `limit` bytes and leaves the rest; text that is not UTF-8 is replaced.
pub(crate) async fn read_capped(mut response: reqwest::Response, limit: usize) -> Result<String, reqwest::Error> {
    let mut body = Vec::new();
    while body.len() < limit {
        let Some(chunk) = response.chunk().await? else { break };
        body.extend_from_slice(&chunk[..chunk.len().min(limit - body.len())]);
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::response::Redirect;
    use axum::routing::get;

    use super::*;

    #[test]
    fn special_addresses_are_known_in_all_their_disguises() {
        for text in [
            "0.0.0.0",
            "127.0.0.1",
            "127.8.8.8",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "2001:0:1::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(special(text.parse().unwrap()).is_some(), "{text} passed");
        }
        for text in ["1.1.1.1", "172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1", "168.63.129.17", "192.0.1.1"] {
            assert_eq!(special(text.parse().unwrap()), None, "{text}");
        }
        for text in ["2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::"] {
            assert_eq!(special(text.parse().unwrap()), None, "{text}");
        }
    }

    #[test]
    fn addresses_written_oddly_are_read_as_a_client_reads_them() {
        for text in
            ["http://127.1/", "http://0x7f000001/", "http://2130706433/", "http://[::1]/", "http://017700000001/"]
        {
            assert!(matches!(check_url(text, false), Err(GuardError::Refused(..))), "{text}");
            assert!(check_url(text, true).is_ok(), "{text}");
        }
        assert!(matches!(check_url("ftp://example.com/", true), Err(GuardError::Scheme(_))));
        assert!(matches!(check_url("example.com", true), Err(GuardError::NotUrl(_))));
        assert!(check_url("https://example.com/", false).is_ok());
    }

    #[test]
    fn only_permitted_addresses_of_a_name_are_left() {
        let address = |text: &str| SocketAddr::new(text.parse().unwrap(), 0);
        let mixed = vec![address("10.0.0.1"), address("1.1.1.1"), address("::1")];
        assert_eq!(permitted(mixed.clone(), false), Ok(vec![address("1.1.1.1")]));
        assert_eq!(permitted(mixed.clone(), true), Ok(mixed));
        let error = permitted(vec![address("10.0.0.1")], false).unwrap_err();
        assert_eq!(error, GuardError::NameRefused("10.0.0.1".parse().unwrap(), "a private address"));
        assert_eq!(permitted(vec![], false), Err(GuardError::NoAddress));
    }

    #[tokio::test]
    async fn names_that_lead_to_loopback_are_refused_and_redirects_not_followed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let app = Router::new()
            .route("/", get(|| async { "x".repeat(100_000) }))
            .route("/away", get(move || async move { Redirect::temporary(&format!("http://127.0.0.1:{port}/")) }));
        tokio::spawn(async move { axum::serve(listener, app).await });

        let timeout = Duration::from_secs(10);
        let url = format!("http://localhost:{port}/");
        assert!(check_url(&url, false).is_ok(), "a name is judged when it is resolved");
        let error = describe(client(false, timeout).unwrap().get(&url).send().await.unwrap_err());
        assert!(error.contains("a loopback address"), "{error}");
        assert!(!error.contains(&port.to_string()), "the address was given away: {error}");

        let response = client(true, timeout).unwrap().get(&url).send().await.unwrap();
        assert_eq!(read_capped(response, 1000).await.unwrap().len(), 1000);
        let response = client(true, timeout).unwrap().get(format!("{url}away")).send().await.unwrap();
        assert_eq!(response.status(), 307);
    }
}
