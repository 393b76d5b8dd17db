//! Problems in a configuration, with their locations.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

/// A problem in a configuration or manifest. It never contains the value of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file; `None` if the setting is not from a file.
    #[serde(serialize_with = "lossy", skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// The line, from 1; 0 if it has none.
    pub line: usize,
    /// The environment variable of the setting, which then has no line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variable: Option<String>,
    /// The dotted path of the key (`delivery.concurrency`); empty for the document itself.
    pub key: String,
    /// What is wrong and how to fix it.
    pub message: String,
}

fn lossy<S: Serializer>(file: &Option<PathBuf>, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(&file.as_deref().unwrap_or(Path::new("")).display())
}

/// `ace.toml:12: delivery.concurrency: must be …`, or `ACE_DELIVERY__CONCURRENCY: must be …`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(variable) = &self.variable {
            return write!(f, "{variable}: {}", self.message);
        }
        match (&self.file, self.line) {
            (Some(file), 0) => write!(f, "{}: ", file.display())?,
            (Some(file), line) => write!(f, "{}:{line}: ", file.display())?,
            (None, 0) => {}
            (None, line) => write!(f, "line {line}: ")?,
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// All problems in a configuration: those of the file by line, then those of the environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

/// One problem per line.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}
