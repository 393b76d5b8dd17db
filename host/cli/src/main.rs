//! The `ace` program: the command line ([`commands`]), and what `ace plugin` does for an author ([`kit`]).

mod commands;
mod kit;

use std::process::ExitCode;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    commands::main()
}
