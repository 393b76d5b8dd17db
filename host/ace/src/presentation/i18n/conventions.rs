//! How Django's languages write dates and numbers, and the words that its filters write: names of months, `a.m.`, `yes,no,maybe`.
//!
//! All of it is Django's own, in `conventions.txt`, which `tests/django/conventions.py` makes from an installed Django. A region
//! is asked first, then its language, then what Django has for all, which is how Django looks them up.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

use super::plural::{Count, PluralRule};

const TABLE: &str = include_str!("conventions.txt");
/// The section for what a language says nothing about.
const DEFAULT: &str = "default";
/// The line of a section that says which of a word's forms belongs to a number.
const PLURALS: &str = "PLURALS";
/// A region and its language.
const SECTIONS_MAX: usize = 2;

/// What Django knows of a language; nothing, where it does not have it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Conventions {
    sections: [Option<&'static Section>; SECTIONS_MAX],
}

/// How whole numbers and fractions are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Separators {
    pub decimal: Cow<'static, str>,
    pub thousand: Cow<'static, str>,
    /// Digits between two separators; 0: none are written.
    pub grouping: usize,
}

#[derive(Debug)]
struct Section {
    lines: HashMap<&'static str, &'static str>,
    plurals: Option<PluralRule>,
}

/// Sections are read when they are first asked for.
static SECTIONS: LazyLock<HashMap<&str, (&str, OnceLock<Section>)>> = LazyLock::new(|| {
    let sections = TABLE.split("\n[").skip(1).filter_map(|section| section.split_once(']'));
    sections.map(|(name, text)| (name, (text, OnceLock::new()))).collect()
});

fn section(name: &str) -> Option<&'static Section> {
    let (text, section) = SECTIONS.get(name)?;
    Some(section.get_or_init(|| {
        let lines: HashMap<_, _> = text.lines().filter_map(|line| line.split_once('\t')).collect();
        let plurals = lines.get(PLURALS).and_then(|rule| PluralRule::parse(rule).ok());
        Section { lines, plurals }
    }))
}

impl Conventions {
    /// Of the first of these languages that Django has, and the next of them.
    pub(crate) fn of<'a>(codes: impl Iterator<Item = &'a str>) -> Conventions {
        let mut conventions = Conventions::default();
        for (place, found) in conventions.sections.iter_mut().zip(codes.filter_map(section)) {
            *place = Some(found);
        }
        conventions
    }

    /// Whether Django has the language.
    pub(crate) fn is_known(&self) -> bool {
        self.sections[0].is_some()
    }

    /// What a format that Django has by name is in this language: letters of its filter `date`.
    pub(crate) fn format(&self, name: &str) -> Option<&'static str> {
        self.line(name).or_else(|| section(DEFAULT)?.lines.get(name).copied())
    }

    pub(crate) fn separators(&self) -> Separators {
        let sign = |name| self.format(name).unwrap_or_default();
        Separators {
            decimal: sign("DECIMAL_SEPARATOR").into(),
            thousand: sign("THOUSAND_SEPARATOR").into(),
            grouping: sign("NUMBER_GROUPING").parse().unwrap_or_default(),
        }
    }

    /// A word of Django's in this language, where it is another than in English.
    pub(crate) fn word(&self, context: Option<&str>, id: &str) -> Option<&'static str> {
        self.line(&match context {
            None => Cow::Borrowed(id),
            Some(context) => Cow::Owned(format!("{context}|{id}")),
        })
    }

    /// The form of a word of Django's for a number.
    pub(crate) fn plural(&self, id: &str, count: Count) -> Option<&'static str> {
        self.sections.iter().flatten().find_map(|section| {
            let form = section.plurals.as_ref()?.form(count)?;
            section.lines.get(format!("{id}|{form}").as_str()).copied()
        })
    }

    fn line(&self, name: &str) -> Option<&'static str> {
        self.sections.iter().flatten().find_map(|section| section.lines.get(name).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(codes: &[&str]) -> Conventions {
        Conventions::of(codes.iter().copied())
    }

    #[test]
    fn a_region_is_asked_first_then_its_language_then_django() {
        let mexico = of(&["es-mx", "es"]);
        assert_eq!(mexico.separators(), Separators { decimal: ".".into(), thousand: ",".into(), grouping: 3 });
        assert_eq!(mexico.word(None, "Sunday"), Some("Domingo"));
        let spain = Separators { decimal: ",".into(), thousand: "\u{a0}".into(), grouping: 3 };
        assert_eq!(of(&["es"]).separators(), spain);
        assert_eq!(of(&["es"]).format("DATETIME_FORMAT"), Some(r"j \d\e F \d\e Y \a \l\a\s H:i"));
        assert_eq!(of(&["af"]).format("DATE_FORMAT"), Some("N j, Y"));
        assert_eq!(of(&["fr"]).word(Some("abbrev. month"), "Feb."), Some("fév."));
        assert_eq!(of(&["xx"]).format("DATE_FORMAT"), Some("N j, Y"));
        assert!(of(&["af"]).is_known() && !of(&["xx"]).is_known());
    }

    #[test]
    fn every_section_can_be_read() {
        for name in SECTIONS.keys() {
            let section = section(name).expect("it is there");
            assert_eq!(section.plurals.is_some(), section.lines.contains_key(PLURALS), "{name}");
        }
        assert!(SECTIONS.len() > 97, "{}", SECTIONS.len());
    }
}
