//! The error of invalid settings, options and contexts.

use std::fmt;

/// An invalid setting, option or part of the context. One line that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(String);

impl Error {
    /// An error with the invalid item (`options /cc`) and the reason (`expected a list of strings`).
    pub fn new(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Error(format!("{what}: {why}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<Error> for String {
    fn from(error: Error) -> Self {
        error.0
    }
}
