//! Renders messages without sending them, for `ace render`, and checks the samples for `ace check`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::{Ace, Preflight};
use crate::channel::{Channel, UnknownChannel};
use crate::config::{self, Config};
use crate::mailer::{Email, Mailer};
use crate::message::{CallContext, Message, Rendered, RenderedFile};
use crate::plugin::ChannelInfo;
use crate::presentation::{Presentation, Subject};

/// The option with the theme of a message.
const THEME_OPTION: &str = "site";
/// The sender and recipient of a previewed mail without one. RFC 2606 reserves the domain.
const NOBODY: &str = "nobody@preview.invalid";

/// A message, rendered for one channel.
pub struct Preview {
    /// The channel's name.
    pub channel: String,
    /// Its type.
    pub channel_type: String,
    /// The rendered files, or the error.
    pub rendered: Result<Rendered, String>,
}

impl Ace {
    /// Renders a message for one channel or channel type, or else for every type that it has templates for. Evaluates no policies and
    /// delivers nothing.
    ///
    /// # Errors
    /// The type or channel does not exist.
    pub async fn preview(&self, message: &Arc<Message>, channel: Option<&str>) -> Result<Vec<Preview>, UnknownChannel> {
        let snapshot = self.snapshot();
        let mut previews = Vec::new();
        for chosen in self.channels_for(message, channel)? {
            previews.push(preview(&snapshot.presentation, message, chosen.as_ref()).await);
        }
        Ok(previews)
    }

    fn channels_for(&self, message: &Message, wanted: Option<&str>) -> Result<Vec<Arc<dyn Channel>>, UnknownChannel> {
        let snapshot = self.snapshot();
        if let Some(wanted) = wanted {
            let is_wanted = |channel: &&Arc<dyn Channel>| channel.name() == wanted || channel.channel_type() == wanted;
            // Gives the error for an unknown name.
            self.limit(&[wanted.to_owned()])?;
            return Ok(snapshot.channels.iter().find(is_wanted).cloned().into_iter().collect());
        }
        let written: Vec<&str> = {
            let of = |m: &crate::presentation::MessageTemplates<'_>| {
                m.app_label == message.app_label && m.name == message.name
            };
            snapshot.presentation.messages().filter(of).map(|m| m.channel_type).collect()
        };
        let first = |channel_type: &String| snapshot.channels.of_type(channel_type).first().cloned();
        let types = snapshot.channels.types();
        Ok(types.iter().filter(|t| written.contains(&t.as_str())).filter_map(first).collect())
    }
}

async fn preview(presentation: &Presentation, message: &Arc<Message>, channel: &dyn Channel) -> Preview {
    let call = CallContext::default();
    let links = async {
        let links = channel.action_links(message, &call).await?;
        Ok::<_, crate::message::Fault>((links, channel.tracker_image_sources(message, &call).await?))
    };
    let rendered = match links.await {
        Err(fault) => Err(fault.to_string()),
        Ok((action_links, tracker_image_sources)) => {
            let subject = Subject {
                channel: channel.name(),
                channel_type: channel.channel_type(),
                files: channel.template_files(),
                action_links: &action_links,
                tracker_image_sources: &tracker_image_sources,
            };
            presentation.render(message, &subject).map_err(|fault| fault.to_string())
        }
    };
    Preview { channel: channel.name().to_owned(), channel_type: channel.channel_type().to_owned(), rendered }
}

/// The same message with a theme and a language.
pub fn variant(message: &Message, theme: Option<&str>, language: Option<&str>) -> Message {
    let mut message = message.clone();
    if let Some(theme) = theme {
        message.options.insert(THEME_OPTION.to_owned(), theme.into());
    }
    if let Some(language) = language {
        message.language = Some(language.to_owned());
    }
    message
}

/// All combinations of themes and languages. First no theme, and the message's own language.
pub fn matrix(presentation: &Presentation) -> Vec<(Option<String>, Option<String>)> {
    let themes: Vec<Option<String>> =
        std::iter::once(None).chain(presentation.themes().map(|t| Some(t.to_owned()))).collect();
    let languages = presentation.languages().into_iter().map(|language| Some(language.to_owned()));
    let languages: Vec<Option<String>> = std::iter::once(None).chain(languages).collect();
    themes.iter().flat_map(|theme| languages.iter().map(move |language| (theme.clone(), language.clone()))).collect()
}

/// Required files of a channel that a message does not have.
pub struct MissingFiles {
    /// `app_label/edx_ace/name/channel type`.
    pub place: String,
    /// `app_label.name`.
    pub message: String,
    /// The type of the channel.
    pub channel_type: String,
    /// Its name.
    pub channel: String,
    /// The missing files.
    pub files: Vec<String>,
}

impl Preflight {
    /// The missing files of each message that has some of the files of a channel type.
    pub fn missing_files(&self) -> Vec<MissingFiles> {
        let mut found = Vec::new();
        for message in self.presentation.messages() {
            for (plugin, info) in self.registry.channels().filter(|(_, info)| info.channel_type == message.channel_type)
            {
                let required = info.template_files.iter().filter(|f| f.required).map(|f| f.name.clone());
                let files: Vec<String> = required.filter(|name| !message.has(name, &self.presentation)).collect();
                if !files.is_empty() {
                    found.push(MissingFiles {
                        place: format!("{}/edx_ace/{}/{}", message.app_label, message.name, message.channel_type),
                        message: format!("{}.{}", message.app_label, message.name),
                        channel_type: message.channel_type.to_owned(),
                        channel: plugin.name.clone(),
                        files,
                    });
                }
            }
        }
        found
    }

    /// The channel types that a message has no templates for, although a channel of the type needs some. The message is not sent over
    /// them. Each as `app_label.name` and the type.
    pub fn absent_types(&self) -> BTreeSet<(String, String)> {
        let needs = |info: &&ChannelInfo| info.template_files.iter().any(|file| file.required);
        let types: Vec<&str> = self
            .registry
            .channels()
            .map(|(_, info)| info)
            .filter(needs)
            .map(|info| info.channel_type.as_str())
            .collect();
        let mut written: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for message in self.presentation.messages() {
            let name = format!("{}.{}", message.app_label, message.name);
            written.entry(name).or_default().push(message.channel_type);
        }
        let absent = |(name, has): (String, Vec<&str>)| {
            let lacks = types.iter().filter(|kind| !has.contains(kind)).map(|kind| (name.clone(), (*kind).to_owned()));
            lacks.collect::<Vec<_>>()
        };
        written.into_iter().flat_map(absent).collect()
    }

    /// The problems of samples beside the templates, each with its file. Samples are rendered for every channel of a type that they
    /// have templates for, in every theme and language. Relative links in a template itself are reported by
    /// [`Presentation::relative_links`] instead.
    pub fn sample_problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let matrix = matrix(&self.presentation);
        for (file, message) in self.presentation.samples() {
            let location = file.display().to_string();
            match message {
                Err(why) => problems.push((location, why.to_string())),
                Ok(message) => {
                    let mut found: Vec<String> = Vec::new();
                    for (theme, language) in &matrix {
                        found.extend(self.faults(&variant(&message, theme.as_deref(), language.as_deref())));
                    }
                    found.sort();
                    found.dedup();
                    problems.extend(found.into_iter().map(|fault| (location.clone(), fault)));
                }
            }
        }
        problems
    }

    fn faults(&self, message: &Message) -> Vec<String> {
        let mut faults = Vec::new();
        for (plugin, info) in self.registry.channels() {
            let subject = Subject {
                channel: &plugin.name,
                channel_type: &info.channel_type,
                files: &info.template_files,
                action_links: &[],
                tracker_image_sources: &[],
            };
            // A message without templates of the type is not sent over it.
            match self.presentation.render(message, &subject) {
                Ok(rendered) => faults.extend(self.presentation.relative_links_of(&rendered, &subject)),
                Err(fault) => faults.extend(Some(fault.message).filter(|_| !fault.absent)),
            }
        }
        faults
    }
}

/// Writes a mail as `{name}.eml` into a folder: edx-ace's page, the message's headers and addresses. It does not contain what a channel
/// adds.
///
/// # Errors
/// The mail cannot be built or written.
pub async fn write_eml(
    config: &Config,
    message: &Message,
    files: &[RenderedFile],
    dir: &Path,
    name: &str,
) -> Result<String, String> {
    let text = |file: &str| files.iter().find(|f| f.name == file).map_or("", |f| f.text.as_str());
    let from =
        message.options.get("from_address").and_then(|from| from.as_str()).filter(|from| !from.trim().is_empty());
    let email = Email {
        sender: from.map(str::to_owned),
        recipients: vec![
            message.recipient.as_ref().and_then(|r| r.email_address.clone()).unwrap_or_else(|| NOBODY.to_owned()),
        ],
        cc: Vec::new(),
        bcc: Vec::new(),
        reply_to: Vec::new(),
        subject: text("subject.txt").split_whitespace().collect::<Vec<_>>().join(" "),
        text: text("body.txt").to_owned(),
        html: Some(page(text("head.html"), text("body.html"))),
        headers: message.headers.0.clone(),
        attachments: Vec::new(),
        relay: None,
        return_path: None,
        message: Some(message.uuid),
    };
    let relay = config::Relay { kind: config::RelayKind::File { dir: dir.to_owned() }, from: None, return_path: None };
    let settings = config::Mailer {
        default_relay: None,
        default_from: Some(config.fixed.mailer.default_from.clone().unwrap_or_else(|| NOBODY.to_owned())),
        relays: [("preview".to_owned(), relay)].into(),
        return_path_keys: Vec::new(),
        access: config.fixed.mailer.access,
    };
    let mailer = Mailer::new(&settings).map_err(|e| e.to_string())?;
    mailer.send(email, name, &mut None).await.map(|accepted| accepted.answer).map_err(|e| e.to_string())
}

/// edx-ace's HTML page with the two rendered files.
pub fn page(head: &str, body: &str) -> String {
    format!("<!DOCTYPE html>\n<html>\n  <head>\n    {head}\n  </head>\n  <body>\n    {body}\n  </body>\n</html>")
}
