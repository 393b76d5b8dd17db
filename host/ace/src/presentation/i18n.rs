//! Languages: translated texts, plural rules, and how dates and numbers are formatted.

pub(super) mod conventions;
mod extract;
pub(super) mod formats;
pub(super) mod language_names;
pub(super) mod languages;
mod placeholders;
pub(super) mod plural;
mod po;
#[cfg(test)]
mod tests;
pub(super) mod translate;

pub use extract::{ExtractError, Extracted, extract};
