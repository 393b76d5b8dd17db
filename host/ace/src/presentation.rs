//! What a message looks like on a channel type: looks its template files up, renders them, and nothing more.
//!
//! The layout is edx-ace's: `{app_label}/edx_ace/{name}/{channel type}/{file}` below a list of folders, the first
//! folder that has a file wins. The language is Tera 2. Everything is read and compiled once, at
//! [`Presentation::load`]; a render touches no file. Templates are the operator's and are trusted; a message's context
//! is data and is never parsed.

mod context;
mod email;
mod filters;
mod functions;
mod i18n;
mod metering;
mod rendering;
mod templates;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use serde::Serialize;
use tera::{Context, ErrorKind, ReportError, Tera};

pub use i18n::{ExtractError, Extracted, extract};
pub(crate) use templates::MessageTemplates;

use crate::config;
use crate::message::{ActionLink, Message, Rendered, RenderedFile, TemplateFile, nearest};
use ace_store::files::FileStamp;
use email::Inliner;
use i18n::languages::{Catalog, Languages, Resolved};
use rendering::{Bounds, Rendering};
use templates::load::{self, Texts};

/// The option that names the theme, as Open edX names the site a message is sent for.
const THEME_OPTION: &str = "site";
/// A mail's usual size, so that rendering it grows no buffer.
const OUTPUT_BYTES_USUAL: usize = 16 << 10;
/// A fault's text is shown in tables and kept with the message; what Tera says may list every variable of a context.
const FAULT_CHARS_MAX: usize = 600;

/// Every template of the configured folders, compiled. Immutable; share it behind an `Arc`.
pub struct Presentation {
    /// Without a theme.
    plain: Theme,
    themes: BTreeMap<String, Theme>,
    settings: config::Presentation,
    dirs: Vec<PathBuf>,
    /// `app_label/edx_ace/name` to its sample.
    samples: BTreeMap<String, PathBuf>,
    /// Files that are not used because of another one of their name.
    shadowed: BTreeMap<PathBuf, Vec<PathBuf>>,
    problems: Vec<TemplateProblem>,
    /// The catalogues that can be used, for when their next versions cannot.
    catalogs: BTreeMap<PathBuf, Arc<Catalog>>,
    /// The tables of routes that can be used, for when their next versions cannot.
    route_files: BTreeMap<PathBuf, config::Routes>,
    /// All routes, those that count first.
    routes: Arc<config::Routes>,
    /// The names of files that count only because templates include them.
    included: BTreeSet<String>,
    /// How each file looked before it was read.
    stamps: BTreeMap<PathBuf, Option<FileStamp>>,
    inliner: Inliner,
}

/// All templates as one theme has them, compiled together.
struct Theme {
    tera: Tera,
    index: Index,
    languages: Languages,
    /// Whether any template may read `message.context`.
    reads_context: bool,
    /// Template name to the file it came from, for faults.
    paths: HashMap<String, String>,
    /// The text of each template that can be rendered, for when its next version cannot.
    texts: Texts,
    /// The same templates for a context with a number that Tera formats differently from Python. Compiled on first use.
    with_python_numbers: OnceLock<Tera>,
}

/// app label -> message name -> channel type -> files. Sorted, so that listings are stable.
type Index = BTreeMap<String, BTreeMap<String, BTreeMap<String, Vec<Entry>>>>;

/// One template file that a channel may ask for.
struct Entry {
    /// As the channel names it: `subject.txt`.
    file: String,
    /// Tera's name for it: the path below its folder.
    template: String,
    /// The file itself.
    source: String,
    /// Why it cannot be rendered, where it cannot.
    broken: Option<String>,
}

/// What is to be rendered.
struct Asked<'a> {
    entries: Vec<&'a Entry>,
    /// Where among the files the text part goes that is made of the HTML.
    derives_text: Option<usize>,
}

/// What a channel wants rendered, and what it puts into the context beside the message.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The channel's name.
    pub channel: &'a str,
    /// Its type.
    pub channel_type: &'a str,
    /// Rendered in this order.
    pub files: &'a [TemplateFile],
    /// The channel's links.
    pub action_links: &'a [ActionLink],
    /// The channel's images.
    pub tracker_image_sources: &'a [String],
}

/// A template file that cannot be used, found while loading.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct TemplateProblem {
    pub file: PathBuf,
    /// From 1; `None` where the file as a whole is at fault.
    pub line: Option<usize>,
    pub message: String,
}

impl fmt::Display for TemplateProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file.display(), self.message),
            None => write!(f, "{}: {}", self.file.display(), self.message),
        }
    }
}

/// Why a message could not be rendered for a channel type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateFault {
    /// Names the file, and the line where there is one.
    pub message: String,
    /// Not one of the required files exists: the message was never meant for this channel type.
    pub absent: bool,
}

impl TemplateFault {
    fn new(message: impl Into<String>) -> Self {
        TemplateFault { message: message.into(), absent: false }
    }
}

/// A theme, and the form of its templates that a message needs.
#[derive(Clone, Copy)]
struct Compiled<'a> {
    theme: &'a Theme,
    tera: &'a Tera,
}

impl Presentation {
    /// Reads every template of every folder; blocks the thread meanwhile. What is wrong with one is found in
    /// [`Presentation::problems`], makes rendering it (and what extends or includes it) a fault, and stops nothing
    /// else.
    pub fn load(dirs: &[PathBuf], settings: &config::Presentation) -> Presentation {
        load::load(dirs, settings)
    }

    /// Whether there is a template for the message on any channel type.
    pub fn knows(&self, message: &Message) -> bool {
        let theme = self.theme(message);
        theme.index.get(&message.app_label).is_some_and(|names| names.contains_key(&message.name))
    }

    /// The folders as they are now. A template or catalogue that is broken now and was not before stays as it was, and is
    /// listed among the problems; where nothing changed, this is what comes back.
    pub fn reload(self: &Arc<Self>, dirs: &[PathBuf], settings: &config::Presentation) -> Arc<Presentation> {
        match load::load_again(dirs, settings, self) {
            Some(presentation) => Arc::new(presentation),
            None => self.clone(),
        }
    }

    /// Everything wrong with the folders, by file and line.
    pub fn problems(&self) -> &[TemplateProblem] {
        &self.problems
    }

    /// Renders the files the channel asks for, in its order. One that is not required is left out where it does not
    /// exist.
    ///
    /// A required file that does not exist, a broken one, an undefined variable, a filter that fails, and output, time or
    /// loops beyond the settings' bounds are faults. An unknown language is none: it is noted. Nothing is trimmed (edx-ace
    /// neither trims).
    pub fn render(&self, message: &Message, subject: &Subject) -> Result<Rendered, TemplateFault> {
        let theme = self.theme(message);
        let Asked { entries, derives_text } = self.entries(theme, message, subject)?;
        let Resolved { language, note } = theme.languages.resolve(message.language.as_deref());
        let (context, has_exponent) =
            context::build(message, subject, theme.reads_context).map_err(|e| TemplateFault::new(e.to_string()))?;
        let tera = if has_exponent {
            theme
                .with_python_numbers
                .get_or_init(|| load::compile_with_python_numbers(&theme.texts, &self.settings, &self.routes))
        } else {
            &theme.tera
        };
        let compiled = Compiled { theme, tera };
        let output_bytes = self.settings.max_output_bytes;
        let bounds = Bounds { steps: self.settings.max_steps, time: self.settings.render_timeout, output_bytes };
        let code = language.code.clone();
        let rendering = Rendering::new(language, context::tracking(message, subject), bounds);
        let mut files = rendering::within(rendering, || {
            let mut output = Output { bytes: Vec::with_capacity(OUTPUT_BYTES_USUAL), left: output_bytes, full: false };
            let files = entries.iter().map(|entry| self.render_file(compiled, entry, &context, &mut output));
            let files = files.collect::<Result<Vec<_>, _>>();
            files.map_err(|fault| self.with_all_undefined(compiled, &entries, &context, fault))
        })?;
        if subject.channel_type == email::CHANNEL_TYPE {
            email::postprocess(&mut files, &self.settings, &self.inliner, derives_text)
                .map_err(|e| TemplateFault::new(format!("{}: {e}", message.unique_name())))?;
        }
        Ok(Rendered { files, language: code, note })
    }

    /// The theme that `options.site` names, else the default one, else none.
    fn theme(&self, message: &Message) -> &Theme {
        let asked = message.options.get(THEME_OPTION).and_then(serde_json::Value::as_str);
        let default = self.settings.default_theme.as_deref();
        asked.into_iter().chain(default).find_map(|name| self.themes.get(name)).unwrap_or(&self.plain)
    }

    /// What the channel asks for and what exists of it, in the channel's order.
    fn entries<'a>(&self, theme: &'a Theme, message: &Message, subject: &Subject) -> Result<Asked<'a>, TemplateFault> {
        let found = theme
            .index
            .get(&message.app_label)
            .and_then(|names| names.get(&message.name))
            .and_then(|types| types.get(subject.channel_type))
            .map_or(&[][..], Vec::as_slice);
        let mut entries = Vec::with_capacity(subject.files.len());
        let mut missing = Vec::new();
        let mut derives_text = None;
        let has_html = found.iter().any(|e| e.file == email::BODY_HTML);
        let may_derive = self.settings.text_from_html && subject.channel_type == email::CHANNEL_TYPE && has_html;
        for (at, file) in subject.files.iter().enumerate() {
            match found.iter().find(|e| e.file == file.name) {
                Some(entry) => entries.push(entry),
                None if may_derive && file.name == email::BODY_TXT => derives_text = Some(at),
                None if file.required => missing.push(file.name.as_str()),
                None => {}
            }
        }
        if missing.is_empty() {
            return Ok(Asked { entries, derives_text });
        }
        let absent = missing.len() == subject.files.iter().filter(|f| f.required).count();
        Err(TemplateFault { message: self.missing(message, subject, &missing), absent })
    }

    fn missing(&self, message: &Message, subject: &Subject, files: &[&str]) -> String {
        let folder = format!("{}/edx_ace/{}/{}", message.app_label, message.name, subject.channel_type);
        let site = message.options.get(THEME_OPTION).and_then(serde_json::Value::as_str);
        let theme = site.or(self.settings.default_theme.as_deref()).filter(|theme| self.themes.contains_key(*theme));
        let themed =
            theme.into_iter().flat_map(|theme| self.dirs.iter().map(move |dir| dir.join("themes").join(theme)));
        let places: Vec<String> =
            themed.chain(self.dirs.iter().cloned()).map(|d| d.join(&folder).display().to_string()).collect();
        let places = match places.as_slice() {
            [] => "no template folder is configured".to_owned(),
            places => format!("looked in {}", places.join(", ")),
        };
        let places = places + &self.near(message);
        match files {
            [file] => format!("template {folder}/{file} is missing; {places}"),
            files => format!("templates {} are missing from {folder}; {places}", files.join(", ")),
        }
    }

    /// The message that one without any template may be meant to be.
    fn near(&self, message: &Message) -> String {
        let index = &self.theme(message).index;
        let named = index.get(&message.app_label).map(|names| nearest(&message.name, names.keys().map(String::as_str)));
        let near = match named {
            _ if self.knows(message) => None,
            Some(name) => name.map(|name| format!("{}.{name}", message.app_label)),
            None => nearest(&message.app_label, index.keys().map(String::as_str))
                .filter(|label| index.get(*label).is_some_and(|names| names.contains_key(&message.name)))
                .map(|label| format!("{label}.{}", message.name)),
        };
        near.map_or_else(String::new, |near| format!("; did you mean the message {near}?"))
    }

    fn render_file(
        &self,
        Compiled { theme, tera }: Compiled<'_>,
        entry: &Entry,
        context: &Context,
        output: &mut Output,
    ) -> Result<RenderedFile, TemplateFault> {
        if let Some(broken) = &entry.broken {
            return Err(TemplateFault::new(broken));
        }
        output.bytes.clear();
        if let Err(error) = tera.render_to(&entry.template, context, &mut *output) {
            return Err(if output.full {
                TemplateFault::new(format!(
                    "{}: the message's templates wrote more than {} MiB; check for a loop that does not terminate",
                    entry.source,
                    self.settings.max_output_bytes >> 20
                ))
            } else {
                theme.fault(entry, &error)
            });
        }
        let text = std::str::from_utf8(&output.bytes)
            .map_err(|_| TemplateFault::new(format!("{}: wrote something that is not UTF-8", entry.source)))?;
        Ok(RenderedFile { name: entry.file.clone(), source: entry.source.clone(), text: text.to_owned() })
    }
}

impl Theme {
    /// Tera's error on one line, with the file it happened in (a base layout, say) and the one that was asked for.
    fn fault(&self, entry: &Entry, error: &tera::Error) -> TemplateFault {
        let text = match error.kind() {
            ErrorKind::RenderingError(report) | ErrorKind::SyntaxError(report) => {
                let file = self.paths.get(report.filename()).map_or(report.filename(), String::as_str);
                let line = report.span().start_line;
                let said = shortened(&describe(report, &error.to_string()));
                if report.filename() == entry.template {
                    format!("{file}:{line}: {said}")
                } else {
                    format!("{file}:{line}: {said} (in {})", entry.source)
                }
            }
            _ => format!("{}: {}", entry.source, shortened(&error.to_string())),
        };
        TemplateFault::new(text)
    }
}

/// What Tera says, and the expression it says it of where the words alone do not name it.
fn describe(report: &ReportError, display: &str) -> String {
    match expression(report, display) {
        Some(e) if !e.is_empty() && !e.starts_with(metering::INTERNAL_PREFIX) && !report.message().contains(e) => {
            format!("{} at `{e}`", report.message())
        }
        _ => report.message().to_owned(),
    }
}

/// The expression that an error is about, where it stands on one line.
fn expression<'a>(report: &ReportError, display: &'a str) -> Option<&'a str> {
    let (before, marked, _) = spanned(report, display)?;
    Some(metering::original_expression(before, marked.trim()))
}

/// What stands before a span on its line, in it, and after it.
fn spanned<'a>(report: &ReportError, display: &'a str) -> Option<(&'a str, &'a str, &'a str)> {
    let span = report.span();
    let prefix = format!("{} | ", span.start_line);
    let line =
        display.lines().find_map(|line| line.strip_prefix(&prefix)).filter(|_| span.start_line == span.end_line)?;
    let place = |column: usize| line.char_indices().nth(column).map_or(line.len(), |(at, _)| at);
    let (start, end) = (place(span.start_col), place(span.end_col.max(span.start_col)));
    Some((&line[..start], &line[start..end], &line[end..]))
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(FAULT_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// The bytes of one file, within what is left for the whole message.
struct Output {
    bytes: Vec<u8>,
    left: usize,
    full: bool,
}

impl Write for Output {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.write_all(data).map(|()| data.len())
    }

    fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        if data.len() > self.left {
            self.full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.left -= data.len();
        self.bytes.extend_from_slice(data);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
