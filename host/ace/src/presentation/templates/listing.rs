//! Lists messages, template files and the files that they override, themes, languages, and samples.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::files;
use crate::message::{FieldErrors, Message};
use crate::presentation::{Presentation, Theme, email};

/// The templates found for one message on one channel type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MessageTemplates<'a> {
    pub app_label: &'a str,
    pub name: &'a str,
    pub channel_type: &'a str,
    /// Sorted. Includes broken ones.
    pub files: Vec<&'a str>,
}

/// Why a sample has no message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SampleError {
    /// The file cannot be read.
    #[error("{0}")]
    File(String),
    /// The file is not JSON.
    #[error("is not valid JSON: {0}")]
    Json(serde_json::Error),
    /// The JSON is not an object.
    #[error("is not a message: it must be a JSON object")]
    NotAnObject,
    /// The object is not a valid message.
    #[error(transparent)]
    Message(#[from] FieldErrors),
    /// The message is another one than that of the templates.
    #[error("is a sample of {found}, but is beside the templates of {expected}")]
    OtherMessage {
        /// The message of the sample.
        found: String,
        /// The message of the templates.
        expected: String,
    },
}

impl MessageTemplates<'_> {
    /// Whether a channel that requests the file gets it.
    pub fn has(&self, file: &str, presentation: &Presentation) -> bool {
        let is_derived = file == email::BODY_TXT
            && self.channel_type == email::CHANNEL_TYPE
            && presentation.settings.text_from_html
            && self.files.contains(&email::BODY_HTML);
        is_derived || self.files.contains(&file)
    }
}

/// One template file of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TemplateListing<'a> {
    pub app_label: &'a str,
    pub name: &'a str,
    pub channel_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub theme: Option<&'a str>,
    /// The name that channels use.
    pub file: &'a str,
    pub source: &'a str,
    /// The files of the same name that this one hides, in order of precedence.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broken: Option<&'a str>,
}

impl Presentation {
    /// The messages that have templates, by app label, name and channel type.
    pub fn messages(&self) -> impl Iterator<Item = MessageTemplates<'_>> {
        self.plain.index.iter().flat_map(|(app_label, names)| {
            names.iter().flat_map(move |(name, types)| {
                types.iter().map(move |(channel_type, entries)| MessageTemplates {
                    app_label,
                    name,
                    channel_type,
                    files: entries.iter().map(|e| e.file.as_str()).collect(),
                })
            })
        })
    }

    /// The names of all themes.
    pub fn themes(&self) -> impl Iterator<Item = &str> {
        self.themes.keys().map(String::as_str)
    }

    /// The languages that have a catalogue, in any theme.
    pub fn languages(&self) -> BTreeSet<&str> {
        let all = std::iter::once(&self.plain).chain(self.themes.values());
        all.flat_map(|theme| theme.languages.codes()).collect()
    }

    /// The samples beside templates (`sample.json`), each with its file. A sample is a message in JSON, in which `app_label`,
    /// `name` and `recipient` are optional. Blocks.
    pub fn samples(&self) -> Vec<(&Path, Result<Message, SampleError>)> {
        self.samples.iter().map(|(folder, path)| (path.as_path(), sample(folder, path))).collect()
    }

    /// All template files of all messages, with their sources and the files that they override.
    pub fn files(&self) -> impl Iterator<Item = TemplateListing<'_>> {
        let plain = self.listing(None, &self.plain);
        plain.chain(self.themes.iter().flat_map(|(name, theme)| self.listing(Some(name), theme)))
    }

    fn listing<'a>(&'a self, theme: Option<&'a str>, of: &'a Theme) -> impl Iterator<Item = TemplateListing<'a>> {
        let messages =
            of.index.iter().flat_map(|(app, names)| names.iter().map(move |(name, types)| (app, name, types)));
        let entries = messages.flat_map(|(app, name, types)| {
            types
                .iter()
                .flat_map(move |(channel_type, entries)| entries.iter().map(move |e| (app, name, channel_type, e)))
        });
        entries.filter_map(move |(app_label, name, channel_type, entry)| {
            let plain = self.plain.paths.get(&entry.template).filter(|_| theme.is_some());
            // A theme lists only the files that it overrides or adds.
            if theme.is_some() && plain.is_some_and(|plain| *plain == entry.source) {
                return None;
            }
            let shadowed = self.shadowed.get(Path::new(&entry.source)).into_iter().flatten();
            let overrides = shadowed.map(PathBuf::as_path).chain(plain.map(Path::new)).collect();
            Some(TemplateListing {
                app_label,
                name,
                channel_type,
                theme,
                file: &entry.file,
                source: &entry.source,
                overrides,
                broken: entry.fault.as_deref(),
            })
        })
    }
}

/// The message in the sample of the folder `app_label/edx_ace/name`.
fn sample(folder: &str, path: &Path) -> Result<Message, SampleError> {
    let mut sample: Value = files::read(path).map_err(SampleError::File)?.parse().map_err(SampleError::Json)?;
    let fields = sample.as_object_mut().ok_or(SampleError::NotAnObject)?;
    let (app_label, name) = folder.split_once("/edx_ace/").unwrap_or_default();
    for (key, value) in [("app_label", app_label.into()), ("name", name.into()), ("recipient", Value::Null)] {
        fields.entry(key).or_insert(value);
    }
    let message = Message::from_value(sample)?;
    if message.app_label == app_label && message.name == name {
        Ok(message)
    } else {
        Err(SampleError::OtherMessage { found: message.unique_name(), expected: format!("{app_label}.{name}") })
    }
}
