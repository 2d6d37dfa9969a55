//! `rebound compare`: recovery times before and after an improvement or a date.

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use clap::{ArgGroup, Args};
use rebound_analytics::comparison::{Comparison, Side, Verdict};
use rebound_analytics::mttr::observations;
use rebound_analytics::report::Case;
use rebound_schemas::ServiceId;
use rebound_schemas::plan::suggest;
use serde::Serialize;

use super::show::{self, NONE, NOT_ENOUGH, Notes, or, p_value, span, table};
use super::{Loaded, Output, Scope};
use crate::cli::Done;
use crate::config::Config;

/// Did it help: recovery times before and after, and whether chance alone could make the difference.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(true).args(["improvement", "before", "after"]))]
pub(crate) struct Compare {
    /// The improvement; before and after is when it was done (`improvement.closed`), and only incidents of the service
    /// that it is about count, if it is about one.
    #[arg(long, value_name = "ID", conflicts_with_all = ["before", "after"])]
    improvement: Option<String>,
    /// Incidents that began before then; without --after, the others are those after.
    #[arg(long, value_name = "TIME")]
    before: Option<String>,
    /// Incidents that began then or later; without --before, the others are those before.
    #[arg(long, value_name = "TIME")]
    after: Option<String>,
    #[command(flatten)]
    scope: Scope,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Answer {
    improvement: Option<String>,
    service: Option<ServiceId>,
    before: DateTime<Utc>,
    after: DateTime<Utc>,
    #[serde(flatten)]
    comparison: Comparison,
}

pub(crate) async fn compare(config: &Config, command: Compare) -> Result<Done> {
    let loaded = Loaded::new(config, &command.scope, false).await?;
    let cases = loaded.cases(&command.scope)?;
    let read = |text: &Option<String>, option: &str| {
        text.as_deref().map(|text| super::time(text, option, command.scope.tz, loaded.now)).transpose()
    };
    let (before, after, service) = match &command.improvement {
        Some(name) => improvement(&loaded, name)?,
        None => match (read(&command.before, "--before")?, read(&command.after, "--after")?) {
            (Some(before), Some(after)) if before > after => bail!(
                "--before {} is later than --after {}: incidents between them would be on both sides",
                show::time(before),
                show::time(after)
            ),
            (Some(before), Some(after)) => (before, after, None),
            (Some(at), None) | (None, Some(at)) => (at, at, None),
            (None, None) => bail!("say what to compare: --improvement ID, --before TIME or --after TIME"),
        },
    };
    let chosen = cases.iter().filter(|case| service.as_ref().is_none_or(|service| case.incident.service == *service));
    let chosen: Vec<&Case> = chosen.collect();
    let side = |within: &dyn Fn(DateTime<Utc>) -> bool| {
        let those = chosen.iter().map(|case| &case.incident).filter(|it| within(it.first_failure_at));
        observations(those, loaded.now)
    };
    let comparison = Comparison::of(&side(&|t0| t0 < before), &side(&|t0| t0 >= after), command.scope.seed);
    let answer = Answer { improvement: command.improvement, service, before, after, comparison };
    match command.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&answer)?),
        Output::Csv => print!("{}", csv(&answer)),
        Output::Table => print!("{}", text(&answer, &loaded, command.scope.seed)),
    }
    Ok(Done::Good)
}

/// When an improvement was done, twice, and the service that it is about: one that the plan or an incident knows.
fn improvement(loaded: &Loaded, name: &str) -> Result<(DateTime<Utc>, DateTime<Utc>, Option<ServiceId>)> {
    let found = loaded.surroundings.improvement_of(name).with_context(|| {
        let known: Vec<_> = loaded.surroundings.improvements().collect();
        let there = if known.is_empty() {
            "the log has none: `rebound emit --kind improvement.opened …` tells of one".to_owned()
        } else {
            suggest(name, known)
        };
        format!("no improvement is called {name:?}: {there}")
    })?;
    let done = found.done_at.with_context(|| {
        format!("the improvement {name:?} is not done: compare once `improvement.closed` says so, or give --after TIME")
    })?;
    let planned = loaded.plan.as_ref().is_some_and(|plan| plan.services().contains_key(&found.subject));
    let failed = loaded.record.incidents().any(|incident| incident.service == found.subject);
    Ok((done, done, (planned || failed).then(|| found.subject.clone())))
}

fn csv(answer: &Answer) -> String {
    let number = |figure: Option<f64>| figure.map_or_else(String::new, |figure| figure.to_string());
    let mut text = String::from("side,n,open,median_seconds,p90_seconds,geometric_mean_seconds,km_median_seconds\n");
    for (name, side) in [("before", &answer.comparison.before), ("after", &answer.comparison.after)] {
        let summary = side.recovered_seconds;
        let figures = [
            summary.map(|s| s.median),
            summary.map(|s| s.p90),
            summary.map(|s| s.geometric_mean),
            side.survival_median_seconds,
        ];
        text += &format!("{name},{},{},{}\n", side.n, side.open, figures.map(number).join(","));
    }
    text
}

fn text(answer: &Answer, loaded: &Loaded, seed: u64) -> String {
    let Answer { comparison, before, after, .. } = answer;
    let mut text = String::new();
    if let Some(name) = &answer.improvement {
        let title = loaded.surroundings.improvement_of(name).map_or("", |found| found.title.as_str());
        text += &format!("{name}{}{title}\n", if title.is_empty() { "" } else { ": " });
    }
    let of = answer.service.as_ref().map_or_else(|| "all services".to_owned(), ToString::to_string);
    text += &format!("recovery time (t3 − t0) of {of}\n\n");
    let row = |name: String, side: &Side| {
        let summary = side.recovered_seconds;
        let interval = summary.map(|s| format!("{} to {}", span(s.median_low), span(s.median_high)));
        vec![
            name,
            summary.map_or(0, |s| s.n).to_string(),
            side.open.to_string(),
            or(summary.map(|s| span(s.median)), NONE),
            or(interval, NONE),
            or(summary.map(|s| span(s.p90)), NONE),
            or(summary.map(|s| span(s.geometric_mean)), NONE),
            or(side.survival_median_seconds.map(span), NONE),
        ]
    };
    let header = ["", "n", "open", "median", "95 % interval", "p90", "geo. mean", "KM median"];
    let rows = [
        row(format!("before {}", show::time(*before)), &comparison.before),
        row(format!("from {} on", show::time(*after)), &comparison.after),
    ];
    text += &table(&header, 1, rows);
    text.push('\n');
    let verdict = match comparison.verdict {
        Verdict::Shorter => "shorter than before",
        Verdict::Longer => "longer than before",
        Verdict::NotDistinguishable => "not distinguishable: chance alone could make this difference",
        Verdict::NotEnoughData => NOT_ENOUGH,
    };
    text += &format!("Verdict: {verdict}\n");
    if let Some((p, test)) = comparison.p.zip(comparison.test) {
        text += &format!("Test: {}; {}\n", test.as_str(), p_value(p));
    }
    if let Some(shift) = comparison.shift_seconds {
        let [middle, low, high] = [shift.shift, shift.low, shift.high].map(span);
        text += &format!("Difference, after − before: {middle} (Hodges–Lehmann, 95 % {low} to {high})\n");
    }
    let mut notes = Notes::default();
    if comparison.verdict == Verdict::NotEnoughData {
        notes.say("With so few recoveries on a side even the clearest difference would not show at 5 %.");
    }
    if comparison.shift_seconds.is_none() && comparison.before.open + comparison.after.open > 0 {
        notes.say("The open ones last at least until now (censored): what they will differ by is not known yet.");
    }
    notes.say("Before and after differ in more than one thing: a difference does not say what made it.");
    notes.say(format!("Intervals of medians by bootstrap (2000 resamples, seed {seed})."));
    text + &notes.show()
}
