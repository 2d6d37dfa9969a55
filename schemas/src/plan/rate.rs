//! How many messages a channel takes: `rate = "10/min"`, `burst = 20`.
//!
//! A token bucket: it holds `burst` tokens, a message takes one, and one comes back every `per / count`. What finds no
//! token waits; then all that waits is told in one message. Nothing is dropped.

use std::time::Duration;

use super::reader::words;
use super::section::Section;

/// Units of time behind the stroke.
const UNITS: [(&str, u64); 8] =
    [("s", 1), ("sec", 1), ("m", 60), ("min", 60), ("h", 3600), ("hour", 3600), ("d", 86_400), ("day", 86_400)];
const MOST: u32 = 10_000;

/// Messages in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// So many.
    pub count: u32,
    /// In this.
    pub per: Duration,
    /// At once, at most.
    pub burst: u32,
}

impl Rate {
    /// From one token to the next.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.per / self.count.max(1)
    }

    /// In words, as in `10 messages in 1m, 20 at once`.
    #[must_use]
    pub fn explain(&self) -> String {
        let plural = if self.count == 1 { "" } else { "s" };
        format!("{} message{plural} in {}, {} at once", self.count, words(self.per), self.burst)
    }
}

/// The keys `rate` and `burst`.
pub(super) fn read(section: &Section<'_>) -> Option<Rate> {
    let burst = section.count("burst", 1, MOST);
    let Some(text) = section.text("rate") else {
        if section.has("burst") && !section.has("rate") {
            section.fault(
                "burst",
                "says how many messages go at once, but nothing limits them",
                "write rate = \"10/min\"",
            );
        }
        return None;
    };
    let parsed = text.split_once('/').and_then(|(count, unit)| {
        let count: u32 = count.trim().parse().ok()?;
        let unit = unit.trim();
        let named = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, seconds)| Duration::from_secs(*seconds));
        let per = named.or_else(|| humantime::parse_duration(unit).ok())?;
        let fits = (1..=MOST).contains(&count) && (Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(&per);
        fits.then_some((count, per))
    });
    let Some((count, per)) = parsed else {
        let remedy =
            format!("write rate = \"10/min\": 1 to {MOST} messages in s, min, h, d, or in 1s to 1d as in \"10/5m\"");
        section.fault("rate", format!("{text:?} is no rate"), remedy);
        return None;
    };
    Some(Rate { count, per, burst: burst.unwrap_or(count) })
}

#[cfg(test)]
mod tests {
    use super::super::Plan;
    use super::*;

    #[test]
    fn rates_are_read() {
        let read = |keys: &str| {
            let text = format!("[[channel]]\nid = \"a\"\nkind = \"log\"\n{keys}\n[[service]]\nid = \"x\"\n");
            Plan::parse(&text, "p").map(|plan| plan.channels()["a"].rate).map_err(|errors| errors.to_string())
        };
        let rate = |count, seconds, burst| Ok(Some(Rate { count, per: Duration::from_secs(seconds), burst }));
        assert_eq!(read(""), Ok(None));
        assert_eq!(read("rate = \"10/min\""), rate(10, 60, 10));
        assert_eq!(read("rate = \"1 / h\"\nburst = 5"), rate(1, 3600, 5));
        assert_eq!(read("rate = \"3/5m\""), rate(3, 300, 3));
        for wrong in ["0/min", "10", "min", "x/min", "10/0s", "10/2d", "10/month", "-1/s", "20000/s"] {
            let found = read(&format!("rate = \"{wrong}\"")).unwrap_err();
            assert!(
                found.contains("channel.a.rate") && found.contains("is no rate: write rate = \"10/min\""),
                "{found}"
            );
        }
        let found = read("burst = 5").unwrap_err();
        assert!(found.ends_with("nothing limits them: write rate = \"10/min\""), "{found}");
    }
}
