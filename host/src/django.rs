//! Brings Django templates over: reads a tree of them and writes it in Tera, so that each renders to what Django renders.
//!
//! What has no counterpart is named with file, line and a suggestion, and stays in the file as a comment; nothing is
//! dropped. [`import`] touches no file; [`folder`] reads and writes whole trees.

mod expression;
pub mod folder;
mod lexer;
mod messages;
mod parser;
mod project;
mod tags;
#[cfg(test)]
mod tests;
mod tree;
mod values;
mod writer;

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use project::Project;

/// Templates in Tera, and what is to be said about them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// Name below the folder, as `extends` and `include` have it, and text.
    pub files: BTreeMap<String, String>,
    /// By file and line.
    pub findings: Vec<Finding>,
}

impl Import {
    /// How many places somebody has to write anew.
    pub fn left(&self) -> usize {
        self.findings.iter().filter(|finding| finding.weight == Weight::Left).count()
    }
}

/// A place of a template that somebody should look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub file: String,
    /// From 1; in the Django template.
    pub line: usize,
    pub weight: Weight,
    /// The tag as it is written.
    pub source: String,
    pub why: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub suggestion: String,
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// It is not translated, and stays as a comment.
    Left,
    /// It is translated, and something about it should be known.
    Note,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weight = match self.weight {
            Weight::Left => "not translated",
            Weight::Note => "note",
        };
        write!(f, "{}:{}: {weight}: {}: {}", self.file, self.line, self.source, self.why)?;
        match self.suggestion.as_str() {
            "" => Ok(()),
            suggestion => write!(f, "\n  hint: {suggestion}"),
        }
    }
}

/// Translates templates that belong together.
pub fn import(templates: &BTreeMap<String, String>) -> Import {
    let trees = templates.iter().map(|(name, text)| (name.clone(), parser::parse(text)));
    let project = Project::new(trees.collect());
    let mut import = Import { files: BTreeMap::new(), findings: Vec::new() };
    for (name, nodes) in project.trees() {
        let (text, mut findings) = writer::write(&project, name, nodes);
        findings.sort_by_key(|finding| finding.line);
        import.files.insert(name.to_owned(), text);
        import.findings.extend(findings);
    }
    import
}
