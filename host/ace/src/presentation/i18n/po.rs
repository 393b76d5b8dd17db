//! GNU gettext's `.po` files. Errors have a line, and writing keeps everything that a translator entered, so that a merge loses
//! nothing. (The crate polib panics on malformed files and reports no lines.)

mod quoting;

use std::fmt::Write;
use std::iter;

use quoting::{quoted, unquoted};

/// The length at which lines are wrapped, as in gettext's tools.
const LINE_CHARS_MAX: usize = 79;

/// An error in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PoError {
    /// Starts at 1.
    pub line: usize,
    pub message: String,
}

/// The entries of a file in order. The header is the first one with an empty `id`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PoFile {
    pub entries: Vec<PoEntry>,
}

/// One message with its translations and comments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PoEntry {
    /// The line of its `msgid`, starting at 1; 0 for a new entry.
    pub line: usize,
    /// `#`: comments of the translator.
    pub translator_comments: Vec<String>,
    /// `#.`: comments for the translator, from the source.
    pub extracted_comments: Vec<String>,
    /// `#:`: the places of the message in the sources.
    pub references: Vec<String>,
    /// `#,`: `fuzzy`, `python-format`.
    pub flags: Vec<String>,
    /// `#|`: the previous version of the message.
    pub previous: Vec<String>,
    /// `#~`: the sources do not have it any more.
    pub obsolete: bool,
    pub context: Option<String>,
    pub id: String,
    pub plural: Option<String>,
    /// One, or one per plural form.
    pub translations: Vec<String>,
}

impl PoEntry {
    /// The key of a message in gettext: its context, the character U+0004, and its id.
    pub(super) fn key(&self) -> String {
        key(self.context.as_deref(), &self.id)
    }

    pub(super) fn is_fuzzy(&self) -> bool {
        self.flags.iter().any(|flag| flag == "fuzzy")
    }

    /// Whether every form is translated and none is fuzzy.
    pub(super) fn is_translated(&self) -> bool {
        self.is_used() && self.translations.iter().all(|text| !text.is_empty())
    }

    /// Whether gettext uses the entry: its first form is translated and it is not fuzzy.
    pub(super) fn is_used(&self) -> bool {
        !self.is_fuzzy() && self.translations.first().is_some_and(|text| !text.is_empty())
    }

    fn is_header(&self) -> bool {
        self.id.is_empty() && self.context.is_none() && !self.obsolete
    }
}

/// See [`PoEntry::key`].
pub(super) fn key(context: Option<&str>, id: &str) -> String {
    context.map_or_else(|| id.to_owned(), |context| format!("{context}\u{4}{id}"))
}

impl PoFile {
    /// Parses a file that must be valid, because it will be written again.
    ///
    /// # Errors
    /// The first error in the file.
    pub(super) fn parse(text: &str) -> Result<PoFile, PoError> {
        let (file, errors) = PoFile::read(text);
        errors.into_iter().next().map_or(Ok(file), Err)
    }

    /// Reads the valid entries of a file, and the errors of the others.
    pub(super) fn read(text: &str) -> (PoFile, Vec<PoError>) {
        let mut reader = Reader::default();
        for (number, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
            reader.line(number, line.trim());
        }
        reader.finish();
        (PoFile { entries: reader.entries }, reader.errors)
    }

    pub(super) fn header(&self) -> Option<&PoEntry> {
        self.entries.iter().find(|entry| entry.is_header())
    }

    /// A field of the header: `Plural-Forms`.
    pub(super) fn header_field(&self, name: &str) -> Option<&str> {
        let text = self.header()?.translations.first()?;
        let mut fields = text.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(key, _)| key.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The messages, without the header and obsolete ones.
    pub(super) fn messages(&self) -> impl Iterator<Item = &PoEntry> {
        self.entries.iter().filter(|entry| !entry.is_header() && !entry.obsolete)
    }
}

/// The field of an entry that a continuation line belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Context,
    Id,
    Plural,
    Translation(usize),
}

#[derive(Default)]
struct Reader {
    entries: Vec<PoEntry>,
    errors: Vec<PoError>,
    entry: PoEntry,
    field: Option<Field>,
    skipping: Option<Skipping>,
}

/// The rest of a faulty entry is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Skipping {
    /// Its `msgid` is still to come and does not start the next entry.
    BeforeId,
    AfterId,
}

impl Reader {
    fn line(&mut self, number: usize, line: &str) {
        if self.skips(line) {
            return;
        }
        if starts_entry(line) {
            self.close_after(|before| matches!(before, Field::Translation(_)));
        }
        if let Err(message) = self.read(number, line) {
            self.fail(number, message);
            let is_context = self.field == Some(Field::Context) || bare(line).starts_with("msgctxt");
            self.skipping = Some(if is_context { Skipping::BeforeId } else { Skipping::AfterId });
            self.field = None;
        }
    }

    fn fail(&mut self, line: usize, message: String) {
        self.errors.push(PoError { line, message });
        self.entry = PoEntry::default();
    }

    /// Whether a line belongs to the rest of a faulty entry.
    fn skips(&mut self, line: &str) -> bool {
        let Some(skipping) = self.skipping else { return false };
        if skipping == Skipping::BeforeId && starts_entry(line) && !bare(line).starts_with("msgctxt") {
            self.skipping = Some(Skipping::AfterId);
            return true;
        }
        let is_comment = line.starts_with('#') && !line.starts_with("#~");
        if starts_entry(line) || is_comment {
            self.skipping = None;
        }
        self.skipping.is_some()
    }

    fn read(&mut self, number: usize, line: &str) -> Result<(), String> {
        let Some(comment) = line.strip_prefix('#') else {
            return if line.is_empty() { Ok(()) } else { self.keyword(number, line, false) };
        };
        match comment.strip_prefix('~').map(str::trim) {
            None => self.comment(comment),
            Some("") => {}
            // Comments of an obsolete entry may have its mark.
            Some(rest) if rest.starts_with('|') => self.comment(rest),
            Some(rest) if rest.starts_with('#') => self.comment(&rest[1..]),
            Some(rest) => return self.keyword(number, rest, true),
        }
        Ok(())
    }

    fn comment(&mut self, comment: &str) {
        self.close_after(|field| matches!(field, Field::Translation(_)));
        let entry = &mut self.entry;
        let mut kinds = comment.chars();
        match kinds.next() {
            Some('.') => entry.extracted_comments.push(kinds.as_str().trim().to_owned()),
            Some(':') => entry.references.extend(kinds.as_str().split_whitespace().map(str::to_owned)),
            Some(',') => {
                let flags = kinds.as_str().split(',').map(str::trim).filter(|flag| !flag.is_empty());
                entry.flags.extend(flags.map(str::to_owned));
            }
            Some('|') => entry.previous.push(kinds.as_str().trim().to_owned()),
            _ => entry.translator_comments.push(comment.strip_prefix(' ').unwrap_or(comment).to_owned()),
        }
    }

    fn keyword(&mut self, number: usize, line: &str, obsolete: bool) -> Result<(), String> {
        let (word, text) = match line.find('"') {
            Some(at) => (line[..at].trim_end(), unquoted(&line[at..])?),
            None => {
                return Err(format!(
                    "`{line}` is not a line of a .po file: expected a keyword and a text in double quotes"
                ));
            }
        };
        let field = match word {
            "" => self.field.ok_or("this text belongs to no msgid or msgstr")?,
            "msgctxt" => self.start(Field::Context, number),
            "msgid" => self.start(Field::Id, number),
            "msgid_plural" if self.field == Some(Field::Id) => Field::Plural,
            "msgstr" if self.field == Some(Field::Id) => Field::Translation(0),
            _ => Field::Translation(self.form_after(word)?),
        };
        self.entry.obsolete |= obsolete;
        self.field = Some(field);
        let entry = &mut self.entry;
        match field {
            Field::Context => entry.context.get_or_insert_default().push_str(&text),
            Field::Id => entry.id.push_str(&text),
            Field::Plural => entry.plural.get_or_insert_default().push_str(&text),
            Field::Translation(form) if form < entry.translations.len() => entry.translations[form].push_str(&text),
            Field::Translation(_) => entry.translations.push(text),
        }
        Ok(())
    }

    fn start(&mut self, field: Field, number: usize) -> Field {
        let is_next = self.field.is_none() || (field, self.field) == (Field::Id, Some(Field::Context));
        if !is_next {
            self.fail(number, "the message before this one has no msgstr".to_owned());
        }
        if field == Field::Id {
            self.entry.line = number;
        }
        field
    }

    /// The number of `msgstr[2]`, which must follow that of the previous form.
    fn form_after(&self, word: &str) -> Result<usize, String> {
        let form = word.strip_prefix("msgstr[").and_then(|rest| rest.strip_suffix(']')).and_then(|n| n.parse().ok());
        let next = match self.field {
            Some(Field::Plural) => Some(0),
            Some(Field::Translation(form)) if self.entry.plural.is_some() => Some(form + 1),
            _ => None,
        };
        match (form, next) {
            (Some(form), Some(next)) if form == next => Ok(form),
            (_, Some(next)) => Err(format!("expected msgstr[{next}] instead of `{word}`")),
            _ => Err(format!("unexpected `{word}`")),
        }
    }

    /// Closes the current entry if its last field is an end.
    fn close_after(&mut self, is_end: impl Fn(Field) -> bool) {
        if self.field.is_some_and(is_end) {
            let entry = std::mem::take(&mut self.entry);
            self.entries.push(entry);
            self.field = None;
        }
    }

    fn finish(&mut self) {
        if self.field.is_some_and(|field| !matches!(field, Field::Translation(_))) {
            self.fail(self.entry.line.max(1), "the last message has no msgstr".to_owned());
            return;
        }
        self.close_after(|_| true);
    }
}

fn starts_entry(line: &str) -> bool {
    let line = bare(line);
    line.starts_with("msgctxt") || line.starts_with("msgid") && !line.starts_with("msgid_plural")
}

/// A line without the mark of obsolete entries.
fn bare(line: &str) -> &str {
    line.strip_prefix("#~").map_or(line, str::trim)
}

impl std::fmt::Display for PoFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, entry) in self.entries.iter().enumerate() {
            if at > 0 {
                f.write_char('\n')?;
            }
            f.write_str(&entry.to_string())?;
        }
        Ok(())
    }
}

impl std::fmt::Display for PoEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for comment in &self.translator_comments {
            writeln!(f, "{}", format!("# {comment}").trim_end())?;
        }
        for comment in &self.extracted_comments {
            writeln!(f, "#. {comment}")?;
        }
        for reference in &self.references {
            writeln!(f, "#: {reference}")?;
        }
        if !self.flags.is_empty() {
            writeln!(f, "#, {}", self.flags.join(", "))?;
        }
        for previous in &self.previous {
            writeln!(f, "#| {previous}")?;
        }
        let mark = if self.obsolete { "#~ " } else { "" };
        if let Some(context) = &self.context {
            write_text(f, mark, "msgctxt", context)?;
        }
        write_text(f, mark, "msgid", &self.id)?;
        let Some(plural) = &self.plural else {
            return write_text(f, mark, "msgstr", self.translations.first().map_or("", String::as_str));
        };
        write_text(f, mark, "msgid_plural", plural)?;
        for (form, text) in self.translations.iter().enumerate() {
            write_text(f, mark, &format!("msgstr[{form}]"), text)?;
        }
        Ok(())
    }
}

/// Writes a text on one line if it fits, otherwise wrapped after line ends and spaces.
fn write_text(f: &mut std::fmt::Formatter<'_>, mark: &str, keyword: &str, text: &str) -> std::fmt::Result {
    let line_ends = text.trim_end_matches('\n').contains('\n');
    let whole = quoted(text);
    if !line_ends && mark.len() + keyword.len() + 1 + whole.chars().count() <= LINE_CHARS_MAX {
        return writeln!(f, "{mark}{keyword} {whole}");
    }
    writeln!(f, "{mark}{keyword} \"\"")?;
    for line in text.split_inclusive('\n') {
        for piece in pieces(line) {
            writeln!(f, "{mark}{}", quoted(piece))?;
        }
    }
    Ok(())
}

/// A line in pieces of at most the wrapped length, each except the last ending with a space.
fn pieces(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = line;
    iter::from_fn(move || {
        let mut end = 0;
        let mut length = 2;
        for word in rest.split_inclusive(' ') {
            length += word.chars().count();
            if end > 0 && length > LINE_CHARS_MAX {
                break;
            }
            end += word.len();
        }
        let (piece, after) = rest.split_at(end);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"# Polish.
msgid ""
msgstr ""
"Content-Type: text/plain; charset=UTF-8\n"
"Plural-Forms: nplurals=2; plural=n != 1;\n"

# of a translator
#. of the author
#: a/b.html:3 a/c.txt:1
#, python-format
msgctxt "menu"
msgid "%(n)s \"file\""
msgid_plural "%(n)s files"
msgstr[0] "jeden\tplik"
msgstr[1] ""
"wiele\n"
"plików"
#, fuzzy
#| msgid "Old"
msgid "New"
msgstr "Nowy"

#~ msgid "Gone"
#~ msgstr "Nie ma"
"#;

    #[test]
    fn reading_and_writing_a_file_keeps_all_its_parts() {
        let file = PoFile::parse(FILE).unwrap();
        assert_eq!(file.entries.len(), 4);
        let [files, new] = file.messages().collect::<Vec<_>>()[..] else { panic!("two messages: {file:?}") };
        assert_eq!((files.line, files.key().as_str()), (12, "menu\u{4}%(n)s \"file\""));
        assert_eq!(files.translations, ["jeden\tplik", "wiele\nplików"]);
        assert_eq!(files.references, ["a/b.html:3", "a/c.txt:1"]);
        assert_eq!((files.is_translated(), new.is_translated()), (true, false));
        assert_eq!(file.header_field("plural-forms"), Some("nplurals=2; plural=n != 1;"));
        let mut again = PoFile::parse(&file.to_string()).unwrap();
        again.entries.iter_mut().zip(&file.entries).for_each(|(new, old)| new.line = old.line);
        assert_eq!(again, file);
    }

    #[test]
    fn long_texts_are_wrapped_between_words() {
        let id = "word ".repeat(40);
        let entry = PoEntry { id: id.clone(), translations: vec![String::new()], ..PoEntry::default() };
        let text = entry.to_string();
        assert!(text.lines().all(|line| line.chars().count() <= LINE_CHARS_MAX + 2), "{text}");
        assert_eq!(PoFile::parse(&text).unwrap().entries[0].id, id);
    }

    #[test]
    fn errors_have_a_line() {
        let error = |text: &str| {
            let PoError { line, message } = PoFile::parse(text).unwrap_err();
            format!("{line}: {message}")
        };
        assert_eq!(error("msgid \"a\"\nmsgstr \"b\n"), "2: a closing quote is missing");
        assert_eq!(error("msgid \"a\"\n\nmsgid \"b\"\nmsgstr \"\""), "3: the message before this one has no msgstr");
        assert_eq!(error("\"loose\""), "1: this text belongs to no msgid or msgstr");
        assert_eq!(error("msgid \"a\""), "1: the last message has no msgstr");
        assert_eq!(error("msgid \"\\q\"\nmsgstr \"\""), "1: the escape `\\q` is unknown");
        assert_eq!(error("msgid \"\\x\"\nmsgstr \"\""), "1: the escape `` is not a byte");
        assert_eq!(error("msgid \"a\"b\"\nmsgstr \"\""), "1: a quote inside a text needs a backslash before it");
        assert_eq!(error("msgid \"a\"\nmsgstr[0] \"\""), "2: unexpected `msgstr[0]`");
        let skipped = "msgid \"a\"\nmsgid_plural \"b\"\nmsgstr[0] \"\"\nmsgstr[2] \"\"";
        assert_eq!(error(skipped), "4: expected msgstr[1] instead of `msgstr[2]`");
        assert_eq!(
            error("nonsense"),
            "1: `nonsense` is not a line of a .po file: expected a keyword and a text in double quotes"
        );
        for malformed in ["msgid ", "msgid \"", "\"", "#~ ", "#~ msgid", "msgstr", "msgstr[", "msgctxt \"\""] {
            // None of them may panic.
            let _ = PoFile::parse(malformed);
        }
    }

    #[test]
    fn obsolete_entries_may_have_comments() {
        let text = "msgid \"a\"\nmsgstr \"b\"\n\n#~ # of a translator\n#~ #: a.html:1\n#~ #, fuzzy\n#~| msgid \"c\"\n\
                    #~ msgid \"d\"\n#~ msgstr \"e\"\n#~ \"f\"\n";
        let file = PoFile::parse(text).unwrap();
        assert_eq!(file.messages().map(|entry| entry.id.as_str()).collect::<Vec<_>>(), ["a"]);
        let old = &file.entries[1];
        assert_eq!((old.obsolete, old.id.as_str(), old.translations[0].as_str()), (true, "d", "ef"));
        assert_eq!((old.is_fuzzy(), old.translator_comments.as_slice()), (true, &["of a translator".to_owned()][..]));
    }

    #[test]
    fn an_error_affects_only_its_entry() {
        let text = "msgid \"a\"\nmsgstr \"1\"\n\n# comment\nmsgctxt \"x\\q\"\nmsgid \"b\"\nmsgstr \"2\"\n\n\
                    msgid \"c\nmsgid_plural \"cs\"\nmsgstr[0] \"3\"\n\nmsgid \"d\"\n\nmsgid \"e\"\nmsgstr \"5\"\nloose\n\n\
                    #, fuzzy\nmsgid \"f\"\nmsgstr \"6\"\n#~ msgid \"g\n#~ msgstr \"7\"\nmsgid \"h\"\nmsgstr \"8\"\nmsgid \"i\"\n";
        let (file, errors) = PoFile::read(text);
        let ids: Vec<&str> = file.entries.iter().map(|entry| entry.id.as_str()).collect();
        assert_eq!(ids, ["a", "f", "h"]);
        assert_eq!((file.entries[1].is_fuzzy(), file.entries[1].translator_comments.len()), (true, 0));
        let lines: Vec<usize> = errors.iter().map(|error| error.line).collect();
        assert_eq!(lines, [5, 9, 15, 17, 22, 26], "{errors:?}");
    }
}
