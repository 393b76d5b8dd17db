//! Languages and their catalogues.
//!
//! Catalogues are gettext's `.po` files in Django's layout: `locale/{language}/LC_MESSAGES/*.po` in a template folder, in a theme,
//! or in the folder of an application's templates. All files of a language form one catalogue; the first translation of a
//! message counts. If a catalogue lacks a message, the catalogues of its fallback languages are searched.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use icu_locale_core::Locale;

use super::conventions::Conventions;
use super::placeholders;
use super::plural::{Count, PluralRule};
use super::po::{self, PoEntry, PoError, PoFile};

/// The longest language tag: the buffer size that BCP 47 recommends.
const CODE_BYTES_MAX: usize = 35;
/// Language codes whose resolution is cached.
const RESOLVED_MAX: usize = 1_000;
/// Languages written from right to left, by their first subtag.
const RIGHT_TO_LEFT: [&str; 14] =
    ["ar", "arc", "ckb", "dv", "fa", "he", "iw", "ks", "ps", "sd", "syr", "ug", "ur", "yi"];
/// Scripts written from right to left, and scripts in which the languages above are written from left to right.
const RIGHT_TO_LEFT_SCRIPTS: [&str; 4] = ["arab", "hebr", "syrc", "thaa"];
const LEFT_TO_RIGHT_SCRIPTS: [&str; 3] = ["cyrl", "deva", "latn"];
/// Equivalent tags, the best known first.
const EQUIVALENT: [&[&str]; 7] = [
    &["zh-hans", "zh-cn", "zh-sg"],
    &["zh-hant", "zh-tw"],
    &["nb", "no"],
    &["he", "iw"],
    &["fil", "tl"],
    &["id", "in"],
    &["yi", "ji"],
];
/// The nearest languages, for tags whose shortened form has no catalogue or another script.
const NEAREST: [(&str, &[&str]); 6] = [
    ("zh", &["zh-hans", "zh-cn"]),
    ("zh-hk", &["zh-hant", "zh-tw"]),
    ("zh-mo", &["zh-hant", "zh-hk", "zh-tw"]),
    ("zh-hant", &["zh-hk", "zh-mo"]),
    ("nn", &["nb", "no"]),
    ("pt", &["pt-pt", "pt-br"]),
];
/// A language with two scripts, of which a reader usually knows one.
const TWO_SCRIPTS: &str = "zh";

/// The catalogues of one theme, merged with those outside themes.
#[derive(Debug)]
pub(crate) struct Languages {
    /// By language, in order of precedence.
    catalogs: BTreeMap<String, Vec<Arc<Catalog>>>,
    default: String,
    /// Cached results by requested language.
    resolved: RwLock<HashMap<String, Resolved>>,
}

/// One language as templates see it.
#[derive(Debug, Clone)]
pub(crate) struct Language {
    /// `pt-br`: lower case, hyphens.
    pub code: String,
    pub locale: Locale,
    /// Django's conventions.
    pub conventions: Conventions,
    /// In order of precedence.
    catalogs: Vec<Arc<Catalog>>,
    /// The number of catalogues of the language itself. The rest belong to the default language.
    own: usize,
}

/// The language that a message is rendered in.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    pub language: Arc<Language>,
    /// Why it differs from the requested one.
    pub note: Option<String>,
}

/// One `.po` file.
#[derive(Debug)]
pub(crate) struct Catalog {
    /// The forms of each translated message, by [`po::key`].
    messages: HashMap<String, Vec<String>>,
    /// `None` if the file's rule is faulty. Then messages with plurals count as not translated.
    rule: Option<PluralRule>,
}

impl Languages {
    /// `catalogs` are in order of precedence, each with its language.
    pub(crate) fn new(catalogs: impl IntoIterator<Item = (String, Arc<Catalog>)>, default: &str) -> Languages {
        let mut by_language: BTreeMap<String, Vec<Arc<Catalog>>> = BTreeMap::new();
        for (language, catalog) in catalogs {
            by_language.entry(language).or_default().push(catalog);
        }
        let default = normalized(default).unwrap_or_else(|| "en".to_owned());
        Languages { catalogs: by_language, default, resolved: RwLock::default() }
    }

    /// The languages that have a catalogue.
    pub(crate) fn codes(&self) -> impl Iterator<Item = &str> {
        self.catalogs.keys().map(String::as_str)
    }

    /// The language in which a message is rendered: the requested one, one near it, otherwise the default. A note says if the
    /// requested one is not available. Without any catalogue, every language is accepted and affects only dates and numbers.
    pub(crate) fn resolve(&self, requested: Option<&str>) -> Resolved {
        let key = requested.unwrap_or_default();
        if let Some(known) = self.resolved.read().unwrap_or_else(PoisonError::into_inner).get(key) {
            return known.clone();
        }
        let resolved = self.find(requested);
        let mut known = self.resolved.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < RESOLVED_MAX && key.len() <= CODE_BYTES_MAX {
            known.insert(key.to_owned(), resolved.clone());
        }
        resolved
    }

    fn find(&self, requested: Option<&str>) -> Resolved {
        let Some(requested) = requested.filter(|requested| !requested.trim().is_empty()) else {
            return Resolved { language: self.language(&self.default), note: None };
        };
        let Some(code) = normalized(requested) else {
            let requested: String = requested.chars().take(CODE_BYTES_MAX).collect();
            let note = format!("{requested:?} is not a language; {} is used", self.default);
            return Resolved { language: self.language(&self.default), note: Some(note) };
        };
        let is_default = first_subtag(&code) == first_subtag(&self.default);
        if self.nearest(&code).is_some() || is_default || self.catalogs.is_empty() {
            return Resolved { language: self.language(&code), note: None };
        }
        let note = format!("there is no catalogue for the language {code}; {} is used", self.default);
        Resolved { language: self.language(&self.default), note: Some(note) }
    }

    fn language(&self, code: &str) -> Arc<Language> {
        let mut catalogs: Vec<_> = self.own(code).cloned().collect();
        let own = catalogs.len();
        // The catalogue of the default language fills gaps, unless this is the default language.
        if code != self.default {
            catalogs.extend(self.own(&self.default).cloned());
        }
        let own_conventions = Some(Conventions::of(fallbacks(code))).filter(Conventions::is_known);
        let conventions = own_conventions.unwrap_or_else(|| Conventions::of(nearest(code).iter().copied()));
        Arc::new(Language { code: code.to_owned(), locale: locale(code), conventions, catalogs, own })
    }

    /// The catalogues of a language, or of a near one if it has none.
    fn own<'a>(&'a self, code: &'a str) -> impl Iterator<Item = &'a Arc<Catalog>> {
        let first = self.nearest(code);
        let is_near = first.is_some_and(|first| fallbacks(code).all(|other| other != first));
        let codes = first.into_iter().filter(move |_| is_near).chain(fallbacks(code).filter(move |_| !is_near));
        codes.filter_map(|code| self.catalogs.get(code)).flatten()
    }

    /// The language whose catalogue is searched first: this one, a shorter tag, a near one, or another region.
    fn nearest<'a>(&'a self, code: &'a str) -> Option<&'a str> {
        let has_catalog = |code: &&str| self.catalogs.contains_key(*code);
        let language = first_subtag(code);
        let of_region = || {
            let mut codes = self.catalogs.keys().map(String::as_str);
            codes.find(|other| first_subtag(other) == language).filter(|_| language != TWO_SCRIPTS)
        };
        fallbacks(code).find(has_catalog).or_else(|| nearest(code).iter().copied().find(has_catalog)).or_else(of_region)
    }
}

impl Language {
    /// The translation of a text, or the text itself if it has none.
    pub(crate) fn text<'a>(&'a self, context: Option<&str>, id: &'a str) -> &'a str {
        find(&self.catalogs, context, id).and_then(|(forms, _)| forms.first()).map_or(id, String::as_str)
    }

    /// The form of a text for a number.
    pub(crate) fn plural<'a>(&'a self, context: Option<&str>, id: &'a str, plural: &'a str, count: Count) -> &'a str {
        let found = find(&self.catalogs, context, id).and_then(|(forms, rule)| form(forms, rule, count));
        found.unwrap_or(if count.is_one() { id } else { plural })
    }

    /// A word of Django's filters: from the language's catalogues, otherwise from Django. `None` if Django does not have the
    /// language.
    pub(crate) fn word<'a>(&'a self, context: Option<&str>, id: &'a str) -> Option<&'a str> {
        let own = find(&self.catalogs[..self.own], context, id).and_then(|(forms, _)| forms.first());
        let django = || self.conventions.word(context, id).or_else(|| self.conventions.is_known().then_some(id));
        own.map(String::as_str).or_else(django)
    }

    /// The plural form of a word of Django's filters for a number.
    pub(crate) fn plural_word<'a>(&'a self, id: &'a str, plural: &'a str, count: Count) -> &'a str {
        let own = find(&self.catalogs[..self.own], None, id).and_then(|(forms, rule)| form(forms, rule, count));
        let word = own.or_else(|| self.conventions.plural(id, count));
        word.unwrap_or(if count.is_one() { id } else { plural })
    }

    /// Whether it is written from right to left.
    pub(crate) fn is_right_to_left(&self) -> bool {
        let has = |scripts: &[&str]| self.code.split('-').skip(1).any(|subtag| scripts.contains(&subtag));
        has(&RIGHT_TO_LEFT_SCRIPTS) || RIGHT_TO_LEFT.contains(&first_subtag(&self.code)) && !has(&LEFT_TO_RIGHT_SCRIPTS)
    }
}

/// The forms of a message in the first catalogue that has it, and the plural rule of that catalogue.
fn find<'a>(
    catalogs: &'a [Arc<Catalog>],
    context: Option<&str>,
    id: &str,
) -> Option<(&'a [String], Option<&'a PluralRule>)> {
    let key = match context {
        None => Cow::Borrowed(id),
        Some(context) => Cow::Owned(po::key(Some(context), id)),
    };
    let key: &str = &key;
    catalogs.iter().find_map(|catalog| Some((catalog.messages.get(key)?.as_slice(), catalog.rule.as_ref())))
}

/// The form for a number, if it is translated. A catalogue may have the message without a plural: one form for all numbers.
fn form<'a>(forms: &'a [String], rule: Option<&PluralRule>, count: Count) -> Option<&'a str> {
    let form = match forms {
        [only] => only,
        forms => forms.get(rule?.form(count)?)?,
    };
    (!form.is_empty()).then_some(form)
}

impl Catalog {
    /// An estimate of its memory.
    pub(crate) fn bytes(&self) -> usize {
        let text = |text: &String| text.len() + size_of::<String>();
        let entry = |(key, forms): (&String, &Vec<String>)| {
            text(key) + size_of::<Vec<String>>() + forms.iter().map(text).sum::<usize>()
        };
        self.messages.iter().map(entry).sum()
    }

    /// Reads a `.po` file and returns its usable part and its problems. A faulty entry counts as not translated; with a faulty
    /// plural rule, so do all entries with a plural. `None` if nothing is usable.
    pub(crate) fn read(text: &str) -> (Option<Catalog>, Vec<PoError>) {
        let (po, mut problems) = PoFile::read(text);
        if po.entries.is_empty() {
            // A file may be read while it is being rewritten.
            let is_empty = problems.is_empty();
            problems.extend(is_empty.then(|| PoError { line: 1, message: "the file has no messages".to_owned() }));
            return (None, problems);
        }
        // gettext's tools write EXPRESSION as a placeholder for the rule.
        let rule = match po.header_field("Plural-Forms").filter(|rule| !rule.contains("EXPRESSION")) {
            None => Ok(PluralRule::germanic()),
            Some(rule) => PluralRule::parse(rule),
        };
        if let Err(message) = &rule {
            let line = po.header().map_or(1, |header| header.line);
            problems.push(PoError { line, message: format!("Plural-Forms: {message}") });
        }
        let rule = rule.ok();
        let mut messages: HashMap<String, Vec<String>> = HashMap::new();
        let mut lines: HashMap<String, usize> = HashMap::new();
        for entry in po.messages().filter(|entry| entry.is_used()) {
            let mut forms = entry.translations.clone();
            match (&rule, &entry.plural) {
                (None, Some(_)) => continue,
                // Surplus forms are never used.
                (Some(rule), Some(_)) => forms.truncate(rule.forms()),
                (_, None) => {}
            }
            let key = entry.key();
            let found = match messages.get(&key) {
                Some(other) if *other == forms => continue,
                Some(_) => Err(format!("duplicate message; the translation in line {} is used", lines[&key])),
                None => check_placeholders(entry),
            };
            let problem = match found {
                Err(message) => Some(message),
                Ok(()) => {
                    lines.insert(key.clone(), entry.line);
                    messages.insert(key, forms);
                    missing_forms(entry, rule.as_ref())
                }
            };
            problems.extend(problem.map(|message| PoError { line: entry.line, message }));
        }
        problems.sort_by_key(|problem| problem.line);
        (Some(Catalog { messages, rule }), problems)
    }
}

/// Rejects a translation with wrong placeholders, which would fail only when a message is rendered.
fn check_placeholders(entry: &PoEntry) -> Result<(), String> {
    let sources = || std::iter::once(&entry.id).chain(&entry.plural);
    let known: Vec<&str> = sources().flat_map(|source| placeholders::names(source)).collect();
    for text in &entry.translations {
        if let Some(name) = placeholders::names(text).find(|name| !known.contains(name)) {
            return Err(format!("the translation has %({name})s, which the message does not have"));
        }
        let is_new = |malformed: &&str| !known.is_empty() && sources().all(|source| !source.contains(*malformed));
        if let Some(malformed) = placeholders::malformed(text).find(is_new) {
            return Err(format!(
                "the translation has `{malformed}`, which is not a placeholder; write it as in %(name)s"
            ));
        }
    }
    Ok(())
}

/// The problem of an entry with too few plural forms. Numbers without a form get the source text.
fn missing_forms(entry: &PoEntry, rule: Option<&PluralRule>) -> Option<String> {
    let (forms, wanted) = (entry.translations.len(), rule?.forms());
    let is_incomplete = entry.plural.is_some() && forms < wanted;
    is_incomplete.then(|| format!("the message has {forms} plural forms, but Plural-Forms says {wanted}"))
}

/// Normalizes `pt_BR`, `PT-br` or `pt_BR.UTF-8` to `pt-br`. `None` if it is not a language tag.
pub(crate) fn normalized(code: &str) -> Option<String> {
    let code = code.trim().split('.').next().unwrap_or_default().to_ascii_lowercase();
    let code = code.replace('_', "-").replace("@latin", "-latn").replace("@cyrillic", "-cyrl");
    let is_subtag = |subtag: &str| (1..=8).contains(&subtag.len()) && subtag.bytes().all(|b| b.is_ascii_alphanumeric());
    let is_first = |subtag: &str| (2..=3).contains(&subtag.len()) && subtag.bytes().all(|b| b.is_ascii_alphabetic());
    let is_tag = code.len() <= CODE_BYTES_MAX && is_first(first_subtag(&code)) && code.split('-').all(is_subtag);
    is_tag.then_some(code)
}

fn first_subtag(code: &str) -> &str {
    code.split('-').next().unwrap_or_default()
}

/// The tag and its shorter forms, each with its equivalents: `zh-hant-tw`, `zh-hant`, `zh-tw`, `zh`.
fn fallbacks(code: &str) -> impl Iterator<Item = &str> {
    let shorter = std::iter::successors(Some(code), |code| code.rsplit_once('-').map(|(shorter, _)| shorter));
    shorter.flat_map(|code| {
        let equivalent = EQUIVALENT.iter().find(|tags| tags.contains(&code)).copied().unwrap_or_default();
        std::iter::once(code).chain(equivalent.iter().copied().filter(move |other| *other != code))
    })
}

/// The languages nearest to a tag, or to a shorter form of it.
fn nearest(code: &str) -> &'static [&'static str] {
    let whole_or_shorter = fallbacks(code).filter(|other| *other == code || *other != TWO_SCRIPTS);
    let mut found = whole_or_shorter.filter_map(|code| NEAREST.iter().find(|(from, _)| *from == code));
    found.next().map_or(&[], |(_, near)| near)
}

fn locale(code: &str) -> Locale {
    code.parse().unwrap_or(Locale::UNKNOWN)
}

#[cfg(test)]
mod tests;
