//! Django's tags as functions: time zones, proportions, languages and settings.

use tera::{Kwargs, Map, State, Tera, TeraResult, Value};

use crate::config::{self, Brand};
use crate::presentation::filters::python;
use crate::presentation::i18n::language_names::LANGUAGES;
use crate::presentation::i18n::{formats, languages};
use crate::presentation::rendering;

pub(super) fn register(tera: &mut Tera, settings: &config::Presentation, brand: &Brand) {
    let brand = brand.clone();
    tera.register_function("brand", move |kwargs: Kwargs, _: &State| -> TeraResult<String> {
        let name: &str = kwargs.must_get("name")?;
        match brand.value(name) {
            Some(value) if value.is_empty() && name == "name" => Err(tera::Error::message(
                "the sender has no name: set presentation.brand.name in ace.toml, or platform_name in the message",
            )),
            Some(value) => Ok(value),
            None => Err(tera::Error::message(format!("a brand has no `{name}`"))),
        }
    });
    tera.register_function("time_zone", |kwargs: Kwargs, _: &State| {
        let name = python::text(kwargs.must_get("name")?);
        let zone = match name.as_str() {
            "" | "None" => None,
            name => Some(formats::time_zone(name)?),
        };
        rendering::current(|rendering| {
            rendering.enter_zone(zone);
            Ok(Value::none())
        })
    });
    tera.register_function("end_time_zone", |_: Kwargs, _: &State| {
        rendering::current(|rendering| {
            rendering.leave_zone();
            Ok(Value::none())
        })
    });
    tera.register_function("widthratio", width_ratio);
    tera.register_function("get_language_info", language_info);
    let address = |url: &Option<url::Url>| url.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned());
    let known = [
        ("base-url", address(&settings.base_url)),
        ("static-url", settings.static_url.clone()),
        ("time-zone", settings.time_zone.iana_name().map(str::to_owned)),
        ("default-language", Some(settings.default_language.clone())),
    ];
    tera.register_function("setting", move |kwargs: Kwargs, _: &State| -> TeraResult<String> {
        let name: &str = kwargs.must_get("name")?;
        match known.iter().find(|(known, _)| *known == name) {
            Some((_, Some(value))) => Ok(value.clone()),
            Some((_, None)) => Err(tera::Error::message(format!("presentation.{name} is not set in ace.toml"))),
            None => Err(tera::Error::message(format!("templates have no setting `{name}`"))),
        }
    });
}

/// Django's `widthratio`: `value / max * width`, rounded half to even.
fn width_ratio(kwargs: Kwargs, _: &State) -> TeraResult<String> {
    let number = |name: &str| kwargs.must_get::<&Value>(name).map(|value| python::as_float(value).ok().flatten());
    let width = python::int(kwargs.must_get("width")?);
    let width = width.ok_or_else(|| tera::Error::message("the width of `widthratio` must be an integer"))?;
    let (Some(value), Some(max)) = (number("value")?, number("max")?) else { return Ok(String::new()) };
    if max == 0.0 {
        return Ok("0".to_owned());
    }
    let ratio = value / max * width as f64;
    Ok(if ratio.is_finite() { format!("{:.0}", ratio.round_ties_even() + 0.0) } else { String::new() })
}

/// Django's `get_language_info`: `code`, `name`, `name_local`, `name_translated` and `bidi`.
fn language_info(kwargs: Kwargs, _: &State) -> TeraResult<Value> {
    let requested = python::text(kwargs.must_get("code")?);
    let code = languages::normalized(&requested).unwrap_or_default();
    let generic = code.split('-').next().unwrap_or_default();
    let find = |code: &str| LANGUAGES.binary_search_by(|(known, ..)| (*known).cmp(code)).ok().map(|at| LANGUAGES[at]);
    let found = find(&code).or_else(|| find(generic));
    let (_, code, name, local, bidi) =
        found.ok_or_else(|| tera::Error::message(format!("Django does not have the language `{requested}`")))?;
    let translated = rendering::current(|rendering| Ok(rendering.language.text(None, name).to_owned()))?;
    let mut map = Map::new();
    for (key, text) in [("code", code), ("name", name), ("name_local", local), ("name_translated", &translated)] {
        map.insert(key.into(), Value::from(text));
    }
    map.insert("bidi".into(), Value::from(bidi));
    Ok(Value::from(map))
}
