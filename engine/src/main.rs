//! The `lictor` binary: the command line around the engine.

mod cli;

use std::process::ExitCode;

/// Benchmarks name it, too (`benches/allocator.rs`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::run() {
        Ok(code) => code,
        Err(error) if cli::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lictor: {}", cli::explain(&error));
            ExitCode::FAILURE
        }
    }
}
