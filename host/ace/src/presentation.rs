//! Renders messages from template files.
//!
//! The layout is edx-ace's: `{app_label}/edx_ace/{name}/{channel type}/{file}` below a list of folders, of which the first
//! one that has a file wins. The template language is Tera 2. [`Presentation::load`] reads and compiles all files; rendering
//! reads none. Templates are trusted. A message's context is data and is never parsed as a template.

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

use crate::config::{self, Brand};
use crate::message::{ActionLink, Message, Rendered, RenderedFile, TemplateFile, nearest};
use ace_store::files::FileStamp;
use email::Inliner;
use i18n::languages::{Catalog, Languages, Resolved};
use rendering::{Bounds, Rendering};
use templates::load::{self, Texts};

/// The option that names the theme. Open edX puts the name of the message's site there.
const THEME_OPTION: &str = "site";
/// The initial size of the output buffer: that of a usual mail.
const OUTPUT_BYTES_USUAL: usize = 16 << 10;
/// The longest text of a fault. It is shown in tables and stored with the message; Tera's own may list every variable.
const FAULT_CHARS_MAX: usize = 600;

/// Every template of the configured folders, compiled. Immutable; share it behind an `Arc`.
pub struct Presentation {
    /// The templates outside themes.
    plain: Theme,
    themes: BTreeMap<String, Theme>,
    settings: config::Presentation,
    dirs: Vec<PathBuf>,
    /// `app_label/edx_ace/name` to its sample.
    samples: BTreeMap<String, PathBuf>,
    /// For each file, the files of the same name that it hides.
    shadowed: BTreeMap<PathBuf, Vec<PathBuf>>,
    problems: Vec<TemplateProblem>,
    /// The valid catalogues, in case their next versions are not.
    catalogs: BTreeMap<PathBuf, Arc<Catalog>>,
    /// The valid tables of routes, in case their next versions are not.
    route_files: BTreeMap<PathBuf, config::Routes>,
    /// All routes, merged.
    routes: Arc<config::Routes>,
    /// The names of files that are templates only because others include them.
    included: BTreeSet<String>,
    /// The stamp of each file before it was read.
    stamps: BTreeMap<PathBuf, Option<FileStamp>>,
    inliner: Inliner,
}

/// All templates as one theme sees them, compiled together.
struct Theme {
    tera: Tera,
    index: Index,
    languages: Languages,
    /// Whether any template may read `message.context`.
    reads_context: bool,
    /// The file of each template, by its name.
    paths: HashMap<String, String>,
    /// The text of each valid template, in case its next version is not.
    texts: Texts,
    /// What the layout shows of the sender.
    brand: Brand,
    /// The same templates for a context with a number that Tera formats differently from Python. Compiled on first use.
    with_python_numbers: OnceLock<Tera>,
}

/// App label -> message name -> channel type -> files. Sorted, so that listings are stable.
type Index = BTreeMap<String, BTreeMap<String, BTreeMap<String, Vec<Entry>>>>;

/// One template file that a channel may ask for.
struct Entry {
    /// The name that channels use: `subject.txt`.
    file: String,
    /// The name in Tera: the path below the template folder.
    template: String,
    /// The path of the file.
    source: String,
    /// Why it cannot be rendered.
    fault: Option<String>,
}

/// The files to render.
struct Requested<'a> {
    entries: Vec<&'a Entry>,
    /// The index of the text part, if it is derived from the HTML.
    derived_text: Option<usize>,
}

/// The files that a channel requests, and what it adds to the context.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The channel's name.
    pub channel: &'a str,
    /// Its type.
    pub channel_type: &'a str,
    /// In the order of rendering.
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
    /// Starts at 1; `None` if the problem is the whole file.
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
    /// Names the file, and the line if it is known.
    pub message: String,
    /// None of the required files exists: the message is not meant for this channel type.
    pub absent: bool,
}

impl TemplateFault {
    fn new(message: impl Into<String>) -> Self {
        TemplateFault { message: message.into(), absent: false }
    }
}

/// A theme and the compiled templates of it that a message needs.
#[derive(Clone, Copy)]
struct Compiled<'a> {
    theme: &'a Theme,
    tera: &'a Tera,
}

impl Presentation {
    /// Reads and compiles all templates of all folders. Blocks the thread. A template with an error is listed in
    /// [`Presentation::problems`]; rendering it, or a template that extends or includes it, is a fault.
    pub fn load(dirs: &[PathBuf], settings: &config::Presentation) -> Presentation {
        load::load(dirs, settings)
    }

    /// Whether the message has a template for any channel type.
    pub fn knows(&self, message: &Message) -> bool {
        let theme = self.theme(message);
        theme.index.get(&message.app_label).is_some_and(|names| names.contains_key(&message.name))
    }

    /// Reads the folders again. If a template or catalogue is faulty now and was valid before, its last valid version stays in
    /// use, and the fault is listed among the problems. Returns `self` if nothing changed.
    pub fn reload(self: &Arc<Self>, dirs: &[PathBuf], settings: &config::Presentation) -> Arc<Presentation> {
        match load::load_again(dirs, settings, self) {
            Some(presentation) => Arc::new(presentation),
            None => self.clone(),
        }
    }

    /// All problems of the template folders, by file and line.
    pub fn problems(&self) -> &[TemplateProblem] {
        &self.problems
    }

    /// Renders the files that the channel requests, in its order. Optional files that do not exist are omitted. An unknown
    /// language is noted in the result. Output is not trimmed, as in edx-ace.
    ///
    /// # Errors
    /// If a required file does not exist, a file is faulty, a variable is undefined, a filter fails, or a limit of
    /// `[presentation]` is exceeded.
    pub fn render(&self, message: &Message, subject: &Subject) -> Result<Rendered, TemplateFault> {
        let theme = self.theme(message);
        let Requested { entries, derived_text } = self.entries(theme, message, subject)?;
        let Resolved { language, note } = theme.languages.resolve(message.language.as_deref());
        let (context, has_exponent) =
            context::build(message, subject, theme.reads_context).map_err(|e| TemplateFault::new(e.to_string()))?;
        let tera = if has_exponent {
            theme.with_python_numbers.get_or_init(|| load::compile_with_python_numbers(&theme.texts, self.known(theme)))
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
            email::postprocess(&mut files, &self.settings, &self.inliner, derived_text)
                .map_err(|e| TemplateFault::new(format!("{}: {e}", message.unique_name())))?;
        }
        Ok(Rendered { files, language: code, note })
    }

    fn known<'a>(&'a self, theme: &'a Theme) -> load::Known<'a> {
        load::Known { settings: &self.settings, brand: &theme.brand, routes: &self.routes }
    }

    /// The theme that `options.site` names, otherwise the default theme, otherwise the templates outside themes.
    fn theme(&self, message: &Message) -> &Theme {
        let requested = message.options.get(THEME_OPTION).and_then(serde_json::Value::as_str);
        let default = self.settings.default_theme.as_deref();
        requested.into_iter().chain(default).find_map(|name| self.themes.get(name)).unwrap_or(&self.plain)
    }

    /// The requested files that exist, in the channel's order.
    fn entries<'a>(
        &self,
        theme: &'a Theme,
        message: &Message,
        subject: &Subject,
    ) -> Result<Requested<'a>, TemplateFault> {
        let found = theme
            .index
            .get(&message.app_label)
            .and_then(|names| names.get(&message.name))
            .and_then(|types| types.get(subject.channel_type))
            .map_or(&[][..], Vec::as_slice);
        let mut entries = Vec::with_capacity(subject.files.len());
        let mut missing = Vec::new();
        let mut derived_text = None;
        let has_html = found.iter().any(|e| e.file == email::BODY_HTML);
        let may_derive = self.settings.text_from_html && subject.channel_type == email::CHANNEL_TYPE && has_html;
        for (at, file) in subject.files.iter().enumerate() {
            match found.iter().find(|e| e.file == file.name) {
                Some(entry) => entries.push(entry),
                None if may_derive && file.name == email::BODY_TXT => derived_text = Some(at),
                None if file.required => missing.push(file.name.as_str()),
                None => {}
            }
        }
        if missing.is_empty() {
            return Ok(Requested { entries, derived_text });
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
        let places = places + &self.suggestion(message);
        match files {
            [file] => format!("template {folder}/{file} is missing; {places}"),
            files => format!("templates {} are missing from {folder}; {places}", files.join(", ")),
        }
    }

    /// A suggestion for a message without any template: one with a similar name.
    fn suggestion(&self, message: &Message) -> String {
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
        if let Some(fault) = &entry.fault {
            return Err(TemplateFault::new(fault));
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
            .map_err(|_| TemplateFault::new(format!("{}: the output is not UTF-8", entry.source)))?;
        Ok(RenderedFile { name: entry.file.clone(), source: entry.source.clone(), text: text.to_owned() })
    }
}

impl Theme {
    /// Tera's error on one line, with its file (a base layout, for example) and the requested one.
    fn fault(&self, entry: &Entry, error: &tera::Error) -> TemplateFault {
        let text = match error.kind() {
            ErrorKind::RenderingError(report) | ErrorKind::SyntaxError(report) => {
                let file = self.paths.get(report.filename()).map_or(report.filename(), String::as_str);
                let line = report.span().start_line;
                let text = shortened(&describe(report, &error.to_string()));
                if report.filename() == entry.template {
                    format!("{file}:{line}: {text}")
                } else {
                    format!("{file}:{line}: {text} (in {})", entry.source)
                }
            }
            _ => format!("{}: {}", entry.source, shortened(&error.to_string())),
        };
        TemplateFault::new(text)
    }
}

/// Tera's message, with the expression if the message does not name it.
fn describe(report: &ReportError, display: &str) -> String {
    match expression(report, display) {
        Some(e) if !e.is_empty() && !e.starts_with(metering::INTERNAL_PREFIX) && !report.message().contains(e) => {
            format!("{} at `{e}`", report.message())
        }
        _ => report.message().to_owned(),
    }
}

/// The expression that an error is about, if it is on one line.
fn expression<'a>(report: &ReportError, display: &'a str) -> Option<&'a str> {
    let (before, marked, _) = split_at_span(report, display)?;
    Some(metering::original_expression(before, marked.trim()))
}

/// The text before a span on its line, the span's own, and the text after it.
fn split_at_span<'a>(report: &ReportError, display: &'a str) -> Option<(&'a str, &'a str, &'a str)> {
    let span = report.span();
    let prefix = format!("{} | ", span.start_line);
    let line =
        display.lines().find_map(|line| line.strip_prefix(&prefix)).filter(|_| span.start_line == span.end_line)?;
    let offset = |column: usize| line.char_indices().nth(column).map_or(line.len(), |(at, _)| at);
    let (start, end) = (offset(span.start_col), offset(span.end_col.max(span.start_col)));
    Some((&line[..start], &line[start..end], &line[end..]))
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(FAULT_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// The output of one file, limited to what remains of the message's limit.
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
