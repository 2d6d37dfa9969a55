//! The plan as of any time as tables: each thing for as long as the plans in force said the same of it.

use arrow::array::{ArrayRef, RecordBatch};
use rebound_schemas::event::{PlannedProcedure, PlannedService};
use rebound_schemas::{ProcedureId, ServiceId};

use super::{batch, count, double, long, text, time};
use crate::chronicle::{Plans, Valid};

/// The columns of a table, and behind them which plan said so and when.
fn valid<T>(table: &str, rows: &[Valid<T>], mut columns: Vec<ArrayRef>) -> RecordBatch {
    columns.extend([
        text(rows, |row| Some(row.version.as_str())),
        time(rows, |row| Some(row.from)),
        time(rows, |row| row.until),
    ]);
    batch(table, columns)
}

fn list(services: &[ServiceId]) -> Option<String> {
    let names: Vec<&str> = services.iter().map(AsRef::as_ref).collect();
    (!names.is_empty()).then(|| names.join(","))
}

/// A table of the plan by its name; `None` if that names no such table.
#[must_use]
pub fn plan(table: &str, plans: &Plans) -> Option<RecordBatch> {
    Some(match table {
        "plan_versions" => versions(plans),
        "plan_sites" => sites(plans),
        "plan_tiers" => tiers(plans),
        "plan_services" => services(plans),
        "plan_objectives" => objectives(plans),
        "plan_dependencies" => dependencies(plans),
        "plan_procedures" => procedures(plans),
        "plan_backups" => backups(plans),
        "plan_service_levels" => service_levels(plans),
        "plan_drills" => drills(plans),
        _ => return None,
    })
}

fn versions(plans: &Plans) -> RecordBatch {
    let rows = plans.versions();
    let columns = vec![
        text(&rows, |row| Some(row.version.as_str())),
        text(&rows, |row| row.parts().next().map(|part| part.name.as_str())),
        long(&rows, |row| count(row.parts().map(|part| part.services.len()).sum())),
        time(&rows, |row| Some(row.from)),
        time(&rows, |row| row.until),
    ];
    batch("plan_versions", columns)
}

fn sites(plans: &Plans) -> RecordBatch {
    let rows = plans.history(|plan| plan.sites.iter().map(|it| (&it.site, it)).collect());
    let columns = vec![
        text(&rows, |row| Some(row.what.site.as_str())),
        text(&rows, |row| Some(row.what.purpose.as_str())),
        double(&rows, |row| Some(row.what.recovery_time_seconds)),
        double(&rows, |row| Some(row.what.capacity)),
    ];
    valid("plan_sites", &rows, columns)
}

fn tiers(plans: &Plans) -> RecordBatch {
    let rows = plans.history(|plan| plan.tiers.iter().map(|it| (&it.tier, it)).collect());
    let columns = vec![
        text(&rows, |row| Some(row.what.tier.as_str())),
        text(&rows, |row| Some(row.what.name.as_str())),
        text(&rows, |row| Some(row.what.severity.as_str())),
    ];
    valid("plan_tiers", &rows, columns)
}

/// A change of anything that `plan_services` does not tell is none of it.
fn services(plans: &Plans) -> RecordBatch {
    fn told(it: &PlannedService) -> [Option<&str>; 7] {
        [
            Some(it.service.as_str()),
            Some(&it.name),
            Some(it.tier.as_str()),
            Some(it.site.as_str()),
            Some(it.method.as_str()),
            Some(it.policy.as_str()),
            it.procedure.as_ref().map(AsRef::as_ref),
        ]
    }
    let rows = plans.history(|plan| plan.services.iter().map(|it| (&it.service, told(it))).collect());
    let columns = (0..7).map(|column| text(&rows, move |row| row.what[column])).collect();
    valid("plan_services", &rows, columns)
}

fn objectives(plans: &Plans) -> RecordBatch {
    let rows = plans.history(|plan| {
        let services = plan.services.iter();
        services.map(|it| (&it.service, (&it.service, it.rto_seconds, it.rpo_seconds))).collect()
    });
    let columns = vec![
        text(&rows, |row| Some(row.what.0.as_str())),
        double(&rows, |row| Some(row.what.1)),
        double(&rows, |row| Some(row.what.2)),
    ];
    valid("plan_objectives", &rows, columns)
}

fn dependencies(plans: &Plans) -> RecordBatch {
    let rows = plans.history(|plan| {
        let needs = plan.services.iter().flat_map(|it| {
            let services = it.depends_on.iter().map(|need| (need.as_str(), "service"));
            let groups = it.depends_on_groups.iter().map(|need| (need.as_str(), "group"));
            services.chain(groups).map(move |(need, kind)| (it.service.as_str(), need, kind))
        });
        needs.map(|need| (need, need)).collect()
    });
    let columns = vec![
        text(&rows, |row| Some(row.what.0)),
        text(&rows, |row| Some(row.what.1)),
        text(&rows, |row| Some(row.what.2)),
    ];
    valid("plan_dependencies", &rows, columns)
}

fn procedures(plans: &Plans) -> RecordBatch {
    type Row<'a> = (&'a ProcedureId, &'a str, usize, &'a str, &'a str);
    fn steps(it: &PlannedProcedure) -> impl Iterator<Item = ((&ProcedureId, usize), Row<'_>)> {
        it.steps.iter().enumerate().map(move |(place, step)| {
            ((&it.procedure, place), (&it.procedure, it.name.as_str(), place, step.step.as_str(), step.name.as_str()))
        })
    }
    let rows = plans.history(|plan| plan.procedures.iter().flat_map(steps).collect());
    let columns = vec![
        text(&rows, |row| Some(row.what.0.as_str())),
        text(&rows, |row| Some(row.what.1)),
        long(&rows, |row| count(row.what.2)),
        text(&rows, |row| Some(row.what.3)),
        text(&rows, |row| Some(row.what.4)),
    ];
    valid("plan_procedures", &rows, columns)
}

fn backups(plans: &Plans) -> RecordBatch {
    let rows = plans.history(|plan| plan.backups.iter().map(|it| (&it.backup, it)).collect());
    let columns = vec![
        text(&rows, |row| Some(row.what.backup.as_str())),
        text(&rows, |row| Some(row.what.service.as_str())),
        text(&rows, |row| Some(row.what.kind.as_str())),
        double(&rows, |row| Some(row.what.every_seconds)),
        double(&rows, |row| Some(row.what.retention_seconds)),
        double(&rows, |row| Some(row.what.verify_every_seconds)),
    ];
    valid("plan_backups", &rows, columns)
}

fn service_levels(plans: &Plans) -> RecordBatch {
    let rows = plans
        .history(|plan| plan.service_levels.iter().map(|it| (&it.service_level, (it, list(&it.services)))).collect());
    let columns = vec![
        text(&rows, |row| Some(row.what.0.service_level.as_str())),
        text(&rows, |row| row.what.1.as_deref()),
        double(&rows, |row| row.what.0.response_time_seconds),
        double(&rows, |row| row.what.0.throughput_per_second),
        double(&rows, |row| row.what.0.error_rate),
        double(&rows, |row| row.what.0.availability),
    ];
    valid("plan_service_levels", &rows, columns)
}

fn drills(plans: &Plans) -> RecordBatch {
    let rows = plans.history(|plan| plan.drills.iter().map(|it| (&it.drill, (it, list(&it.services)))).collect());
    let columns = vec![
        text(&rows, |row| Some(row.what.0.drill.as_str())),
        text(&rows, |row| Some(row.what.0.name.as_str())),
        text(&rows, |row| Some(row.what.0.scenario.as_str())),
        text(&rows, |row| row.what.1.as_deref()),
        double(&rows, |row| Some(row.what.0.detect_within_seconds)),
        double(&rows, |row| Some(row.what.0.recover_within_seconds)),
    ];
    valid("plan_drills", &rows, columns)
}
