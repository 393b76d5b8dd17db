//! What there is: messages, files and what they override, themes, languages, samples.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::files;
use crate::message::Message;
use crate::presentation::{Presentation, Theme, email};

/// The templates found for one message on one channel type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MessageTemplates<'a> {
    pub app_label: &'a str,
    pub name: &'a str,
    pub channel_type: &'a str,
    /// Sorted; broken ones too.
    pub files: Vec<&'a str>,
}

impl MessageTemplates<'_> {
    /// Whether a channel that asks for the file gets it.
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
    /// As a channel names it.
    pub file: &'a str,
    pub source: &'a str,
    /// The files that would be used without this one, next first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broken: Option<&'a str>,
}

impl Presentation {
    /// The messages that have templates, by label, name and channel type.
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

    /// The themes that the folders have.
    pub fn themes(&self) -> impl Iterator<Item = &str> {
        self.themes.keys().map(String::as_str)
    }

    /// The languages that have a catalogue, in any theme.
    pub fn languages(&self) -> BTreeSet<&str> {
        let all = std::iter::once(&self.plain).chain(self.themes.values());
        all.flat_map(|theme| theme.languages.codes()).collect()
    }

    /// The messages that have a sample beside their templates (`sample.json`): its file, and the message in it or why there
    /// is none. A sample is a message as it is sent, of which `app_label`, `name` and `recipient` may be left out. Blocks.
    pub fn samples(&self) -> Vec<(&Path, Result<Message, String>)> {
        self.samples.iter().map(|(place, path)| (path.as_path(), sample(place, path))).collect()
    }

    /// Every template file of every message, with where it comes from and what it goes before.
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
            // A theme lists what is its own.
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
                broken: entry.broken.as_deref(),
            })
        })
    }
}

/// The message in a sample's file; `place` is where it stands, `app_label/edx_ace/name`.
fn sample(place: &str, path: &Path) -> Result<Message, String> {
    let mut sample: Value = files::read(path)?.parse().map_err(|e| format!("is no JSON: {e}"))?;
    let fields = sample.as_object_mut().ok_or("is no message: a JSON object")?;
    let (app_label, name) = place.split_once("/edx_ace/").unwrap_or_default();
    for (key, value) in [("app_label", app_label.into()), ("name", name.into()), ("recipient", Value::Null)] {
        fields.entry(key).or_insert(value);
    }
    let message = Message::from_value(sample).map_err(|e| e.to_string())?;
    if message.app_label == app_label && message.name == name {
        Ok(message)
    } else {
        let (own, place) = (message.unique_name(), format!("{app_label}.{name}"));
        Err(format!("is of {own}, but is beside the templates of {place}"))
    }
}
