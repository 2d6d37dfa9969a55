//! The `rebound` program: arguments, settings, and the wiring of roles. Rules live in the crates below it.

mod cli;
mod commands;
mod config;
mod demo;
mod http;
mod roles;
mod telemetry;

/// Events are many small allocations on two threads: mimalloc takes a third off the log writer's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
