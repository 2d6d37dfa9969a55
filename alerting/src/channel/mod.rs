//! Notification channels.

pub mod guard;
