//! Template files: finds, reads, compiles and lists them.

pub(super) mod files;
mod listing;
pub(super) mod load;
pub(super) mod python_numbers;
#[cfg(test)]
mod tests;
pub(super) mod tokenizer;
mod undefined;

pub(crate) use listing::MessageTemplates;
