//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

/// One thing wrong with a configuration or a manifest. It never holds the value of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file it stands in; `None` where the settings came from no file.
    #[serde(serialize_with = "lossy", skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Its line, from 1; 0 where it stands on none.
    pub line: usize,
    /// The environment variable the value came from; then it stands on no line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variable: Option<String>,
    /// The dotted path of the key (`delivery.concurrency`); empty for the document itself.
    pub key: String,
    /// What is wrong and how to mend it.
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

/// Everything wrong with a configuration: what stands in the file by line, then what came from the environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

/// One line each.
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
