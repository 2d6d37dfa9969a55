//! Threads for SQL alone.

use std::num::NonZero;

use tokio::runtime::{Builder, Handle, Runtime};

/// Stack of a thread that plans and runs SQL: planners recurse deeper than usual threads have room for. Reserved
/// address space, of which only what is used is ever memory.
const STACK_BYTES: usize = 64 << 20;

/// Threads for SQL alone, so that a heavy query does not keep the other roles of the process waiting.
#[derive(Debug)]
pub(crate) struct Threads(Option<Runtime>);

impl Threads {
    pub(crate) fn new(name: &str) -> std::io::Result<Self> {
        let threads = std::thread::available_parallelism().map_or(2, NonZero::get);
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(threads).thread_name(name).thread_stack_size(STACK_BYTES).enable_all();
        builder.build().map(|runtime| Self(Some(runtime)))
    }

    pub(crate) fn handle(&self) -> &Handle {
        self.0.as_ref().expect("the runtime is taken only by drop").handle()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Not by dropping the runtime: that waits for its threads, which async code must not.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
