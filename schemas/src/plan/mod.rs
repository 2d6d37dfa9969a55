//! The continuity plan: what is protected, how it is watched, and how it is brought back.
//!
//! [`Plan::parse`] reads TOML and gives a plan that holds together, or every fault at once, each with line, key and
//! remedy. A `Plan` can't be built otherwise, so whoever has one need not check again: ids are unique, references
//! lead somewhere, dependencies have no cycle. [`Plan::version`] is the content hash that decisions carry.

mod model;

pub use model::*;
