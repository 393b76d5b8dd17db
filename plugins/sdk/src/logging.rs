//! The host's log.

use crate::Level;
use crate::imports::logging;

/// Writes one line to the host's log, which adds the plugin's name and the message's uuid. See the macros [`debug!`](crate::debug),
/// [`info!`](crate::info), [`warn!`](crate::warn) and [`error!`](crate::error).
pub fn log(level: Level, message: &str) {
    logging::log(level, message);
}

/// Logs a line for developers of the plugin. Takes the arguments of `format!`.
#[macro_export]
macro_rules! debug {
    ($($line:tt)*) => { $crate::log($crate::Level::Debug, &::std::format!($($line)*)) };
}

/// Logs an event. Takes the arguments of `format!`.
///
/// ```no_run
/// let user = 7;
/// ace_plugin::info!("user {user} has no device");
/// ```
#[macro_export]
macro_rules! info {
    ($($line:tt)*) => { $crate::log($crate::Level::Info, &::std::format!($($line)*)) };
}

/// Logs a problem that was handled. Takes the arguments of `format!`.
#[macro_export]
macro_rules! warn {
    ($($line:tt)*) => { $crate::log($crate::Level::Warn, &::std::format!($($line)*)) };
}

/// Logs a problem that requires action. Takes the arguments of `format!`.
#[macro_export]
macro_rules! error {
    ($($line:tt)*) => { $crate::log($crate::Level::Error, &::std::format!($($line)*)) };
}
