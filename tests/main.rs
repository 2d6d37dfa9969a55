//! The integration tests: one binary, because each further one would cost a link of everything.
//!
//! They run the real program. Those that need Apache Kafka run when `REBOUND_TEST_KAFKA` names brokers
//! (`tests/kafka/kafka.sh start` prints them), and say so when they don't.

mod architecture;
mod config;
mod faults;
mod import;
mod listener;
mod pipeline;
mod readme;
mod support;
mod windows;
