//! Languages: which catalogue translates a message, and what a language is written like.
//!
//! Catalogues are gettext's `.po` files in Django's layout, `locale/{language}/LC_MESSAGES/*.po` in a template folder, in a
//! theme, or in the folder of an application's templates. One language's files are one catalogue; where two translate a
//! message, the one found first counts. A message that a catalogue lacks is looked for in those it falls back on.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use icu_locale_core::Locale;

use super::placeholders;
use super::plural::PluralRule;
use super::po::{self, PoEntry, PoError, PoFile};

/// A language's tag is at most as long as BCP 47 recommends room for.
const CODE_BYTES_MAX: usize = 35;
/// Languages written from right to left, by their first subtag.
const RIGHT_TO_LEFT: [&str; 14] =
    ["ar", "arc", "ckb", "dv", "fa", "he", "iw", "ks", "ps", "sd", "syr", "ug", "ur", "yi"];
/// Scripts written from right to left, and scripts that take a language above out of it.
const RIGHT_TO_LEFT_SCRIPTS: [&str; 4] = ["arab", "hebr", "syrc", "thaa"];
const LEFT_TO_RIGHT_SCRIPTS: [&str; 3] = ["cyrl", "deva", "latn"];
/// Where cutting a tag's end off does not lead to what is nearest (as in Django).
const NEAREST: [(&str, &str); 5] =
    [("zh-cn", "zh-hans"), ("zh-sg", "zh-hans"), ("zh-tw", "zh-hant"), ("zh-hk", "zh-hant"), ("zh-mo", "zh-hant")];

/// The catalogues of one theme, and of what it is laid over.
#[derive(Debug)]
pub(super) struct Languages {
    /// By language; those that go before others first.
    catalogs: BTreeMap<String, Vec<Arc<Catalog>>>,
    default: String,
}

/// One language as templates see it.
#[derive(Debug, Clone)]
pub(super) struct Language {
    /// `pt-br`: lower case, hyphens.
    pub code: String,
    pub locale: Locale,
    /// Asked in turn.
    catalogs: Vec<Arc<Catalog>>,
}

/// What a message asked for, and what it got.
#[derive(Debug, Clone)]
pub(super) struct Resolved {
    pub language: Language,
    /// Why it is another one than asked for.
    pub note: Option<String>,
}

/// One `.po` file.
#[derive(Debug)]
pub(super) struct Catalog {
    /// The forms of each message that is translated, by [`po::key`].
    messages: HashMap<String, Vec<String>>,
    rule: PluralRule,
}

impl Languages {
    /// `catalogs` with their languages, those that go before others first.
    pub fn new(catalogs: impl IntoIterator<Item = (String, Arc<Catalog>)>, default: &str) -> Languages {
        let mut by_language: BTreeMap<String, Vec<Arc<Catalog>>> = BTreeMap::new();
        for (language, catalog) in catalogs {
            by_language.entry(language).or_default().push(catalog);
        }
        Languages { catalogs: by_language, default: normalized(default).unwrap_or_else(|| "en".to_owned()) }
    }

    /// The languages that have a catalogue.
    pub fn codes(&self) -> impl Iterator<Item = &str> {
        self.catalogs.keys().map(String::as_str)
    }

    /// The language a message is rendered in: the one it asks for, one near it, else the default one. Never fails: what
    /// cannot be had is said in the note. Where there are no catalogues at all, any language is as good as another, and
    /// decides of dates and numbers alone.
    pub fn resolve(&self, asked: Option<&str>) -> Resolved {
        let Some(asked) = asked.filter(|asked| !asked.trim().is_empty()) else {
            return Resolved { language: self.language(&self.default), note: None };
        };
        let Some(code) = normalized(asked) else {
            let asked: String = asked.chars().take(CODE_BYTES_MAX).collect();
            let note = format!("{asked:?} is not a language; {} is used", self.default);
            return Resolved { language: self.language(&self.default), note: Some(note) };
        };
        let has_catalog = fallbacks(&code).any(|code| self.catalogs.contains_key(code));
        let is_default = first_subtag(&code) == first_subtag(&self.default);
        if has_catalog || is_default || self.catalogs.is_empty() {
            return Resolved { language: self.language(&code), note: None };
        }
        let note = format!("there is no catalogue for the language {code}; {} is used", self.default);
        Resolved { language: self.language(&self.default), note: Some(note) }
    }

    fn language(&self, code: &str) -> Language {
        // The default language's catalogue helps out only where the source's own texts would be foreign, too.
        let codes = fallbacks(code).chain(fallbacks(&self.default).filter(|other| *other != code));
        let catalogs = codes.filter_map(|code| self.catalogs.get(code)).flatten().cloned().collect();
        Language { code: code.to_owned(), locale: locale(code), catalogs }
    }
}

impl Language {
    /// A text in this language; the text itself where nobody has translated it.
    pub fn text<'a>(&'a self, context: Option<&str>, id: &'a str) -> &'a str {
        self.known(context, id).unwrap_or(id)
    }

    /// The translation, where there is one.
    pub fn known(&self, context: Option<&str>, id: &str) -> Option<&str> {
        self.find(context, id).and_then(|(forms, _)| forms.first()).map(String::as_str)
    }

    /// The form of a text for a number.
    pub fn plural<'a>(&'a self, context: Option<&str>, id: &'a str, plural: &'a str, n: u64) -> &'a str {
        match self.find(context, id) {
            // A catalogue may translate the message without its plural: one form for all.
            Some((forms, rule)) => forms.get(rule.form(n)).or(forms.last()).map_or(id, String::as_str),
            None if PluralRule::germanic().form(n) == 0 => id,
            None => plural,
        }
    }

    fn find(&self, context: Option<&str>, id: &str) -> Option<(&[String], &PluralRule)> {
        let key = match context {
            None => Cow::Borrowed(id),
            Some(context) => Cow::Owned(po::key(Some(context), id)),
        };
        let key: &str = &key;
        self.catalogs.iter().find_map(|catalog| Some((catalog.messages.get(key)?.as_slice(), &catalog.rule)))
    }

    /// Whether it is written from right to left.
    pub fn is_right_to_left(&self) -> bool {
        let has = |scripts: &[&str]| self.code.split('-').skip(1).any(|subtag| scripts.contains(&subtag));
        has(&RIGHT_TO_LEFT_SCRIPTS) || RIGHT_TO_LEFT.contains(&first_subtag(&self.code)) && !has(&LEFT_TO_RIGHT_SCRIPTS)
    }
}

impl Catalog {
    /// Reads a `.po` file: what can be used of it, and what is wrong with it. A file that is malformed as a whole is `None`;
    /// an entry that is wrong counts as not translated.
    pub fn read(text: &str) -> (Option<Catalog>, Vec<PoError>) {
        let po = match PoFile::parse(text) {
            Ok(po) => po,
            Err(error) => return (None, vec![error]),
        };
        // Whoever is about to write it has emptied it first.
        if po.entries.is_empty() {
            return (None, vec![PoError { line: 1, message: "there is no message in it".to_owned() }]);
        }
        let line = po.header().map_or(1, |header| header.line);
        // What gettext's tools leave in a new file stands for no rule.
        let rule = match po.header_field("Plural-Forms").filter(|rule| !rule.contains("EXPRESSION")) {
            None => Ok(PluralRule::germanic()),
            Some(rule) => PluralRule::parse(rule),
        };
        let rule = match rule {
            Ok(rule) => rule,
            Err(message) => return (None, vec![PoError { line, message: format!("Plural-Forms: {message}") }]),
        };
        let mut problems = Vec::new();
        let mut messages = HashMap::new();
        for entry in po.messages().filter(|entry| entry.is_translated()) {
            match checked(entry, &rule) {
                Err(message) => problems.push(PoError { line: entry.line, message }),
                Ok(()) => {
                    messages.insert(entry.key(), entry.translations.clone());
                }
            }
        }
        (Some(Catalog { messages, rule }), problems)
    }
}

/// A translation that cannot be used as it stands would break a mail when it is sent; it is refused when it is read.
fn checked(entry: &PoEntry, rule: &PluralRule) -> Result<(), String> {
    let forms = entry.translations.len();
    if entry.plural.is_some() && forms != rule.forms() {
        return Err(format!("it has {forms} forms, where the catalogue's Plural-Forms says {}", rule.forms()));
    }
    let known = |name: &str| {
        let sources = [Some(&entry.id), entry.plural.as_ref()];
        sources.into_iter().flatten().any(|source| placeholders::names(source).any(|known| known == name))
    };
    for text in &entry.translations {
        if let Some(name) = placeholders::names(text).find(|name| !known(name)) {
            return Err(format!("the translation has %({name})s, which the message does not have"));
        }
    }
    Ok(())
}

/// `pt_BR`, `PT-br`, `pt_BR.UTF-8` as `pt-br`; `None` for what is no language tag.
pub(super) fn normalized(code: &str) -> Option<String> {
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

/// `zh-hant-tw`, `zh-hant`, `zh`.
fn fallbacks(code: &str) -> impl Iterator<Item = &str> {
    let nearest = NEAREST.iter().find(|(from, _)| *from == code).map(|(_, to)| *to);
    let shorter = std::iter::successors(Some(code), |code| code.rsplit_once('-').map(|(shorter, _)| shorter));
    let (whole, rest) = (shorter.clone().take(1), shorter.skip(1));
    whole.chain(nearest).chain(rest)
}

fn locale(code: &str) -> Locale {
    code.parse().unwrap_or(Locale::UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn languages(files: &[(&str, &str)]) -> (Languages, Vec<String>) {
        let mut problems = Vec::new();
        let mut catalogs = Vec::new();
        for (language, text) in files {
            let (catalog, wrong) = Catalog::read(text);
            problems.extend(wrong.into_iter().map(|error| format!("{}: {}", error.line, error.message)));
            catalogs.extend(catalog.map(|catalog| ((*language).to_owned(), Arc::new(catalog))));
        }
        (Languages::new(catalogs, "en"), problems)
    }

    #[test]
    fn a_language_falls_back_on_what_is_near_it_and_then_on_the_default() {
        let of = |text: &str| format!("msgid \"a\"\nmsgstr \"{text}\"\n\nmsgid \"only {text}\"\nmsgstr \"x\"\n");
        let (pt, pt_br, hant) = (of("pt"), of("pt-br"), of("hant"));
        let (languages, problems) = languages(&[("pt", &pt), ("pt-br", &pt_br), ("zh-hant", &hant)]);
        assert_eq!(problems, Vec::<String>::new());
        let text = |asked: &str, id: &str| languages.resolve(Some(asked)).language.text(None, id).to_owned();
        assert_eq!(text("pt_BR", "a"), "pt-br");
        assert_eq!(text("pt-br", "only pt"), "x");
        assert_eq!(text("pt-PT", "a"), "pt");
        assert_eq!(text("zh-TW", "a"), "hant");
        assert_eq!(text("en-GB", "a"), "a");
        let told = |asked: &str| {
            let resolved = languages.resolve(Some(asked));
            (resolved.language.code, resolved.note)
        };
        assert_eq!(told("pt-PT"), ("pt-pt".to_owned(), None));
        assert_eq!(told("en-GB"), ("en-gb".to_owned(), None));
        let note = "there is no catalogue for the language xx; en is used".to_owned();
        assert_eq!(told("xx"), ("en".to_owned(), Some(note)));
        let note = "\"no tag!\" is not a language; en is used".to_owned();
        assert_eq!(told("no tag!"), ("en".to_owned(), Some(note)));
        assert_eq!(languages.resolve(None).language.code, "en");
    }

    #[test]
    fn without_catalogues_every_language_is_taken_as_it_is() {
        let (languages, _) = languages(&[]);
        let resolved = languages.resolve(Some("FR_ca"));
        assert_eq!((resolved.language.code.as_str(), resolved.note), ("fr-ca", None));
    }

    #[test]
    fn the_direction_is_that_of_the_language_and_its_script() {
        let (languages, _) = languages(&[]);
        let is_rtl = |code: &str| languages.resolve(Some(code)).language.is_right_to_left();
        assert!(["ar", "ar-dz", "he", "fa", "ur", "ku-arab"].into_iter().all(is_rtl));
        assert!(!["en", "pl", "ja", "ku", "ks-deva"].into_iter().any(is_rtl));
    }

    #[test]
    fn what_a_catalogue_has_wrong_is_a_problem_with_its_line_and_the_rest_is_used() {
        let text = "msgid \"\"\nmsgstr \"Plural-Forms: nplurals=3; plural=n%3;\\n\"\n\n\
                    msgid \"one\"\nmsgid_plural \"many\"\nmsgstr[0] \"x\"\nmsgstr[1] \"y\"\n\n\
                    msgid \"hi %(name)s\"\nmsgstr \"salut %(nom)s\"\n\n\
                    #, fuzzy\nmsgid \"old\"\nmsgstr \"vieux\"\n\nmsgid \"yes\"\nmsgstr \"oui\"\n";
        let (languages, problems) = languages(&[("fr", text)]);
        assert_eq!(
            problems,
            [
                "4: it has 2 forms, where the catalogue's Plural-Forms says 3",
                "9: the translation has %(nom)s, which the message does not have",
            ]
        );
        let french = languages.resolve(Some("fr")).language;
        assert_eq!((french.text(None, "yes"), french.text(None, "old")), ("oui", "old"));
        let (_, problems) = self::languages(&[("fr", "msgid \"\"\nmsgstr \"Plural-Forms: nplurals=9\\n\"\n")]);
        assert_eq!(problems, ["1: Plural-Forms: it needs plural=EXPRESSION"]);
    }

    #[test]
    fn a_context_tells_apart_what_is_written_alike() {
        let text = "msgid \"May\"\nmsgstr \"mai\"\n\nmsgctxt \"verb\"\nmsgid \"May\"\nmsgstr \"peut\"\n";
        let (languages, _) = languages(&[("fr", text)]);
        let french = languages.resolve(Some("fr")).language;
        assert_eq!((french.text(None, "May"), french.text(Some("verb"), "May")), ("mai", "peut"));
        assert_eq!(french.text(Some("name"), "May"), "May");
    }
}
