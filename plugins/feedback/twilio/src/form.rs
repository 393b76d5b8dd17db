//! The parameters of a form, as Twilio signs them.

use std::collections::{BTreeMap, BTreeSet};

/// The distinct values of each parameter, sorted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Form(BTreeMap<String, BTreeSet<String>>);

impl Form {
    pub fn parse(body: &[u8]) -> Self {
        let mut form = Form::default();
        for (name, value) in form_urlencoded::parse(body) {
            form.0.entry(name.into_owned()).or_default().insert(value.into_owned());
        }
        form
    }

    /// The value of a parameter, unless it is empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.first().map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Each name with each of its values, without anything between.
    pub fn joined(&self) -> String {
        self.0.iter().flat_map(|(name, values)| values.iter().flat_map(move |value| [name.as_str(), value])).collect()
    }
}
