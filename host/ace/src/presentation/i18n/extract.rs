//! Extracts the translatable texts of templates and merges them into catalogues, as gettext's `xgettext` and `msgmerge` do for
//! source code. Translators can use their usual tools.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::languages;
use super::placeholders;
use super::po::{PoEntry, PoFile};
use crate::presentation::templates::files::{self, Files};
use crate::presentation::templates::tokenizer::{self, Tag, TokenKind};

/// The file name of Django's catalogues.
const CATALOG: &str = "django.po";
const TEMPLATE: &str = "django.pot";
/// The plural rules of new catalogues, by language. Source: the Unicode CLDR and gettext.
const PLURAL_FORMS: [(&str, &str); 12] = [
    ("ar", "nplurals=6; plural=n==0 ? 0 : n==1 ? 1 : n==2 ? 2 : n%100>=3 && n%100<=10 ? 3 : n%100>=11 ? 4 : 5;"),
    ("cs", "nplurals=3; plural=(n==1) ? 0 : (n>=2 && n<=4) ? 1 : 2;"),
    ("fr", "nplurals=2; plural=(n > 1);"),
    ("id", "nplurals=1; plural=0;"),
    ("ja", "nplurals=1; plural=0;"),
    ("ko", "nplurals=1; plural=0;"),
    ("pl", "nplurals=3; plural=(n==1 ? 0 : n%10>=2 && n%10<=4 && (n%100<10 || n%100>=20) ? 1 : 2);"),
    ("pt-br", "nplurals=2; plural=(n > 1);"),
    ("ru", "nplurals=3; plural=(n%10==1 && n%100!=11 ? 0 : n%10>=2 && n%10<=4 && (n%100<10 || n%100>=20) ? 1 : 2);"),
    ("uk", "nplurals=3; plural=(n%10==1 && n%100!=11 ? 0 : n%10>=2 && n%10<=4 && (n%100<10 || n%100>=20) ? 1 : 2);"),
    ("vi", "nplurals=1; plural=0;"),
    ("zh", "nplurals=1; plural=0;"),
];
const GERMANIC: &str = "nplurals=2; plural=(n != 1);";

/// Why texts cannot be extracted.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages describe them")]
#[non_exhaustive]
pub enum ExtractError {
    #[error("{0:?} is not a language code; write it as in fr or pt-br")]
    Language(String),
    #[error("{}:{line}: {message}; nothing was written", file.display())]
    Malformed { file: PathBuf, line: usize, message: String },
    #[error("{}: {message}", file.display())]
    File { file: PathBuf, message: String },
}

/// The result for one catalogue.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Extracted {
    /// `None` for the list of all texts (`.pot`).
    pub language: Option<String>,
    /// The path of the catalogue.
    pub file: PathBuf,
    /// The number of texts in the templates.
    pub messages: usize,
    /// Texts without a translation.
    pub missing: Vec<String>,
    /// Texts whose translation must be reviewed.
    pub fuzzy: Vec<String>,
    /// Translations of texts that no template has any more. They are kept at the end of the file.
    pub stale: Vec<String>,
    /// Whether the file differs from its previous version.
    pub changed: bool,
}

/// Extracts the texts of one template folder and merges them into its `locale/*/LC_MESSAGES/django.po`. Creates a catalogue for
/// each of `languages` that has none. Writes only if `write` is set. Blocks.
///
/// # Errors
/// If a language code is invalid, a file cannot be read or written, or a catalogue is malformed. Then nothing is written.
pub fn extract(dir: &Path, languages: &[String], write: bool) -> Result<Vec<Extracted>, ExtractError> {
    let dir = dir.canonicalize().map_err(|e| ExtractError::File { file: dir.to_owned(), message: e.to_string() })?;
    let found = messages(&dir)?;
    let mut outputs = vec![merged(None, dir.join("locale").join(TEMPLATE), &found)?];
    for (language, file) in catalogs(&dir, languages)? {
        outputs.push(merged(Some(language), file, &found)?);
    }
    let mut extracted = Vec::new();
    for (report, text) in outputs {
        if write && report.changed {
            let failed = |e: std::io::Error| ExtractError::File { file: report.file.clone(), message: e.to_string() };
            fs::create_dir_all(report.file.parent().unwrap_or(&dir)).map_err(failed)?;
            ace_store::files::replace_linked(&report.file, text.as_bytes(), ace_store::files::Readers::AsBefore)
                .map_err(failed)?;
        }
        extracted.push(report);
    }
    Ok(extracted)
}

/// The path of the catalogue of each language that has one or gets a new one.
fn catalogs(dir: &Path, wanted: &[String]) -> Result<BTreeMap<String, PathBuf>, ExtractError> {
    let locale = dir.join("locale");
    let file = |folder: &str| locale.join(folder).join("LC_MESSAGES").join(CATALOG);
    let mut catalogs = BTreeMap::new();
    for entry in fs::read_dir(&locale).into_iter().flatten().flatten() {
        if let Some(folder) = entry.file_name().to_str()
            && let Some(language) = languages::normalized(folder)
            && file(folder).exists()
        {
            catalogs.insert(language, file(folder));
        }
    }
    for name in wanted {
        let language = languages::normalized(name).ok_or_else(|| ExtractError::Language(name.clone()))?;
        let folder = folder_name(&language);
        catalogs.entry(language).or_insert_with(|| file(&folder));
    }
    Ok(catalogs)
}

/// Django's name of a language's folder: `pt_BR` for `pt-br`, `zh_Hant`.
fn folder_name(language: &str) -> String {
    let mut parts = language.split('-');
    let mut name = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        name.push('_');
        match part.len() {
            4 => {
                name.push_str(&part[..1].to_ascii_uppercase());
                name.push_str(&part[1..]);
            }
            _ => name.push_str(&part.to_ascii_uppercase()),
        }
    }
    name
}

/// The texts of a folder's templates with their references, in the order of the templates.
fn messages(dir: &Path) -> Result<Vec<PoEntry>, ExtractError> {
    let mut entries: Vec<PoEntry> = Vec::new();
    let mut indices: BTreeMap<String, usize> = BTreeMap::new();
    let found = Files::find(&[dir.to_owned()]);
    if let Some(problem) = found.problems.first() {
        return Err(ExtractError::File { file: problem.file.clone(), message: problem.message.clone() });
    }
    let mut paths: BTreeSet<PathBuf> = found.templates(None).into_values().collect();
    for theme in found.themes(&BTreeSet::new()) {
        paths.extend(found.templates(Some(&theme)).into_values());
    }
    for path in paths {
        let text = files::read(&path).map_err(|message| ExtractError::File { file: path.clone(), message })?;
        let reference = path.strip_prefix(dir).unwrap_or(&path).display().to_string().replace(' ', "%20");
        for (at, entry) in texts(&text) {
            let line = 1 + text[..at].matches('\n').count();
            let index = *indices.entry(entry.key()).or_insert_with(|| {
                entries.push(PoEntry { translations: vec![String::new()], ..entry.clone() });
                entries.len() - 1
            });
            let known = &mut entries[index];
            known.references.push(format!("{reference}:{line}"));
            known.plural = known.plural.take().or(entry.plural);
        }
    }
    for entry in &mut entries {
        let texts = [Some(&entry.id), entry.plural.as_ref()];
        if texts.into_iter().flatten().any(|text| placeholders::names(text).next().is_some()) {
            entry.flags.push("python-format".to_owned());
        }
    }
    Ok(entries)
}

/// The texts of one template with their byte offsets. Only literals can be extracted.
fn texts(template: &str) -> Vec<(usize, PoEntry)> {
    let mut found = Vec::new();
    for tag in tokenizer::tags(template) {
        for at in 0..tag.tokens.len() {
            let is_function = tag.is_sign(at + 1, '(');
            let is_filter = at > 1 && tag.is_sign(at - 1, '|');
            let entry = match tag.name(at) {
                Some("trans") if is_filter => match &tag.tokens[at - 2].kind {
                    TokenKind::Text(id) => Some(PoEntry { id: id.clone(), ..entry(&tag, at) }),
                    _ => None,
                },
                Some("trans" | "blocktrans") if is_function => Some(entry(&tag, at)),
                _ => None,
            };
            found.extend(entry.filter(|entry| !entry.id.is_empty()).map(|entry| (tag.tokens[at].range.start, entry)));
        }
    }
    found
}

/// The literal arguments of a call whose name is the token at `at`.
fn entry(tag: &Tag, at: usize) -> PoEntry {
    let mut entry = PoEntry::default();
    if !tag.is_sign(at + 1, '(') {
        return entry;
    }
    let mut depth = 0_usize;
    for at in at + 1..tag.tokens.len() {
        match &tag.tokens[at].kind {
            TokenKind::Sign('(' | '[' | '{') => depth += 1,
            TokenKind::Sign(')' | ']' | '}') => depth -= 1,
            TokenKind::Text(text) if depth == 1 && tag.is_sign(at - 1, '=') => match tag.name(at - 2) {
                Some("message") => entry.id = text.clone(),
                Some("plural") => entry.plural = Some(text.clone()),
                Some("context") => entry.context = Some(text.clone()),
                _ => {}
            },
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    entry
}

/// A catalogue merged with the current texts.
fn merged(language: Option<String>, file: PathBuf, found: &[PoEntry]) -> Result<(Extracted, String), ExtractError> {
    let before = match &language {
        Some(_) if file.exists() => {
            Some(files::read(&file).map_err(|message| ExtractError::File { file: file.clone(), message })?)
        }
        _ => None,
    };
    let malformed = |line, message| ExtractError::Malformed { file: file.clone(), line, message };
    let old = match &before {
        Some(text) => PoFile::parse(text).map_err(|e| malformed(e.line, e.message))?,
        None => PoFile::default(),
    };
    let header = old.header().cloned().unwrap_or_else(|| header(language.as_deref()));
    let forms = forms(&header);
    let mut known: BTreeMap<String, PoEntry> =
        old.entries.iter().filter(|entry| **entry != header).map(|entry| (entry.key(), entry.clone())).collect();
    let mut entries = vec![header];
    for entry in found {
        entries.push(updated(entry, known.remove(&entry.key()), forms));
    }
    let is_kept = |entry: &PoEntry| entry.translations.iter().any(|text| !text.is_empty());
    let kept = old.entries.iter().filter_map(|entry| known.remove(&entry.key())).filter(is_kept);
    entries.extend(kept.map(|entry| PoEntry { obsolete: true, references: Vec::new(), ..entry }));
    let new = PoFile { entries };
    let ids =
        |is: fn(&PoEntry) -> bool| new.messages().filter(|entry| is(entry)).map(|entry| entry.id.clone()).collect();
    let text = new.to_string();
    let on_disk = before.or_else(|| fs::read_to_string(&file).ok());
    let report = Extracted {
        messages: found.len(),
        missing: if language.is_some() { ids(|entry| !entry.is_translated() && !entry.is_fuzzy()) } else { Vec::new() },
        fuzzy: ids(PoEntry::is_fuzzy),
        stale: new.entries.iter().filter(|entry| entry.obsolete).map(|entry| entry.id.clone()).collect(),
        changed: on_disk.as_deref() != Some(text.as_str()),
        language,
        file,
    };
    Ok((report, text))
}

/// A current text with its translation and translator comments.
fn updated(new: &PoEntry, old: Option<PoEntry>, forms: usize) -> PoEntry {
    let count = if new.plural.is_some() { forms } else { 1 };
    let empty = PoEntry { translations: vec![String::new(); count], ..new.clone() };
    let Some(old) = old else { return empty };
    let mut flags: Vec<String> = old.flags.into_iter().filter(|flag| flag != "python-format").collect();
    flags.extend(new.flags.iter().cloned());
    let mut previous = old.previous;
    let is_other = old.plural != new.plural;
    if is_other && old.translations.iter().any(|text| !text.is_empty()) && !flags.contains(&"fuzzy".to_owned()) {
        flags.insert(0, "fuzzy".to_owned());
        previous.extend(old.plural.iter().map(|plural| format!("msgid_plural {plural:?}")));
    }
    let mut translations = old.translations;
    translations.resize(count, String::new());
    PoEntry { translator_comments: old.translator_comments, flags, previous, translations, ..empty }
}

fn header(language: Option<&str>) -> PoEntry {
    let rule = match language {
        None => "nplurals=INTEGER; plural=EXPRESSION;",
        Some(language) => plural_forms(language),
    };
    let fields = [
        ("Project-Id-Version", ""),
        ("Language", language.unwrap_or_default()),
        ("MIME-Version", "1.0"),
        ("Content-Type", "text/plain; charset=UTF-8"),
        ("Content-Transfer-Encoding", "8bit"),
        ("Plural-Forms", rule),
    ];
    let text: String =
        fields.iter().map(|(name, value)| format!("{}\n", format!("{name}: {value}").trim_end())).collect();
    PoEntry { translations: vec![text], ..PoEntry::default() }
}

fn plural_forms(language: &str) -> &'static str {
    let of = |code: &str| PLURAL_FORMS.iter().find(|(known, _)| *known == code).map(|(_, rule)| *rule);
    of(language).or_else(|| of(language.split('-').next().unwrap_or_default())).unwrap_or(GERMANIC)
}

/// The number of plural forms according to a catalogue's header.
fn forms(header: &PoEntry) -> usize {
    let text = header.translations.first().map_or("", String::as_str);
    let number =
        text.split("nplurals=").nth(1).map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
    number.and_then(|digits| digits.parse().ok()).filter(|forms| (1..=10).contains(forms)).unwrap_or(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(template: &str) -> Vec<String> {
        texts(template).into_iter().map(|(_, entry)| entry.key()).collect()
    }

    #[test]
    fn literal_texts_are_found_in_every_position() {
        let template = "{{ trans(message='a') }}{% set x = trans(context=\"c\", message=\"b\") ~ ('d' | trans) %}\
                        {{ 'e' | trans(context='c', name=f(message='no')) | upper }}{{ trans(message=variable) }}\
                        {% if blocktrans(message='g', plural='h', count=[1, 2] | length) %}{% endif %}{# {{ trans(message='no') }} #}";
        assert_eq!(keys(template), ["a", "c\u{4}b", "d", "c\u{4}e", "g"]);
        assert_eq!(texts(template)[4].1.plural.as_deref(), Some("h"));
        for broken in ["{{ trans(", "{{ trans)", "{{ | trans", "{{ trans(message=", "{% trans"] {
            assert_eq!(keys(broken), Vec::<String>::new());
        }
    }

    #[test]
    fn a_merge_keeps_translations_and_lists_what_is_missing_and_stale() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "app/edx_ace/x/email/body.txt",
            "a\n{{ trans(message='yes') }}\n{{ blocktrans(message='%(n)s one', plural='%(n)s many', count=n) }}",
        );
        write("themes/blue/app/edx_ace/x/email/body.txt", "{{ trans(message='yes') }}{{ trans(message='blue') }}");
        let po = "locale/pl/LC_MESSAGES/django.po";
        write(
            po,
            "# Kept.\nmsgid \"\"\nmsgstr \"Plural-Forms: nplurals=3; plural=n%3;\\n\"\n\n# ours\nmsgid \"yes\"\nmsgstr \"tak\"\n\n\
             msgid \"%(n)s one\"\nmsgstr \"jeden\"\n\nmsgid \"gone\"\nmsgstr \"nie ma\"\n\nmsgid \"never was\"\nmsgstr \"\"\n",
        );
        let listed = extract(folder.path(), &["fr_FR".to_owned()], false).unwrap();
        assert!(!folder.path().join("locale/django.pot").exists(), "a check writes nothing");
        let written = extract(folder.path(), &["fr_FR".to_owned()], true).unwrap();
        assert_eq!(listed, written);
        let [pot, french, polish] = &written[..] else { panic!("{written:?}") };
        assert_eq!((pot.language.as_deref(), pot.messages, pot.changed), (None, 3, true));
        assert_eq!(french.missing, ["yes", "%(n)s one", "blue"]);
        assert!(french.file.ends_with("locale/fr_FR/LC_MESSAGES/django.po"), "{french:?}");
        assert_eq!(
            (&polish.missing[..], &polish.fuzzy[..], &polish.stale[..]),
            (&["blue".to_owned()][..], &["%(n)s one".to_owned()][..], &["gone".to_owned()][..])
        );
        let text = fs::read_to_string(folder.path().join(po)).unwrap();
        let expected = "# Kept.\nmsgid \"\"\nmsgstr \"Plural-Forms: nplurals=3; plural=n%3;\\n\"\n\n# ours\n\
            #: app/edx_ace/x/email/body.txt:2 themes/blue/app/edx_ace/x/email/body.txt:1\nmsgid \"yes\"\nmsgstr \"tak\"\n\n\
            #: app/edx_ace/x/email/body.txt:3\n#, fuzzy, python-format\nmsgid \"%(n)s one\"\nmsgid_plural \"%(n)s many\"\nmsgstr[0] \"jeden\"\nmsgstr[1] \"\"\nmsgstr[2] \"\"\n\n\
            #: themes/blue/app/edx_ace/x/email/body.txt:1\nmsgid \"blue\"\nmsgstr \"\"\n\n#~ msgid \"gone\"\n#~ msgstr \"nie ma\"\n";
        assert_eq!(
            text.replace("#: app/edx_ace/x/email/body.txt:2\n#: ", "#: app/edx_ace/x/email/body.txt:2 "),
            expected
        );
        let again = extract(folder.path(), &[], true).unwrap();
        assert!(again.iter().all(|report| !report.changed), "{again:?}");
        write(po, "msgid \"\n");
        let error = extract(folder.path(), &[], true).unwrap_err().to_string();
        assert!(error.ends_with("django.po:1: a closing quote is missing; nothing was written"), "{error}");
    }
}
