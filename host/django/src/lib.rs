//! Brings Django templates over: reads a tree of them and writes it in Tera, so that each renders to what Django renders.
//!
//! What has no counterpart is named with file, line and a suggestion, and stays in the file as a comment; nothing is
//! dropped. [`import`] touches no file; [`folder`] reads and writes whole trees.

#![warn(missing_docs, unreachable_pub)]

mod expression;
mod fault;
mod flat;
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

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use project::{Project, Variant};

/// How a project's own parts are translated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether tags and filters that nothing else is known of are left out, with the value or text that they are about staying.
    /// Each is named as [`Severity::Stub`].
    pub stub: bool,
    /// What stands for the project's own tags, by their names.
    pub tags: BTreeMap<String, Tag>,
    /// Filters as Django writes them that stand for the project's own, by their names; empty, the value stays as it is.
    pub filters: BTreeMap<String, String>,
}

/// What stands for a tag of a project's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tag {
    /// This text.
    Text(String),
    /// A value, as Django writes it: `site.domain`.
    Value(String),
    /// A setting that the template function `setting` knows.
    Setting(String),
}

/// Templates in Tera, and what is to be said about them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// Name below the folder, as `extends` and `include` have it, and text.
    pub files: BTreeMap<String, String>,
    /// By file and line.
    pub findings: Vec<Finding>,
    /// The pages that `{% url %}` asks for by name, and how: `pk, slug`, or `2 values`.
    pub routes: BTreeMap<String, BTreeSet<String>>,
}

impl Import {
    /// How many findings have this severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

/// A place of a template that somebody should look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The template's name below its folder.
    pub file: String,
    /// From 1; in the Django template. 0 where the file as a whole is meant.
    pub line: usize,
    /// How much it matters.
    pub severity: Severity,
    /// The tag as it is written.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// What is wrong with it, or should be known of it.
    pub reason: String,
    /// What to do about it; empty: nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub suggestion: String,
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Severity {
    /// The file or folder could not be read.
    Unreadable,
    /// It is not translated and stays as a comment, or it names a file that does not exist.
    Untranslated,
    /// A tag or filter of the project's own that was left out, as [`Options::stub`] demands.
    Stub,
    /// It is translated, and something about it should be known.
    Note,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Unreadable => {
                return write!(f, "{}: not read: {}\n  hint: {}", self.file, self.reason, self.suggestion);
            }
            Severity::Untranslated => "not translated",
            Severity::Stub => "stub",
            Severity::Note => "note",
        };
        write!(f, "{}:{}: {severity}: {}: {}", self.file, self.line, self.source, self.reason)?;
        match self.suggestion.as_str() {
            "" => Ok(()),
            suggestion => write!(f, "\n  hint: {suggestion}"),
        }
    }
}

/// Translates templates that belong together.
pub fn import(templates: &BTreeMap<String, String>, options: &Options) -> Import {
    import_with(templates, options, &BTreeSet::new())
}

/// As [`import`]; `elsewhere` are templates that will be beside them, imported before.
fn import_with(templates: &BTreeMap<String, String>, options: &Options, elsewhere: &BTreeSet<String>) -> Import {
    let trees = templates.iter().map(|(name, text)| (name.clone(), parser::parse(text)));
    let project = Project::new(trees.collect(), elsewhere.clone());
    let mut import = Import { files: BTreeMap::new(), findings: Vec::new(), routes: BTreeMap::new() };
    let mut waiting: Vec<Variant> = templates.keys().map(|name| Variant::own(name, &project)).collect();
    let mut written = BTreeSet::new();
    while let Some(variant) = waiting.pop() {
        let name = variant.name();
        if !written.insert(name.clone()) {
            continue;
        }
        let Some(mut done) = writer::write(&project, options, &variant) else { continue };
        // A copy says the same of the same places.
        done.findings.retain(|finding| !import.findings.contains(finding));
        import.files.insert(name, done.text);
        import.findings.extend(done.findings);
        for (route, form) in done.routes {
            import.routes.entry(route).or_default().insert(form);
        }
        waiting.extend(done.variants);
    }
    import.findings.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    import
}

/// The files that a template names: what it extends and includes, and names that it gives to what it includes.
fn named_files(text: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for token in lexer::tokens(text) {
        let lexer::Kind::Tag(content) = token.kind else { continue };
        let words = lexer::words(content);
        if !matches!(words.first(), Some(&("include" | "extends" | "with"))) {
            continue;
        }
        for word in words {
            let value = word.split_once('=').map_or(word, |(_, value)| value);
            if let Ok(expression::Expression { operand: expression::Operand::Text(name), .. }) =
                expression::Expression::parse(value)
            {
                named.insert(name);
            }
        }
    }
    named
}
