//! From files to plugins that can be called.
//!
//! - [`registry`]: the plugin folder, and what a reload changes; [`load_tasks`]: one task for each plugin that is being loaded
//! - [`loader`]: one plugin from its files, with what it is given ([`host`]); [`versions`]: a new version against the current one
//! - [`stamp`]: notices changed files; [`signature`]: checks signatures
//! - [`code`]: the compiled code of components; [`component_file`]: reads, parses and compiles a component; [`compiler`]: does so in
//!   a child process; [`cache`]: compiled code on disk
//! - [`interfaces`]: compares imports and exports with what this host provides; [`inspection`]: what `ace plugin check` shows

pub(super) mod cache;
pub(super) mod code;
pub(crate) mod compiler;
pub(super) mod component_file;
pub(super) mod host;
pub mod inspection;
mod interfaces;
mod load_tasks;
pub(super) mod loader;
pub mod registry;
pub mod signature;
pub(super) mod stamp;
pub(super) mod versions;
