//! The program `ace`: the command line ([`commands`]), and the tools for plugin authors behind `ace plugin` ([`kit`]), and
//! the plugins and templates that are part of it ([`shipped`]).

mod commands;
mod kit;
mod shipped;

use std::process::ExitCode;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    commands::main()
}
