//! Faults: why a part of a template cannot be translated, and how to fix that.

use super::expression::{Condition, Expression};

/// Why a tag or value cannot be translated, and how to fix that.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fault {
    pub reason: String,
    pub suggestion: String,
}

pub(crate) fn fault(reason: impl Into<String>, suggestion: impl Into<String>) -> Fault {
    Fault { reason: reason.into(), suggestion: suggestion.into() }
}

/// Parses an expression in a tag.
pub(crate) fn expression(word: &str) -> Result<Expression, Fault> {
    Expression::parse(word)
        .map_err(|e| fault(e.to_string(), "Django does not accept it either: correct the expression"))
}

/// Parses the condition of a tag.
pub(crate) fn condition(words: &[&str]) -> Result<Condition, Fault> {
    Condition::parse(words).map_err(|e| fault(e.to_string(), "Django does not accept it either: correct the condition"))
}
