//! The integration tests: one binary, because each further one would cost a link of everything.
//!
//! They run the real program. Those that need Apache Kafka run when `REBOUND_TEST_KAFKA` names brokers
//! (`tests/kafka/kafka.sh start` prints them), and say so when they don't.

mod architecture;
mod chaos;
mod config;
mod erlmcp;
mod faults;
mod figures;
mod gates;
mod hand_over;
mod import;
mod kafka_bus;
mod listener;
mod moves;
mod notify;
mod pipeline;
mod readme;
mod receiver;
mod recoveries;
mod sql;
mod sql_abuse;
mod support;
mod windows;
