//! The program `ace`: the command line ([`commands`]), and the tools for plugin authors behind `ace plugin` ([`kit`]).

mod commands;
mod kit;

use std::process::ExitCode;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    commands::main()
}
