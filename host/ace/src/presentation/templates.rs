//! Template files: finding, reading and compiling them, listing them, and their tokens.

pub(super) mod files;
mod listing;
pub(super) mod load;
pub(super) mod python_numbers;
#[cfg(test)]
mod tests;
pub(super) mod tokenizer;
mod undefined;

pub(crate) use listing::MessageTemplates;
