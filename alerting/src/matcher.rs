//! What a silence covers: services by matchers, resolved against the plan once, when the silence is told of.

use rebound_schemas::event::{MatchOn, Matcher, Severity};
use rebound_schemas::plan::Plan;
use rebound_schemas::{ServiceId, plan::Service};
use regex::Regex;

/// A matcher ready to be asked.
#[derive(Debug)]
enum Test {
    Equal(String),
    Regex(Regex),
    /// Not a regular expression: it matches nothing, since silence must never be wider than was said.
    Nothing,
}

impl Test {
    fn new(matcher: &Matcher) -> Self {
        match matcher.regex {
            false => Self::Equal(matcher.value.clone()),
            true => Regex::new(&format!("^(?:{})$", matcher.value)).map_or(Self::Nothing, Self::Regex),
        }
    }

    fn holds(&self, text: &str) -> bool {
        match self {
            Self::Equal(value) => value == text,
            Self::Regex(regex) => regex.is_match(text),
            Self::Nothing => false,
        }
    }
}

/// Why a matcher can't match anything, in words; `None` if it can.
#[must_use]
pub fn fault(matcher: &Matcher) -> Option<String> {
    let wrong = if matcher.regex { Regex::new(&matcher.value).err() } else { None };
    if let Some(wrong) = wrong {
        let wrong = wrong.to_string();
        let why = wrong.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        return Some(format!("{:?} is not a regular expression: {why}", matcher.value));
    }
    if matcher.on == MatchOn::Severity && !matcher.regex && Severity::parse(&matcher.value).is_none() {
        let known: Vec<&str> = Severity::ALL.iter().map(|severity| severity.as_str()).collect();
        return Some(format!("{:?} is no severity: write one of {}", matcher.value, known.join(", ")));
    }
    None
}

/// The services that matchers choose, and the severities they leave; `None` leaves all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// In id order.
    pub services: Vec<ServiceId>,
    /// Of the alert.
    pub severities: Option<Vec<Severity>>,
}

/// Chooses from a plan. Every matcher must hold; with `listed` services only from among these.
#[must_use]
pub fn choose(plan: &Plan, listed: &[ServiceId], matchers: &[Matcher]) -> Chosen {
    let tests: Vec<(MatchOn, Test)> = matchers.iter().map(|matcher| (matcher.on, Test::new(matcher))).collect();
    let of_service = |service: &Service| {
        tests.iter().all(|(on, test)| match on {
            MatchOn::Service => test.holds(service.id.as_str()),
            MatchOn::Tier => test.holds(service.tier.as_str()),
            MatchOn::Site => test.holds(service.site.as_str()),
            MatchOn::Severity => true,
        })
    };
    let services = plan.services().values().filter(|service| listed.is_empty() || listed.contains(&service.id));
    let severities = tests.iter().any(|(on, _)| *on == MatchOn::Severity).then(|| {
        let holds = |severity: &&Severity| {
            tests.iter().filter(|(on, _)| *on == MatchOn::Severity).all(|(_, test)| test.holds(severity.as_str()))
        };
        Severity::ALL.iter().filter(holds).copied().collect()
    });
    Chosen {
        services: services.filter(|service| of_service(service)).map(|service| service.id.clone()).collect(),
        severities,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_matcher_must_hold_and_a_regex_covers_the_whole() {
        let text = "[[site]]\nid = \"a\"\n[[site]]\nid = \"b\"\n[[tier]]\nid = \"one\"\n[[tier]]\nid = \"two\"\n\
            [[service]]\nid = \"api\"\ntier = \"one\"\nsite = \"a\"\n[[service]]\nid = \"api-2\"\ntier = \"one\"\nsite = \"b\"\n\
            [[service]]\nid = \"db\"\ntier = \"two\"\nsite = \"a\"\n";
        let plan = Plan::parse(text, "plan.toml").unwrap();
        let equal = |on, value: &str| Matcher { on, value: value.into(), regex: false };
        let regex = |on, value: &str| Matcher { on, value: value.into(), regex: true };
        let check = |listed: &[&str], matchers: &[Matcher], expected: &[&str]| {
            let listed: Vec<_> = listed.iter().map(|id| ServiceId::new(id).unwrap()).collect();
            let found = choose(&plan, &listed, matchers).services;
            assert_eq!(found.iter().map(ServiceId::as_str).collect::<Vec<_>>(), expected, "{matchers:?}");
        };
        check(&[], &[equal(MatchOn::Tier, "one")], &["api", "api-2"]);
        check(&["api", "db"], &[equal(MatchOn::Tier, "one")], &["api"]);
        check(&[], &[equal(MatchOn::Tier, "one"), equal(MatchOn::Site, "b")], &["api-2"]);
        check(&[], &[regex(MatchOn::Service, "api")], &["api"]);
        check(&[], &[regex(MatchOn::Service, "api.*|db")], &["api", "api-2", "db"]);
        check(&[], &[regex(MatchOn::Service, "(")], &[]);
        check(&[], &[equal(MatchOn::Service, "api.*")], &[]);
        let chosen = choose(&plan, &[], &[regex(MatchOn::Severity, "warning|info")]);
        assert_eq!((chosen.services.len(), chosen.severities), (3, Some(vec![Severity::Warning, Severity::Info])));
        assert_eq!(choose(&plan, &[], &[equal(MatchOn::Tier, "one")]).severities, None);
    }
}
