//! Checks that follow a recovery, as the plan writes them.

use std::time::Duration;

use super::model::{ServiceLevel, Validation, ValidationCheck};
use super::read::{Reading, set};
use super::read_probe::one_of;
use super::reader::{Names, article};
use super::section::Section;
use crate::event::CheckCategory;

const TIMEOUT: Duration = Duration::from_secs(30);
/// The keys of which a validation has exactly one.
const CHECKS: [&str; 3] = ["command", "http", "service_level"];

impl<'a> Reading<'a> {
    /// A validation: what it looks at, and after which recoveries.
    pub(super) fn validation(&self, section: &Section<'a>, levels: &[ServiceLevel]) -> Option<Validation> {
        let id = section.id::<crate::ids::ServiceId>("validation");
        let kind = one_of(section, &CHECKS, "to look at");
        let category = section.word("category", set!(CheckCategory));
        let services = section.references("services", &self.services).unwrap_or_default();
        let tiers = section.references("tiers", &self.tiers).unwrap_or_default();
        let procedures = section.references("procedures", &self.procedures).unwrap_or_default();
        let timeout = section.duration("timeout").unwrap_or(TIMEOUT);
        let retries = section.count("retries", 0, 100).unwrap_or(0);
        let check = match kind? {
            "command" => self.run(section).map(ValidationCheck::Act),
            "http" => super::read_procedure::request(section).map(ValidationCheck::Act),
            _ => {
                let mut names = Names::of("service level");
                for level in levels {
                    names.add(&level.id);
                }
                let level: Option<crate::ids::ServiceId> = section.reference("service_level", &names);
                let level = level.and_then(|id| levels.iter().find(|level| level.id == id.as_str()).cloned());
                level.map(ValidationCheck::ServiceLevel)
            }
        };
        if kind? == "service_level" && category.is_some_and(|category| category != CheckCategory::ServiceLevel) {
            section.fault("category", "a service level is its own category", "leave the key out");
        } else if kind? != "service_level" && !section.has("category") {
            let remedy = "write category = \"data\", \"security\", \"compliance\" or \"health\"";
            section.fault("category", "is missing", remedy);
        }
        section.finish(&format!("{} validation", article(kind?)));
        let category = category.unwrap_or(CheckCategory::ServiceLevel);
        Some(Validation { id: id?.to_string(), category, services, tiers, procedures, check: check?, timeout, retries })
    }
}
