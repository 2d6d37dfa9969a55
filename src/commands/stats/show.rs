//! How statistics are shown: times and shares as people read them, tables, and the notes beneath.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use comfy_table::{CellAlignment, Table, presets};
use rebound_analytics::report::{Band, Figures, Report};
use rebound_analytics::stats::{Proportion, Summary};

use super::Loaded;

/// What is shown where a figure would be, but there is nothing to say.
pub(super) const NOT_ENOUGH: &str = "not enough data";
/// The same in a narrow column.
pub(super) const NONE: &str = "–";

pub(super) fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// A time span in its two largest units: `350 ms`, `12.3 s`, `3m 20s`, `1h 05m`, `2d 04h`.
pub(super) fn span(seconds: f64) -> String {
    if seconds < 0.0 {
        return format!("−{}", span(-seconds));
    }
    if seconds == 0.0 {
        return "0 s".into();
    }
    let whole = seconds.round();
    // Rounded first, so that 59.96 s is 1m 00s and not 60.0 s.
    if seconds < 0.999_5 {
        format!("{:.0} ms", seconds * 1e3)
    } else if seconds < 59.95 {
        format!("{seconds:.1} s")
    } else if whole < 3_600.0 {
        format!("{:.0}m {:02.0}s", (whole / 60.0).floor(), whole % 60.0)
    } else if (seconds / 60.0).round() < 1_440.0 {
        let minutes = (seconds / 60.0).round();
        format!("{:.0}h {:02.0}m", (minutes / 60.0).floor(), minutes % 60.0)
    } else {
        let hours = (seconds / 3_600.0).round();
        format!("{:.0}d {:02.0}h", (hours / 24.0).floor(), hours % 24.0)
    }
}

/// A round time in one unit.
fn round(seconds: f64) -> String {
    let (size, unit) = [(86_400.0, "d"), (3_600.0, "h"), (60.0, "min")]
        .into_iter()
        .find(|(size, _)| seconds >= *size)
        .unwrap_or((1.0, "s"));
    format!("{} {unit}", seconds / size)
}

/// A share as per cent.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Availability needs more digits the nearer it is to 1.
fn fine_percent(share: f64) -> String {
    // Rounding must not make a perfect year of one that was not.
    let cut = (share * 1e6).floor() / 1e4;
    format!("{cut:.4} %")
}

pub(super) fn p_value(p: f64) -> String {
    if p < 0.000_1 { "p < 0.0001".into() } else { format!("p = {p:.4}") }
}

pub(super) fn or(figure: Option<String>, otherwise: &str) -> String {
    figure.unwrap_or_else(|| otherwise.to_owned())
}

/// An aligned table: text on the left, figures (from the given column on) on the right.
pub(super) fn table(header: &[&str], figures_from: usize, rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(figures_from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let lines: Vec<_> = table.to_string().lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n") + "\n"
}

/// The notes beneath.
#[derive(Default)]
pub(super) struct Notes(Vec<String>);

impl Notes {
    pub(super) fn say(&mut self, note: impl Into<String>) {
        self.0.push(note.into());
    }

    pub(super) fn show(&self) -> String {
        self.0.iter().fold(String::from("\n"), |text, note| text + "· " + note + "\n")
    }
}

/// What every table says of the incidents in it.
fn counted(figures: &Figures, notes: &mut Notes) {
    if figures.incidents == 0 {
        notes.say("No incident is known that is as asked for: there is not enough data to say anything of recovery.");
    }
    let times = &figures.times;
    let aside: Vec<String> = [
        (times.excluded, "excluded by a correction or maintenance"),
        (times.impossible, "impossible (recovered before it began, or begins after now)"),
    ]
    .iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, why)| format!("{n} {why}"))
    .collect();
    if !aside.is_empty() {
        notes.say(format!("In no figure: {}.", aside.join("; ")));
    }
    let odd: Vec<String> = [
        (figures.overlapping, "began before an earlier one of the same service had ended"),
        (figures.zero_length, "took no time"),
    ]
    .iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, what)| format!("{n} {what}"))
    .collect();
    if !odd.is_empty() {
        notes.say(format!("Counted like any other: {}.", odd.join("; ")));
    }
}

fn method(report: &Report, loaded: &Loaded, notes: &mut Notes) {
    notes.say(format!(
        "Quantiles are of type 7; 95 % intervals: medians by bootstrap (2000 resamples, seed {}), Kaplan–Meier by \
         Greenwood (log-log), shares by Wilson.",
        report.seed
    ));
    if loaded.plan.is_none() {
        notes.say("No plan: no objectives, tiers or sites; give it with --plan.");
    }
    if report.all.uptime.is_some_and(|uptime| uptime.coverage.is_some_and(|coverage| coverage < 0.9)) {
        notes.say("Availability speaks only of the time that was observed: see coverage.");
    }
    if loaded.unreadable > 0 {
        notes.say(format!("{} rows of the log could not be read: `rebound log verify`.", loaded.unreadable));
    }
}

fn title(report: &Report, loaded: &Loaded) -> String {
    let first = loaded.record.incidents().map(|incident| incident.first_failure_at).min();
    let from = report.since.or(first).map_or_else(|| "the beginning".to_owned(), time);
    let until = report.until.map_or(report.now, |until| until.min(report.now));
    let n = report.all.incidents;
    format!("{n} incident{} from {from} to {}\n\n", if n == 1 { "" } else { "s" }, time(until))
}

/// The report as text.
pub(super) fn report(report: &Report, loaded: &Loaded) -> String {
    let mut text = title(report, loaded);
    let mut notes = Notes::default();
    match report.by {
        Some(dimension) => {
            let name = dimension.as_str();
            let groups = report.groups.iter().map(|(name, figures)| (name.clone(), figures));
            let groups: Vec<_> = groups.chain([("(all)".to_owned(), &report.all)]).collect();
            let rows = |cells: fn(&Figures) -> Vec<String>| {
                let row = move |(name, figures): &(String, &Figures)| [vec![name.clone()], cells(figures)].concat();
                groups.iter().map(row).collect::<Vec<_>>()
            };
            // Three tables, each as wide as a terminal.
            text +=
                &table(&["times", "n", "open", "MTTD", "MTTR", "95 % from", "to", "p90", "KM median"], 1, rows(times));
            text.push('\n');
            text += &table(
                &["shares", "RTO met", "RPO met", "success", "relapse", "avail.", "MTBF", "ch. fail"],
                1,
                rows(shares),
            );
            text.push('\n');
            text += &table(&["impact", "down", "error rate", "failed requests", "in use at most"], 1, rows(impact));
            notes.say(format!(
                "By {name}. n: incidents that recovered. MTTD: median of t1 − t0. MTTR: median of t3 − t0."
            ));
            notes.say("KM median: Kaplan–Meier, the open ones counted as lasting at least until now.");
            notes.say("ch. fail: deployments that failed. Error rate, requests and resources: while it was down.");
        }
        None => text += &card(&report.all),
    }
    counted(&report.all, &mut notes);
    method(report, loaded, &mut notes);
    text + &notes.show()
}

fn times(figures: &Figures) -> Vec<String> {
    let (recover, detect) = (figures.times.recover, figures.times.detect);
    let of = |pick: fn(&Summary) -> f64| or(recover.as_ref().map(|summary| span(pick(summary))), NONE);
    vec![
        recover.map_or(0, |summary| summary.n).to_string(),
        figures.times.open.to_string(),
        or(detect.map(|summary| span(summary.median)), NONE),
        of(|summary| summary.median),
        of(|summary| summary.median_low),
        of(|summary| summary.median_high),
        of(|summary| summary.p90),
        or(figures.times.survival_median.map(span), NONE),
    ]
}

fn shares(figures: &Figures) -> Vec<String> {
    let share = |of: Proportion| or(of.share.map(percent), NONE);
    let uptime = figures.uptime;
    vec![
        share(figures.rto_met),
        share(figures.rpo_met),
        share(figures.success),
        share(figures.relapse),
        or(uptime.and_then(|uptime| uptime.availability).map(fine_percent), NONE),
        or(uptime.and_then(|uptime| uptime.mtbf_seconds).map(span), NONE),
        share(figures.change_failure.unwrap_or_default()),
    ]
}

fn impact(figures: &Figures) -> Vec<String> {
    let impact = figures.impact;
    let requests = impact.failed_requests.zip(impact.requests);
    let busiest = figures.resource_use.iter().max_by(|(_, a), (_, b)| a.max.total_cmp(&b.max));
    vec![
        span(impact.down_seconds),
        or(figures.error_rate.map(|it| percent(it.mean)), NONE),
        or(requests.map(|(failed, all)| format!("{failed:.0} of {all:.0}")), NONE),
        or(busiest.map(|(name, used)| format!("{name} {}", percent(used.max))), NONE),
    ]
}

fn card(figures: &Figures) -> String {
    let times = &figures.times;
    let line = |name: &str, summary: Option<Summary>| {
        let mut cells = vec![name.to_owned(), summary.map_or(0, |it| it.n).to_string()];
        match summary {
            Some(it) => {
                let interval = format!("{} to {}", span(it.median_low), span(it.median_high));
                cells.extend([span(it.median), interval]);
                cells.extend([it.p90, it.p95, it.geometric_mean, it.mean].map(span));
            }
            None => cells.extend([NONE; 6].map(str::to_owned)),
        }
        cells
    };
    let rows = [
        line("MTTD   failure to decision (t1 − t0)", times.detect),
        line("MTTA   decision to a person (t2 − t1)", times.acknowledge_human),
        line("MTTA   decision to automation (t2 − t1)", times.acknowledge_automated),
        line("MTTR   failure to recovery (t3 − t0)", times.recover),
        line("       decision to recovery (t3 − t1)", times.recover_from_detection),
        line("       decision to closing (t4 − t1)", times.close),
    ];
    let header = ["time", "n", "median", "95 % interval", "p90", "p95", "geo. mean", "mean"];
    let mut text = table(&header, 1, rows);

    text.push('\n');
    let bound = |end: Option<f64>| or(end.map(span), "open");
    let median = times
        .survival_median
        .map(|median| format!("{} ({} to {})", span(median), bound(times.survival_low), bound(times.survival_high)));
    let open = if times.open == 0 { "none open".to_owned() } else { format!("{} open, censored", times.open) };
    let _ = writeln!(text, "Kaplan–Meier median ({open}): {}", or(median, NOT_ENOUGH));
    if !figures.still_down.is_empty() {
        let still = figures.still_down.iter().map(|it| format!("{} {}", round(it.after_seconds), percent(it.share)));
        let _ = writeln!(text, "Still down after {}", still.collect::<Vec<_>>().join(", "));
    }

    text.push('\n');
    let share = |name: &str, of: Option<Proportion>| {
        let of = of.unwrap_or_default();
        let interval = of.low.zip(of.high).map(|(low, high)| format!("{} to {}", percent(low), percent(high)));
        let n = if of.whole == 0 { NOT_ENOUGH.to_owned() } else { format!("{} of {}", of.part, of.whole) };
        vec![name.to_owned(), or(of.share.map(percent), NONE), or(interval, NONE), n]
    };
    let rows = [
        share("recoveries that succeeded", Some(figures.success)),
        share("relapses within 24 hours", Some(figures.relapse)),
        share("recovery time objective met", Some(figures.rto_met)),
        share("recovery point objective met", Some(figures.rpo_met)),
        share("deployments that failed", figures.change_failure),
    ];
    text += &table(&["share", "", "95 % interval", "of"], 1, rows);

    text.push('\n');
    text += &table(&["besides", ""], 1, besides(figures));
    text
}

/// Availability, errors, resources, impact, bands.
fn besides(figures: &Figures) -> Vec<Vec<String>> {
    let uptime = figures.uptime;
    let mut rows = vec![
        vec!["availability".to_owned(), or(uptime.and_then(|it| it.availability).map(fine_percent), NOT_ENOUGH)],
        vec![
            "  coverage: observed of calendar time".to_owned(),
            or(uptime.and_then(|it| it.coverage).map(percent), NOT_ENOUGH),
        ],
        vec![
            "MTBF: observed uptime a failure".to_owned(),
            or(
                uptime.and_then(|it| Some(format!("{} ({} failures)", span(it.mtbf_seconds?), it.failures))),
                NOT_ENOUGH,
            ),
        ],
        vec![
            "error rate while down, mean (worst)".to_owned(),
            or(
                figures
                    .error_rate
                    .map(|it| format!("{} ({}), {} windows", percent(it.mean), percent(it.worst), it.windows)),
                NOT_ENOUGH,
            ),
        ],
    ];
    if figures.resource_use.is_empty() {
        rows.push(vec!["resource use while down".to_owned(), NOT_ENOUGH.to_owned()]);
    }
    for (name, used) in figures.resource_use.iter().take(10) {
        let value = format!("{} ({}), n = {}", percent(used.mean), percent(used.max), used.n);
        rows.push(vec![format!("{name} in use while down, mean (highest)"), value]);
    }
    let impact = figures.impact;
    rows.push(vec!["services hit".to_owned(), impact.services.to_string()]);
    rows.push(vec!["  down together".to_owned(), span(impact.down_seconds)]);
    let requests = impact.failed_requests.zip(impact.requests);
    rows.push(vec![
        "  requests that failed meanwhile".to_owned(),
        or(requests.map(|(failed, all)| format!("{failed:.0} of {all:.0}")), NOT_ENOUGH),
    ]);
    let dora = figures.dora;
    let band = |band: Option<Band>| or(band.map(|band| band.as_str().to_owned()), NOT_ENOUGH);
    rows.push(vec!["DORA 2023: time to restore".to_owned(), band(dora.time_to_restore)]);
    rows.push(vec!["  change failure rate".to_owned(), band(dora.change_failure)]);
    let often = dora.deployments_per_day.map(|a_day| format!("{} ({:.2} a week)", band(dora.deployments), a_day * 7.0));
    rows.push(vec!["  deployments".to_owned(), or(often, NOT_ENOUGH)]);
    rows
}

/// The report as CSV: seconds, shares of 1, nothing where there is nothing to say.
pub(super) fn csv(report: &Report) -> String {
    let mut text = String::from("group,incidents,open,excluded,impossible,overlapping,zero_length,");
    for time in ["mttd", "mtta_human", "mtta_automated", "mttr", "detected_to_recovered", "detected_to_resolved"] {
        for figure in ["median", "median_low", "median_high", "p90", "p95", "geometric_mean", "mean"] {
            let _ = write!(text, "{time}_{figure}_seconds,");
        }
        let _ = write!(text, "{time}_n,");
    }
    text += "km_median_seconds,km_median_low_seconds,km_median_high_seconds,";
    for share in ["success", "relapse", "rto_met", "rpo_met", "change_failure"] {
        let _ = write!(text, "{share}_share,{share}_low,{share}_high,{share}_n,");
    }
    text += "availability,coverage,mtbf_seconds,failures,error_rate_mean,error_rate_worst,services_hit,down_seconds,\
             requests,failed_requests,dora_time_to_restore,dora_change_failure,dora_deployments\n";
    let all = ("(all)".to_owned(), &report.all);
    for (name, figures) in report.groups.iter().map(|(name, figures)| (name.clone(), figures)).chain([all]) {
        text += &csv_row(&name, figures);
        text.push('\n');
    }
    text
}

fn csv_row(name: &str, figures: &Figures) -> String {
    let times = &figures.times;
    // Only an id from outside could hold a comma or a quote.
    let name =
        if name.contains([',', '"', '\n']) { format!("\"{}\"", name.replace('"', "\"\"")) } else { name.to_owned() };
    let mut cells = vec![name];
    let counts =
        [figures.incidents, times.open, times.excluded, times.impossible, figures.overlapping, figures.zero_length];
    cells.extend(counts.map(|n| n.to_string()));
    let number = |figure: Option<f64>| figure.map_or_else(String::new, |figure| figure.to_string());
    for summary in [
        times.detect,
        times.acknowledge_human,
        times.acknowledge_automated,
        times.recover,
        times.recover_from_detection,
        times.close,
    ] {
        let of = |pick: fn(&Summary) -> f64| number(summary.as_ref().map(pick));
        cells.extend([of(|s| s.median), of(|s| s.median_low), of(|s| s.median_high), of(|s| s.p90), of(|s| s.p95)]);
        cells.extend([of(|s| s.geometric_mean), of(|s| s.mean), summary.map_or(0, |s| s.n).to_string()]);
    }
    cells.extend([times.survival_median, times.survival_low, times.survival_high].map(number));
    let none = Proportion::default();
    let shares =
        [figures.success, figures.relapse, figures.rto_met, figures.rpo_met, figures.change_failure.unwrap_or(none)];
    for share in shares {
        cells.extend([number(share.share), number(share.low), number(share.high), share.whole.to_string()]);
    }
    let uptime = figures.uptime.unwrap_or_default();
    cells.extend([uptime.availability, uptime.coverage, uptime.mtbf_seconds].map(number));
    cells.push(uptime.failures.to_string());
    cells.extend([number(figures.error_rate.map(|it| it.mean)), number(figures.error_rate.map(|it| it.worst))]);
    cells.extend([figures.impact.services.to_string(), figures.impact.down_seconds.to_string()]);
    cells.extend([figures.impact.requests, figures.impact.failed_requests].map(number));
    let dora = figures.dora;
    let band = |band: Option<Band>| band.map_or("", Band::as_str).to_owned();
    cells.extend([dora.time_to_restore, dora.change_failure, dora.deployments].map(band));
    cells.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_rounded_before_their_units_are_chosen() {
        for (seconds, shown) in [
            (0.0, "0 s"),
            (0.3504, "350 ms"),
            (0.9996, "1.0 s"),
            (12.34, "12.3 s"),
            (59.94, "59.9 s"),
            (59.96, "1m 00s"),
            (200.4, "3m 20s"),
            (3_599.4, "59m 59s"),
            (3_599.6, "1h 00m"),
            (3_900.0, "1h 05m"),
            (86_369.0, "23h 59m"),
            (86_371.0, "1d 00h"),
            (187_200.0, "2d 04h"),
            (-150.0, "−2m 30s"),
        ] {
            assert_eq!(span(seconds), shown, "{seconds}");
        }
    }

    #[test]
    fn almost_always_is_not_always() {
        assert_eq!(fine_percent(0.999_999_9), "99.9999 %");
        assert_eq!(fine_percent(1.0), "100.0000 %");
        assert_eq!((p_value(0.03), p_value(1e-9)), ("p = 0.0300".into(), "p < 0.0001".into()));
    }
}
