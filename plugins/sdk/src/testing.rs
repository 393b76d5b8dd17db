//! For an author's own tests, in dev-dependencies with the feature `testing`: `cargo test` asks the plugin natively, without
//! WebAssembly and without a host.
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
//! Each case has a process of its own, as each has an instance of its own in a host: what the plugin keeps in a `static` is that
//! of one case. The functions of this crate ask the world that the case lays down: its config over the manifest's `[defaults]`,
//! its facts in the buckets that the manifest requests, its time of day, its answers of HTTP and mail. The time zones are real.
//!
//! What a native test cannot tell: limits of time, memory and output (a case that expects such a fault is left out), the exact
//! text of a trap, and whether the message is one that the host would take. `ace plugin test` tells them all.
//!
//! [`response`], [`recoverable`] and the like are for unit tests of what a channel makes of its provider's answers.

mod answers;
mod case;
mod manifest;
mod table;
pub(crate) mod world;

pub use answers::{Answer, comes_back_at, fatal, recoverable, response};
pub use table::Table;

/// Makes a test of the tables in the project's folder `tests`: every case is asked natively and must answer as it expects.
/// The first word says what the type is: `policy`, `channel` or `resolver`. The manifest is `NAME.toml` in the project's folder,
/// NAME being the package's.
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
