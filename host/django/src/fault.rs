//! Why something of a template could not be read or written, and what to do.

use super::expression::{Condition, Expression};
use super::tree::Left;

/// Why a tag could not be read, and what to do.
pub(crate) type Fault = Left;

pub(crate) fn fault(why: impl Into<String>, suggestion: impl Into<String>) -> Fault {
    Left { why: why.into(), suggestion: suggestion.into() }
}

/// An expression of a tag.
pub(crate) fn expression(word: &str) -> Result<Expression, Fault> {
    Expression::parse(word).map_err(|e| fault(e.to_string(), "Django does not read it either: correct the expression"))
}

/// The condition of a tag.
pub(crate) fn condition(words: &[&str]) -> Result<Condition, Fault> {
    Condition::parse(words).map_err(|e| fault(e.to_string(), "Django does not read it either: correct the condition"))
}
