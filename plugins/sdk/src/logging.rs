//! The host's log.

use crate::Level;
use crate::imports::logging;

/// Writes one line to the host's log, which adds the plugin's name and the message's uuid. The macros [`debug!`](crate::debug),
/// [`info!`](crate::info), [`warn!`](crate::warn) and [`error!`](crate::error) format it.
pub fn log(level: Level, message: &str) {
    logging::log(level, message);
}

/// Logs a line for whoever works on the plugin. Takes what `format!` takes.
#[macro_export]
macro_rules! debug {
    ($($line:tt)*) => { $crate::log($crate::Level::Debug, &::std::format!($($line)*)) };
}

/// Logs that something worth knowing happened. Takes what `format!` takes.
///
/// ```no_run
/// let user = 7;
/// ace_plugin::info!("user {user} has no device");
/// ```
#[macro_export]
macro_rules! info {
    ($($line:tt)*) => { $crate::log($crate::Level::Info, &::std::format!($($line)*)) };
}

/// Logs that something went wrong and was dealt with. Takes what `format!` takes.
#[macro_export]
macro_rules! warn {
    ($($line:tt)*) => { $crate::log($crate::Level::Warn, &::std::format!($($line)*)) };
}

/// Logs that someone must act. Takes what `format!` takes.
#[macro_export]
macro_rules! error {
    ($($line:tt)*) => { $crate::log($crate::Level::Error, &::std::format!($($line)*)) };
}
