//! Django's filters and comparisons, for templates that `ace templates import` converts. They follow Django's rules instead of Tera's:
//! an undefined value is an empty string, `None`, `True` and `False` are formatted as in Python, and strings stay safe in the same
//! cases as in Django.
//!
//! All are pure and bounded: the output is at most a constant factor longer than the input, or its size is checked.

mod comparisons;
mod dates;
mod html;
mod humanize;
mod lists;
mod members;
mod numbers;
mod percent;
pub(super) mod python;
mod since;
mod strings;
#[cfg(test)]
mod tests;

use tera::{Kwargs, State, Tera, TeraResult, Value};

use super::rendering;
use crate::config;
pub(super) use html::{escape_into, escaped, unescaped};
pub(super) use strings::url_encoded;

pub(super) fn register(tera: &mut Tera, settings: &config::Presentation) {
    tera.register_filter("text", |value: &Value, _: Kwargs, _: &State| text(value));
    tera.register_filter("localize", |value: &Value, _: Kwargs, _: &State| text(value));
    tera.register_filter("unlocalize", |value: &Value, _: Kwargs, _: &State| {
        if value.is_string() { value.clone() } else { Value::from(python::text(value)) }
    });
    tera.register_filter("default_if_none", |value: Value, kwargs: Kwargs, _: &State| {
        if value.is_none() { kwargs.must_get::<Value>("value") } else { Ok(value) }
    });
    tera.register_filter("yesno", yesno);
    tera.register_filter("gettext", gettext);
    tera.register_filter("json_encode", json_encode);
    strings::register(tera);
    html::register(tera);
    lists::register(tera);
    members::register(tera);
    numbers::register(tera);
    percent::register(tera);
    dates::register(tera, settings);
    since::register(tera, settings);
    humanize::register(tera, settings);
    comparisons::register(tera);
}

/// A value as Django renders it. A string stays safe.
fn text(value: &Value) -> TeraResult<Value> {
    if value.is_string() {
        return Ok(value.clone());
    }
    if value.is_number() {
        return numbers::localized(value).map(Value::from);
    }
    Ok(Value::from(python::text(value)))
}

fn yesno(value: &Value, kwargs: Kwargs, _: &State) -> TeraResult<Value> {
    const WORDS: &str = "yes,no,maybe";
    let default =
        || rendering::current(|rendering| Ok(rendering.language.word(None, WORDS).unwrap_or(WORDS).to_owned()));
    let choices = kwargs.get::<&Value>("choices")?.map_or_else(default, |choices| Ok(python::text(choices)))?;
    let choices: Vec<&str> = choices.split(',').collect();
    let (yes, no, maybe) = match choices[..] {
        [_] => return Ok(value.clone()),
        [yes, no, maybe] => (yes, no, maybe),
        [yes, no, ..] => (yes, no, no),
        [] => return Ok(value.clone()),
    };
    Ok(Value::from(if value.is_none() {
        maybe
    } else if value.is_truthy() {
        yes
    } else {
        no
    }))
}

/// The translation of a dynamic text. It is not trusted and has no placeholders.
fn gettext(value: &Value, kwargs: Kwargs, _: &State) -> TeraResult<Value> {
    let context: Option<&str> = kwargs.get("context")?;
    let id = python::text(value).replace('%', "%%");
    // The empty id is that of a catalogue's header.
    if id.is_empty() {
        return Ok(Value::from(""));
    }
    let translated = rendering::current(|rendering| Ok(rendering.language.text(context, &id).replace("%%", "%")))?;
    Ok(marked_as(value, translated))
}

/// A value as JSON, for templates of JSON files. An undefined value is `null`.
fn json_encode(value: &Value, kwargs: Kwargs, _: &State) -> TeraResult<String> {
    if let Some((name, _)) = kwargs.iter().next() {
        let name = name.as_str().unwrap_or_default();
        return Err(tera::Error::message(format!("json_encode takes no arguments, not `{name}`")));
    }
    let json = serde_json::to_string(value).map_err(|e| tera::Error::message(format!("json_encode: {e}")))?;
    check_bytes(json.len())?;
    Ok(json)
}

/// The text, marked as safe if the original value is.
fn marked_as(value: &Value, text: String) -> Value {
    if value.is_string() && value.is_safe() { Value::safe_string(&text) } else { Value::from(text) }
}

/// The result of a filter. If it fails in an operand with `caught=true`, the result is undefined and the operator is notified.
fn caught(kwargs: &Kwargs, filter: impl FnOnce() -> TeraResult<Value>) -> TeraResult<Value> {
    filter().or_else(|error| match kwargs.get("caught")? {
        Some(true) => rendering::current(|rendering| {
            rendering.note_operand_failure();
            Ok(Value::undefined())
        }),
        _ => Err(error),
    })
}

fn check_bytes(bytes: usize) -> TeraResult<()> {
    rendering::current(|rendering| rendering.check_bytes(bytes).map_err(tera::Error::message))
}
