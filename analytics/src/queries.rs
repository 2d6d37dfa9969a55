//! Questions that an annual continuity review asks, as statements: worked examples of the reference page, and run by a
//! test over a history whose answers were worked out by hand.

#[cfg(test)]
mod tests;

/// A question.
#[derive(Debug, Clone, Copy)]
pub struct Query {
    /// What it is about.
    pub title: &'static str,
    /// What it asks, and how the answer is to be read.
    pub asks: &'static str,
    /// The statement.
    pub sql: &'static str,
}

/// Every question.
pub const REVIEW: &[Query] = &[
    Query {
        title: "Recovery time by quarter and tier, against the objective",
        asks: "Median and 90th percentile of t3 − t0 of what recovered; the share within the objective also counts \
               open incidents that are past it.",
        sql: "SELECT date_trunc('quarter', first_failure_at)::DATE AS quarter, tier,
       count(mttr_seconds) AS recovered, median(mttr_seconds) AS median_seconds,
       percentile_cont(0.9) WITHIN GROUP (ORDER BY mttr_seconds) AS p90_seconds,
       count(*) FILTER (WHERE rto_met)::DOUBLE / nullif(count(rto_met), 0) AS rto_met_share
FROM attainment
GROUP BY 1, 2 ORDER BY 1, 2",
    },
    Query {
        title: "Recovery time objectives met, by service",
        asks: "Of how many incidents it can be judged, and how many met it; not judged are those without an objective \
               and open ones that are not past it yet.",
        sql: "SELECT service, any_value(rto_seconds) AS rto_seconds, count(*) AS incidents, count(rto_met) AS judged,
       count(*) FILTER (WHERE rto_met) AS met, max(lasted_seconds) AS longest_seconds
FROM attainment
GROUP BY service ORDER BY service",
    },
    Query {
        title: "Recovery point objectives met, and of how many that is known",
        asks: "Data lost is t0 − the newest data that was brought back. A share is worth little where `known` is far \
               below `recovered`.",
        sql: "SELECT service, count(recovered_at) AS recovered, count(rpo_met) AS known,
       count(*) FILTER (WHERE rpo_met) AS met, max(data_loss_seconds) / 3600 AS most_lost_hours
FROM attainment
GROUP BY service ORDER BY service",
    },
    Query {
        title: "Objectives as promised then, and as promised now",
        asks: "Whether an incident met the objective of the plan in force at its t0, where that differs from the \
               present one's verdict: no figure should change because the plan did.",
        sql: "SELECT incident, service, mttr_seconds, promised_rto_seconds, promised_rto_met, rto_seconds, rto_met
FROM attainment
WHERE promised_rto_met <> rto_met ORDER BY incident",
    },
    Query {
        title: "Objectives that changed",
        asks: "What was promised of each service, from when until when.",
        sql: "SELECT service, rto_seconds, rpo_seconds, valid_from_at, valid_to_at
FROM plan_objectives
WHERE service IN (SELECT service FROM plan_objectives GROUP BY service HAVING count(*) > 1)
ORDER BY service, valid_from_at",
    },
    Query {
        title: "Top causes",
        asks: "By time lost, with the share of all of it; drills are left out.",
        sql: "SELECT cause, count(*) AS incidents, sum(lasted_seconds) AS lost_seconds,
       sum(lasted_seconds) / (SELECT sum(lasted_seconds) FROM attainment WHERE NOT drill) AS share
FROM attainment
WHERE NOT drill
GROUP BY cause ORDER BY lost_seconds DESC, cause",
    },
    Query {
        title: "Repeat offenders and relapses",
        asks: "Services by incidents, and how often they failed again within 24 hours of recovering, of those that had \
               that long.",
        sql: "SELECT service, count(*) AS incidents, count(*) FILTER (WHERE relapsed) AS relapses,
       count(relapsed) AS judged
FROM attainment
GROUP BY service ORDER BY incidents DESC, service",
    },
    Query {
        title: "Automated against manual recovery",
        asks: "Recovery time by who brought it back; `km_median` counts open incidents as lasting at least until now.",
        sql: "SELECT automation, count(*) AS incidents, median(mttr_seconds) AS median_seconds,
       geo_mean(mttr_seconds) AS geometric_mean_seconds
FROM attainment
WHERE NOT drill
GROUP BY automation ORDER BY automation",
    },
    Query {
        title: "Success of recoveries by procedure",
        asks: "Recoveries that ran to an end, how many of them were verified to have succeeded, and how long they took.",
        sql: "SELECT procedure, count(*) AS ended, count(*) FILTER (WHERE outcome = 'succeeded') AS succeeded,
       median(duration_seconds) AS median_seconds
FROM recoveries
WHERE outcome IS NOT NULL AND outcome <> 'cancelled'
GROUP BY procedure ORDER BY procedure",
    },
    Query {
        title: "Drills against what really happened",
        asks: "Whether people and procedures are as fast on an ordinary day as in an exercise.",
        sql: "SELECT CASE WHEN drill THEN 'drill' ELSE 'real' END AS what, count(*) AS incidents,
       median(mttr_seconds) AS median_seconds, max(mttr_seconds) AS longest_seconds
FROM attainment
GROUP BY 1 ORDER BY 1",
    },
    Query {
        title: "Drills and their objectives",
        asks: "Each run with what it was to reach.",
        sql: "SELECT drill, run, passed, detected_seconds, detect_within_seconds, recovered_seconds,
       recover_within_seconds, faults, failed_checks
FROM drills
ORDER BY started_at",
    },
    Query {
        title: "Availability by service and month, unobserved time apart",
        asks: "Good time ÷ observed time outside maintenance. Nobody knows what happened in the unobserved hours: they \
               are neither good nor bad.",
        sql: "SELECT service, date_trunc('month', day_at)::DATE AS month,
       sum(good_seconds) / nullif(sum(observed_seconds) - sum(maintenance_seconds), 0) AS availability,
       sum(down_seconds) AS down_seconds, sum(unobserved_seconds) / 3600 AS unobserved_hours,
       sum(observed_seconds) / sum(calendar_seconds) AS coverage
FROM availability_daily
GROUP BY 1, 2 ORDER BY 1, 2",
    },
    Query {
        title: "The longest outages",
        asks: "Stretches in which a service was down; incidents that overlap are one.",
        sql: "SELECT service, started_at, ended_at, duration_seconds, incidents
FROM outages
ORDER BY duration_seconds DESC, service LIMIT 5",
    },
    Query {
        title: "Exposure by the age of backups",
        asks: "How old the newest restorable data was when something failed, whether or not a restore was needed.",
        sql: "SELECT i.incident, i.service, max(b.data_until_at) AS newest_data_at,
       (extract(epoch FROM i.first_failure_at) - max(extract(epoch FROM b.data_until_at))) / 3600 AS hours
FROM incidents i
JOIN backups b ON b.service = i.service AND b.succeeded AND b.finished_at <= i.first_failure_at
WHERE NOT i.excluded
GROUP BY i.incident, i.service, i.first_failure_at ORDER BY i.incident",
    },
    Query {
        title: "Backups: failed, and never verified",
        asks: "A backup that nobody restored from is a hope.",
        sql: "SELECT service, backup, count(*) AS runs, count(*) FILTER (WHERE NOT succeeded) AS failed,
       count(*) FILTER (WHERE succeeded AND verified IS NULL) AS not_verified,
       count(*) FILTER (WHERE NOT verified) AS not_restorable
FROM backups
GROUP BY service, backup ORDER BY service, backup",
    },
    Query {
        title: "Change-failure rate",
        asks: "Distinct deployments that failed or were rolled back, at once or later, ÷ distinct deployments.",
        sql: "SELECT service, count(*) AS deployments, count(*) FILTER (WHERE failed) AS failed,
       count(*) FILTER (WHERE failed)::DOUBLE / count(*) AS rate
FROM deployments
GROUP BY service ORDER BY service",
    },
    Query {
        title: "Incidents within an hour of a deployment",
        asks: "What a change may have broken, whatever the deploying system said of it.",
        sql: "SELECT d.deployment, d.service, d.outcome, i.incident,
       extract(epoch FROM i.first_failure_at) - extract(epoch FROM d.finished_at) AS after_seconds
FROM deployments d
JOIN incidents i ON i.service = d.service AND i.first_failure_at >= d.finished_at
     AND i.first_failure_at < d.finished_at + INTERVAL '1 hour'
WHERE NOT i.excluded ORDER BY d.deployment, i.incident",
    },
    Query {
        title: "Open incidents and their age",
        asks: "What still lasts, oldest first, and whether it is past its objective.",
        sql: "SELECT incident, service, tier, first_failure_at, lasted_seconds / 86400 AS days, rto_met, acknowledged_by
FROM incidents
WHERE open AND NOT excluded ORDER BY first_failure_at",
    },
    Query {
        title: "The slowest steps",
        asks: "Where recoveries spend their time, and which steps have to be tried again.",
        sql: "SELECT r.procedure, s.step, count(*) AS runs, median(s.duration_seconds) AS median_seconds,
       max(s.duration_seconds) AS longest_seconds, count(*) FILTER (WHERE s.outcome <> 'succeeded') AS failed
FROM recovery_steps s
JOIN recoveries r ON r.recovery = s.recovery
GROUP BY r.procedure, s.step ORDER BY median_seconds DESC, s.step LIMIT 10",
    },
    Query {
        title: "Corrections, and what they did to the figures",
        asks: "Every restatement with who made it and why, and recovery time before and after.",
        sql: "SELECT c.incident, c.corrected_by, c.reason, c.excluded,
       extract(epoch FROM i.original_recovered_at) - extract(epoch FROM i.original_first_failure_at) AS before_seconds,
       i.mttr_seconds AS now_seconds
FROM corrections c
JOIN incidents i ON i.incident = c.incident
ORDER BY c.corrected_at",
    },
    Query {
        title: "Before and after an improvement",
        asks: "Recovery time of the service that it is about, before and from when it was done. `rebound compare \
               --improvement NAME` tests whether chance alone could make the difference.",
        sql: "SELECT m.improvement, CASE WHEN a.first_failure_at < m.closed_at THEN '1 before' ELSE '2 after' END AS side,
       count(*) AS incidents, median(a.mttr_seconds) AS median_seconds
FROM improvements m
JOIN attainment a ON a.service = m.subject
WHERE m.done
GROUP BY 1, 2 ORDER BY 1, 2",
    },
    Query {
        title: "From alert to recovery",
        asks: "How far alerts came: told to somebody, taken on, a recovery tried, recovered.",
        sql: "SELECT count(*) AS alerts, count(a.suppressed_by) AS suppressed, count(a.notified_at) AS told,
       count(i.acknowledged_at) AS taken_on, count(*) FILTER (WHERE i.recoveries > 0) AS recovery_tried,
       count(i.recovered_at) AS recovered
FROM alerts a
JOIN incidents i ON i.incident = a.incident",
    },
    Query {
        title: "Detection and acknowledgement",
        asks: "MTTD is t1 − t0; MTTA is t2 − t1, by people and by automation apart.",
        sql: "SELECT tier, median(mttd_seconds) AS mttd, median(mtta_human_seconds) AS mtta_by_people,
       median(mtta_automated_seconds) AS mtta_by_automation
FROM incidents
WHERE NOT excluded GROUP BY tier ORDER BY tier",
    },
    Query {
        title: "Recovery time with what is still open",
        asks: "Kaplan–Meier: half have recovered after the median, and this share lasts longer than an hour.",
        sql: "SELECT service, km_median(lasted_seconds, recovered_at IS NOT NULL) AS median_seconds,
       km_survival(lasted_seconds, recovered_at IS NOT NULL, 3600) AS longer_than_an_hour
FROM attainment
GROUP BY service ORDER BY service",
    },
    Query {
        title: "Is recovery getting better",
        asks: "Theil–Sen's slope of the months' medians in seconds a day, and Mann–Kendall's p: below 0.05, a trend. \
               NULL of fewer than three months.",
        sql: "SELECT count(*) AS months, theil_sen_slope(m, month) AS seconds_a_day, mann_kendall_p(m, month) AS p
FROM (SELECT date_trunc('month', first_failure_at) AS month, median(mttr_seconds) AS m
      FROM attainment WHERE mttr_seconds IS NOT NULL GROUP BY 1) t",
    },
    Query {
        title: "What people were told, and what did not reach them",
        asks: "Messages by channel: sent, given up, and how long sending took.",
        sql: "SELECT channel, count(*) AS messages, count(sent_at) AS sent,
       count(*) FILTER (WHERE sent_at IS NULL AND failed_at IS NOT NULL) AS given_up,
       max(delay_seconds) AS longest_delay_seconds
FROM notifications
GROUP BY channel ORDER BY channel",
    },
    Query {
        title: "What the log is worth",
        asks: "Everything odd that was found, and what was made of it.",
        sql: "SELECT finding, n, meaning, example FROM data_quality WHERE n > 0 ORDER BY finding",
    },
];
