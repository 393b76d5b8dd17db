//! Django's formats of dates and numbers by language, and the words that its filters use: names of months, `a.m.`, `yes,no,maybe`.
//!
//! `tests/django/conventions.py` generates the data, `conventions.txt`, from an installed Django. As in Django, a region takes
//! precedence over its language, and a language over the defaults.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

use super::plural::{Count, PluralRule};

const TABLE: &str = include_str!("conventions.txt");
/// The section of values that a language does not define.
const DEFAULT: &str = "default";
/// The line of a section with its plural rule.
const PLURALS: &str = "PLURALS";
/// A language has at most two sections: its region's and its own.
const SECTIONS_MAX: usize = 2;

/// Django's conventions of a language. Empty if Django does not have the language.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Conventions {
    sections: [Option<&'static Section>; SECTIONS_MAX],
}

/// The separators of numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Separators {
    pub decimal: Cow<'static, str>,
    pub thousand: Cow<'static, str>,
    /// Digits between two thousands separators; 0 for no separators.
    pub grouping: usize,
}

#[derive(Debug)]
struct Section {
    lines: HashMap<&'static str, &'static str>,
    plurals: Option<PluralRule>,
}

/// The sections, parsed on first use.
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
    /// The conventions of the first two of these languages that Django has.
    pub(crate) fn of<'a>(codes: impl Iterator<Item = &'a str>) -> Conventions {
        let mut conventions = Conventions::default();
        for (slot, found) in conventions.sections.iter_mut().zip(codes.filter_map(section)) {
            *slot = Some(found);
        }
        conventions
    }

    /// Whether Django has the language.
    pub(crate) fn is_known(&self) -> bool {
        self.sections[0].is_some()
    }

    /// One of Django's named formats in this language, in the letters of its filter `date`.
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

    /// The translation of a word of Django's filters, if it differs from English.
    pub(crate) fn word(&self, context: Option<&str>, id: &str) -> Option<&'static str> {
        self.line(&match context {
            None => Cow::Borrowed(id),
            Some(context) => Cow::Owned(format!("{context}|{id}")),
        })
    }

    /// The plural form of a word of Django's filters for a number.
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
    fn a_region_takes_precedence_over_its_language_and_the_defaults() {
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
            let section = section(name).expect("a known name");
            assert_eq!(section.plurals.is_some(), section.lines.contains_key(PLURALS), "{name}");
        }
        assert!(SECTIONS.len() > 97, "{}", SECTIONS.len());
    }
}
