//! Tables of the plan as of any time: one row a thing for as long as the plans in force said the same of it.
//! `valid_from_at <= T AND (valid_to_at IS NULL OR T < valid_to_at)` is the plan at T.

use super::{Column, ColumnType, Table, tables};

tables! { PLANS:
    "plan_versions", "One row a plan while decisions were made under it." {
        plan Text "Content hash of the plan: what decisions carry.",
        name Text "What the plan is called.",
        services Long "Services that it protects.",
        valid_from_at Time "When it was adopted.",
        valid_to_at Time "When another was; NULL while it is in force.",
    }
    "plan_sites", "One row a site of the plan." {
        site Text "Its id.",
        purpose Text "What it is for.",
        recovery_time_seconds Double "How long until it can take over, in seconds.",
        capacity Double "Share of the normal load that it can carry: 1 is all of it.",
        plan Text "The first plan that said so.",
        valid_from_at Time "From when on.",
        valid_to_at Time "Until when; NULL while it holds.",
    }
    "plan_tiers", "One row a tier of the plan." {
        tier Text "Its id.",
        name Text "What it is called.",
        severity Text "How loudly its services' alerts ask for somebody.",
        plan Text "The first plan that said so.",
        valid_from_at Time "From when on.",
        valid_to_at Time "Until when; NULL while it holds.",
    }
    "plan_services", "One row a service of the plan." {
        service Text "Its id.",
        name Text "What it is called.",
        tier Text "Its tier.",
        site Text "Where it runs.",
        method Text "How it is brought back.",
        policy Text "Its policy.",
        procedure Text "What brings it back; NULL: people do.",
        plan Text "The first plan that said so.",
        valid_from_at Time "From when on.",
        valid_to_at Time "Until when; NULL while it holds.",
    }
    "plan_objectives", "One row a service of the plan: what was promised." {
        service Text "The service.",
        rto_seconds Double "Recovery time objective, in seconds.",
        rpo_seconds Double "Recovery point objective, in seconds.",
        plan Text "The first plan that said so.",
        valid_from_at Time "From when on.",
        valid_to_at Time "Until when; NULL while it holds.",
    }
    "plan_dependencies", "One row a dependency of the plan." {
        service Text "The service.",
        depends_on Text "The service or redundancy group that it needs.",
        kind Text "`service` or `group`.",
        plan Text "The first plan that said so.",
        valid_from_at Time "From when on.",
        valid_to_at Time "Until when; NULL while it holds.",
    }
    "plan_procedures", "One row a step of a procedure of the plan." {
        procedure Text "The procedure.",
        name Text "What it is called.",
        step_index Long "The step's place as written, from 0.",
        step Text "The step.",
        step_name Text "What it is for.",
        plan Text "The first plan that said so.",
        valid_from_at Time "From when on.",
        valid_to_at Time "Until when; NULL while it holds.",
    }
    "plan_backups", "One row a backup schedule of the plan." {
        backup Text "Its name.",
        service Text "The service whose data it holds.",
        kind Text "`full`, `incremental` or `snapshot`.",
        every_seconds Double "From one run to the next, in seconds.",
        retention_seconds Double "How long a backup is kept, in seconds.",
        verify_every_seconds Double "From one verification to the next, in seconds.",
        plan Text "The first plan that said so.",
        valid_from_at Time "From when on.",
        valid_to_at Time "Until when; NULL while it holds.",
    }
    "plan_service_levels", "One row a set of service-level thresholds of the plan." {
        service_level Text "Its name.",
        services Text "The services that it holds for, separated by commas; NULL: all.",
        response_seconds Double "Response time at most, in seconds.",
        throughput_per_second Double "Requests a second at least.",
        error_rate Double "Share of failed requests at most, 0 to 1.",
        availability Double "Share of good time at least, 0 to 1.",
        plan Text "The first plan that said so.",
        valid_from_at Time "From when on.",
        valid_to_at Time "Until when; NULL while it holds.",
    }
    "plan_drills", "One row a drill of the plan." {
        drill Text "Its id.",
        name Text "What it is called.",
        scenario Text "What is broken.",
        services Text "The services that are broken, separated by commas; NULL: all.",
        detect_within_seconds Double "Detected within this, in seconds.",
        recover_within_seconds Double "Recovered within this, in seconds.",
        plan Text "The first plan that said so.",
        valid_from_at Time "From when on.",
        valid_to_at Time "Until when; NULL while it holds.",
    }
}
