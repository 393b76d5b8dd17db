//! Converts Django templates to Tera, so that each renders to the same text as in Django.
//!
//! A tag without a counterpart is reported with file, line and a suggestion, and stays in the file as a comment; nothing is dropped.
//! [`import`] works in memory; [`folder`] reads and writes whole folders.

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

/// How custom tags and filters are translated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether to leave out unknown tags and filters, and keep the text or value that they enclose. Each is reported as
    /// [`Severity::Stub`].
    pub stub: bool,
    /// Replacements for custom tags, by name.
    pub tags: BTreeMap<String, Tag>,
    /// Replacements for custom filters, by name: Django filters as they are written in a template. If empty, the value is left as it
    /// is.
    pub filters: BTreeMap<String, String>,
}

/// The replacement for a custom tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tag {
    /// A text.
    Text(String),
    /// A value, as it is written in a Django template: `site.domain`.
    Value(String),
    /// A setting that the template function `setting` returns.
    Setting(String),
}

/// Templates in Tera, and the findings about them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The text of each template, by its name as in `extends` and `include`.
    pub files: BTreeMap<String, String>,
    /// Sorted by file and line.
    pub findings: Vec<Finding>,
    /// The routes that `{% url %}` refers to, by name, and the arguments that each is called with: `{pk} {slug}`, or `{value1}`.
    pub routes: BTreeMap<String, BTreeSet<String>>,
}

impl Import {
    /// The number of findings of a severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

/// A part of a template that needs attention.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The template's path below its folder.
    pub file: String,
    /// The line in the Django template, from 1; 0 for the file as a whole.
    pub line: usize,
    /// How much it matters.
    pub severity: Severity,
    /// The tag as it is written in the template.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// What is wrong with it, or what to know about it.
    pub reason: String,
    /// How to fix it; empty if there is nothing to fix.
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
    /// It was not translated and stays as a comment, or it refers to a file that does not exist.
    Untranslated,
    /// A custom tag or filter that was left out because of [`Options::stub`].
    Stub,
    /// It was translated, with a difference to know about.
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

/// As [`import`]. `elsewhere`: templates that were imported into the same folder before.
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
        // A variant of a file has the same findings.
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

/// The files that a template may refer to: the string literals in its `extends`, `include` and `with` tags.
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
