//! Figures: projections of the event log, recovery statistics, SQL.
