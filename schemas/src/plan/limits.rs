//! How much of a site, or of everything, may be under recovery or down before automation stops: `[limits]` for
//! everything together, `[limits.site]` for each site, and the same keys in a `[[site]]` for that one.
//!
//! `max_recovering` makes recoveries wait; `stop_above` says when failures are no longer services' failures. One
//! service that is down alone is never more than its own failure.

use std::collections::BTreeMap;

use super::model::{Plan, Service, Site};
use super::read::Reading;
use super::reader::percent;
use super::section::Section;
use crate::ids::{ServiceId, SiteId};

/// Limits of one site, or of everything together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Reach {
    /// Recoveries at the same time at most; more wait. Counted by each partition's queue over what it has read, so that
    /// of several partitions each may begin one within the same moment.
    pub max_recovering: Option<u32>,
    /// With more services down at once than this, automatic recovery stops and people are asked.
    pub stop_above: Option<StopAbove>,
}

/// How many services.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StopAbove {
    /// So many.
    Services(u32),
    /// This share of them, between 0 and 1.
    Share(f64),
}

impl StopAbove {
    /// The largest number of services, of so many, that may be down at once without stopping; at least one.
    #[must_use]
    pub fn most(self, of: u32) -> u32 {
        match self {
            Self::Services(most) => most,
            // The small excess keeps a share that is meant to be a whole number of services from falling below it.
            Self::Share(share) => ((f64::from(of) * share + 1e-9).floor() as u32).max(1),
        }
    }
}

impl std::fmt::Display for StopAbove {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Services(most) => write!(f, "{most}"),
            Self::Share(share) => f.write_str(&percent(*share)),
        }
    }
}

/// The limits of a plan.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Limits {
    /// Everything together.
    pub(super) all: Reach,
    /// Each site that has any.
    pub(super) sites: BTreeMap<SiteId, Reach>,
}

impl Plan {
    /// The limits of a site; of everything together where none is named.
    #[must_use]
    pub fn reach(&self, site: Option<&SiteId>) -> Reach {
        match site {
            None => self.limits.all,
            Some(site) => self.limits.sites.get(site).copied().unwrap_or_default(),
        }
    }

    /// How many services run at a site; in all where none is named.
    #[must_use]
    pub fn services_at(&self, site: Option<&SiteId>) -> u32 {
        at(&self.services, site)
    }

    /// The limits in words: of everything, then of each site that has any.
    pub(super) fn explain_limits(&self) -> Vec<String> {
        let sites = self.limits.sites.iter().map(|(site, reach)| (Some(site), *reach));
        std::iter::once((None, self.limits.all))
            .chain(sites)
            .filter_map(|(site, reach)| self.limited(site, reach))
            .collect()
    }

    fn limited(&self, site: Option<&SiteId>, reach: Reach) -> Option<String> {
        let place = site.map_or_else(|| "everywhere together".to_owned(), |site| format!("at site {site}"));
        let runs = reach.max_recovering.map(|most| format!("at most {most} recoveries run at once, more wait"));
        let stops = reach.stop_above.map(|stop| {
            let of = self.services_at(site);
            let share = match stop {
                StopAbove::Services(_) => String::new(),
                StopAbove::Share(_) => format!(" ({stop})"),
            };
            let whole =
                if site.is_some() { "it is the site that failed" } else { "it is more than services that failed" };
            format!(
                "with more than {} of {of} services{share} down at once, {whole}: automatic recovery stops and people \
                 are asked, until fewer are down",
                stop.most(of)
            )
        });
        let said: Vec<String> = runs.into_iter().chain(stops).collect();
        (!said.is_empty()).then(|| format!("limits {place}: {}", said.join("; ")))
    }
}

fn at(services: &BTreeMap<ServiceId, Service>, site: Option<&SiteId>) -> u32 {
    let here = |service: &&Service| site.is_none_or(|site| service.site == *site);
    u32::try_from(services.values().filter(here).count()).unwrap_or(u32::MAX)
}

impl<'a> Reading<'a> {
    /// `max_recovering` and `stop_above` of a section.
    pub(super) fn reach(&self, section: &Section<'a>) -> Reach {
        let max_recovering = section.count("max_recovering", 1, 10_000);
        Reach { max_recovering, stop_above: stop_above(section) }
    }
}

fn stop_above(section: &Section<'_>) -> Option<StopAbove> {
    let Some(text) = section.raw_text("stop_above") else {
        return section.count("stop_above", 1, 1_000_000).map(StopAbove::Services);
    };
    section.text("stop_above");
    let percent = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    match percent {
        Some(percent) if percent > 0.0 && percent < 100.0 => Some(StopAbove::Share(percent / 100.0)),
        Some(percent) if percent >= 100.0 => {
            let remedy = "write a smaller share as in \"50%\", or leave it out: then nothing stops recovery";
            section.fault("stop_above", format!("{text:?} is never exceeded"), remedy);
            None
        }
        Some(_) => {
            let remedy =
                "write trigger = \"off\" in the policies if nothing is to be recovered, or a share as in \"50%\"";
            section.fault("stop_above", format!("{text:?} stops at the first failure"), remedy);
            None
        }
        None => {
            let remedy = "write a number of services as in stop_above = 3, or a share of them as in \"50%\"";
            section.fault("stop_above", format!("{text:?} is not a share"), remedy);
            None
        }
    }
}

/// Brings `[limits]` and what each `[[site]]` says of its own together.
pub(super) fn read<'a>(
    root: &Section<'a>,
    reading: &Reading<'a>,
    sites: &[(Site, Reach)],
    services: &BTreeMap<ServiceId, Service>,
) -> Limits {
    let (mut all, mut each) = (Reach::default(), Reach::default());
    if let Some(section) = root.section("limits") {
        all = reading.reach(&section);
        if let Some(site) = section.section("site") {
            each = reading.reach(&site);
            check(root, "limits.site", each, all, None);
            site.finish("the limits of each site");
        }
        section.finish("the limits");
        check(root, "limits", all, Reach::default(), Some(at(services, None)));
    }
    let limited = sites.iter().filter_map(|(site, own)| {
        check(root, &format!("site.{}", site.id), *own, all, Some(at(services, Some(&site.id))));
        let reach = Reach {
            max_recovering: own.max_recovering.or(each.max_recovering),
            stop_above: own.stop_above.or(each.stop_above),
        };
        (reach != Reach::default()).then(|| (site.id.clone(), reach))
    });
    Limits { sites: limited.collect(), all }
}

/// What can't be meant: a site that may recover more than everything may, and a number that is never exceeded.
fn check(root: &Section<'_>, path: &str, reach: Reach, all: Reach, services: Option<u32>) {
    let key = |key: &str| format!("{path}.{key}");
    if let (Some(own), Some(most)) = (reach.max_recovering, all.max_recovering)
        && own > most
    {
        let message = format!("{own} is more than limits.max_recovering = {most} allows everywhere together");
        root.reader.fault(&key("max_recovering"), message, format!("write {most} or less"));
    }
    if let (Some(StopAbove::Services(most)), Some(of)) = (reach.stop_above, services)
        && most >= of
        && of > 0
    {
        let message = format!(
            "{most} is never exceeded: {}",
            match of {
                1 => "there is 1 service".to_owned(),
                n => format!("there are {n} services"),
            }
        );
        let remedy = match of {
            1 => "leave it out: one service alone is no site".to_owned(),
            n => format!("write {} or less, or a share as in \"50%\"", n - 1),
        };
        root.reader.fault(&key("stop_above"), message, remedy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_of_whole_services_and_never_of_one_alone() {
        for (share, of, most) in
            [(0.5, 8, 4), (0.5, 9, 4), (0.5, 1, 1), (0.5, 2, 1), (0.01, 50, 1), (0.3, 10, 3), (0.99, 100, 99)]
        {
            assert_eq!(StopAbove::Share(share).most(of), most, "{share} of {of}");
        }
        assert_eq!(StopAbove::Services(3).most(100), 3);
    }

    const PLAN: &str = "[limits]\nmax_recovering = 8\nstop_above = \"60%\"\n[limits.site]\nmax_recovering = 2\n\
        stop_above = \"50%\"\n[[site]]\nid = \"a\"\n[[site]]\nid = \"b\"\nmax_recovering = 3\nstop_above = 1\n\
        [[service]]\nid = \"a1\"\nsite = \"a\"\n[[service]]\nid = \"a2\"\nsite = \"a\"\n[[service]]\nid = \"a3\"\n\
        site = \"a\"\n[[service]]\nid = \"b1\"\nsite = \"b\"\n[[service]]\nid = \"b2\"\nsite = \"b\"\n";

    #[test]
    fn a_site_has_its_own_limits_or_those_of_each_site() {
        let plan = Plan::parse(PLAN, "plan.toml").unwrap_or_else(|errors| panic!("{errors}"));
        let (a, b): (SiteId, SiteId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let reach = |recovering, stop| Reach { max_recovering: Some(recovering), stop_above: Some(stop) };
        assert_eq!(plan.reach(None), reach(8, StopAbove::Share(0.6)));
        assert_eq!(plan.reach(Some(&a)), reach(2, StopAbove::Share(0.5)));
        assert_eq!(plan.reach(Some(&b)), reach(3, StopAbove::Services(1)));
        assert_eq!([None, Some(&a), Some(&b)].map(|site| plan.services_at(site)), [5, 3, 2]);
        assert_eq!(
            plan.explain_limits(),
            [
                "limits everywhere together: at most 8 recoveries run at once, more wait; with more than 3 of 5 \
                 services (60 %) down at once, it is more than services that failed: automatic recovery stops and \
                 people are asked, until fewer are down",
                "limits at site a: at most 2 recoveries run at once, more wait; with more than 1 of 3 services (50 %) \
                 down at once, it is the site that failed: automatic recovery stops and people are asked, until fewer \
                 are down",
                "limits at site b: at most 3 recoveries run at once, more wait; with more than 1 of 2 services down \
                 at once, it is the site that failed: automatic recovery stops and people are asked, until fewer are \
                 down",
            ]
        );
        let none = Plan::parse("[[service]]\nid = \"x\"\n", "plan.toml").unwrap();
        assert_eq!((none.reach(None), none.explain_limits()), (Reach::default(), vec![]));
    }
}
