//! For tests of a plugin, in dev-dependencies with the feature `testing`: `cargo test` calls the plugin natively, without WebAssembly and
//! without a host.
//!
//! [`table_test!`](crate::table_test) runs the tables of cases in the project's folder `tests`, which `ace plugin test` runs in
//! the real runtime:
//!
//! ```
//! # use ace_plugin::{Message, policy::{Policy, PolicyResult}};
//! # struct QuietHours;
//! # impl Policy for QuietHours { fn check(_: &Message) -> Result<PolicyResult, String> { Ok(PolicyResult::pass()) } }
//! #[cfg(test)]
//! mod tests {
//!     ace_plugin::table_test!(policy super::QuietHours);
//! }
//! ```
//!
//! Each case runs in a separate process, as it has a separate instance in a host, so that cases do not share the plugin's `static`s. The
//! functions of this crate are simulated by the case: its config over the manifest's `[defaults]`, its facts in the buckets that the
//! manifest requests, its time, and its answers of HTTP and mail. The time zones are real.
//!
//! A native test does not check limits of time, memory and output (cases that expect such a fault are skipped), the exact text of a
//! trap, and whether the host would accept the message. `ace plugin test` checks all of them.
//!
//! [`response`], [`recoverable`] and the like are for unit tests of how a channel interprets its provider's answers.

mod answers;
mod case;
mod manifest;
mod table;
pub(crate) mod world;

pub use answers::{Answer, comes_back_at, fatal, recoverable, response};
pub use table::Table;

/// Defines a test that runs the tables in the project's folder `tests` natively and compares the answers with the expected ones. The
/// first word is the kind of plugin: `policy`, `channel`, `resolver` or `feedback`. The manifest is `NAME.toml` in the project's folder, where
/// NAME is that of the package.
///
/// ```
/// # use ace_plugin::{Message, policy::{Policy, PolicyResult}};
/// # struct QuietHours;
/// # impl Policy for QuietHours { fn check(_: &Message) -> Result<PolicyResult, String> { Ok(PolicyResult::pass()) } }
/// ace_plugin::table_test!(policy QuietHours);
/// ```
#[macro_export]
macro_rules! table_test {
    ($kind:ident $plugin:ty) => {
        #[test]
        fn table() {
            let test = concat!(module_path!(), "::table");
            $crate::testing::Table::of_project(env!("CARGO_MANIFEST_DIR"), env!("CARGO_PKG_NAME"))
                .$kind::<$plugin>(test);
        }
    };
}
