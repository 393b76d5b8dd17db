//! The exported functions with the host's own types.
//!
//! What a guest returns is checked here: texts are truncated and sanitized, times and types validated. An invalid answer is a
//! fault.

use std::pin::pin;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use wasmtime::component::Resource;

use super::bindings::{channel, policy, recipient_resolver};
use super::instance::{CallResult, Purpose, Runtime};
use super::state::Handover;
use crate::message::{
    ActionLink, Attempt, Delay, DeliveryError, Denial, EVERY_TYPE, Earlier, Fault, FaultKind, Message, Page,
    PolicyResult, Receipt, Recipient, ResolveError, Resolved, TemplateFile, UserId, check_contacts, text,
};
use crate::plugin::{ChannelInfo, Namespace};

/// Entries of a list that a guest returns.
const LIST_MAX: usize = 256;
/// Bytes of a receipt's detail.
const DETAIL_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a template file's name from a guest, and of names in errors.
const NAME_BYTES_MAX: usize = 100;
/// Bytes of a link, or of its text.
const LINK_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a text from a resolver: a key, an address, a cursor.
const RESOLVED_BYTES_MAX: usize = 4 * 1024;

/// Calls one function of one exported interface, bounded: with the handle of the message or request of its purpose, and with further
/// arguments.
macro_rules! call {
    ($self:ident, $purpose:expr, $interface:ident.$function:ident, handle $(, $argument:expr)*) => {{
        let (mut lease, number) = match $self.start_call($purpose).await {
            Ok(started) => started,
            Err(fault) => return $self.counted(fault.into()),
        };
        let (instance, started) = (&mut *lease.instance, lease.started);
        let guest = instance.$interface.as_ref().expect("called only if it is exported");
        let called = {
            let call = pin!(guest.$function(&mut instance.store, Resource::new_own(number) $(, $argument)*));
            $self.bounded(started, call).await
        };
        lease.finish(called)
    }};
    ($self:ident, $purpose:expr, $interface:ident.$function:ident $(, $argument:expr)*) => {{
        let (mut lease, _) = match $self.start_call($purpose).await {
            Ok(started) => started,
            Err(fault) => return $self.counted(fault.into()),
        };
        let (instance, started) = (&mut *lease.instance, lease.started);
        let guest = instance.$interface.as_ref().expect("called only if it is exported");
        let called = {
            let call = pin!(guest.$function(&mut instance.store $(, $argument)*));
            $self.bounded(started, call).await
        };
        lease.finish(called)
    }};
    ($self:ident, $interface:ident.$function:ident) => {
        call!($self, Purpose { dry: true, ..Purpose::default() }, $interface.$function)
    };
}

mod feedback;

/// The error of a plugin's `enabled`: it cannot work with its settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it says it cannot work: {0}")]
pub struct NotEnabled(String);

impl Runtime {
    /// Whether the plugin's settings are valid. Called once for each interface when the plugin is loaded.
    pub async fn enabled(&self, namespace: Namespace) -> CallResult<Result<(), NotEnabled>> {
        let called: CallResult<Result<(), String>> = match namespace {
            Namespace::Policy => call!(self, policy.call_enabled),
            Namespace::Channel => call!(self, channel.call_enabled),
            Namespace::RecipientResolver => call!(self, resolver.call_enabled),
            Namespace::Feedback => call!(self, feedback.call_enabled),
        };
        called.and_then(|answer| Ok(answer.map_err(|why| NotEnabled(self.settings.clean(&why)))))
    }

    /// A policy's verdict.
    pub async fn check(&self, message: &Arc<Message>, dry: bool) -> CallResult<PolicyResult> {
        let purpose = Purpose { message: Some(message), dry, ..Purpose::default() };
        let called: CallResult<Result<policy::PolicyResult, String>> = call!(self, purpose, policy.call_check, handle);
        self.counted(called.and_then(|answer| match answer {
            Ok(result) => self.verdict(result),
            Err(why) => Err(self.fault(FaultKind::Error, why)),
        }))
    }

    fn verdict(&self, result: policy::PolicyResult) -> Result<PolicyResult, Fault> {
        // The common case.
        if result.deny.is_empty() && result.delay.is_empty() {
            return Ok(PolicyResult::default());
        }
        self.at_most(LIST_MAX, result.deny.len().max(result.delay.len()), "denials or delays")?;
        let deny = result
            .deny
            .into_iter()
            .map(|d| Ok(Denial { channel_type: self.channel_type(d.channel_type)?, reason: self.reason(d.reason) }));
        let deny = deny.collect::<Result<_, Fault>>()?;
        let delay = result.delay.into_iter().map(|d| {
            Ok(Delay {
                channel_type: self.channel_type(d.channel_type)?,
                not_before: self.time(d.not_before)?,
                reason: self.reason(d.reason),
            })
        });
        Ok(PolicyResult { deny, delay: delay.collect::<Result<_, Fault>>()? })
    }

    /// A channel's type and template files.
    pub async fn describe(&self) -> CallResult<ChannelInfo> {
        let called: CallResult<channel::ChannelInfo> = call!(self, channel.call_describe);
        called.and_then(|info| self.channel_info(info))
    }

    fn channel_info(&self, info: channel::ChannelInfo) -> Result<ChannelInfo, Fault> {
        let channel_type = self.channel_type(info.channel_type)?;
        if channel_type == EVERY_TYPE {
            return Err(self.fault(FaultKind::Answer, "a channel has one type, not \"*\""));
        }
        self.at_most(LIST_MAX, info.template_files.len(), "template files")?;
        for file in &info.template_files {
            let is_valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            let fits = (1..=NAME_BYTES_MAX).contains(&file.name.len());
            if !fits || file.name.starts_with('.') || !file.name.chars().all(is_valid) {
                let name = text::one_line(&file.name, NAME_BYTES_MAX);
                let message = format!(
                    "{name:?} cannot be a template file's name: letters, digits, \".\", \"_\", \"-\", at most {NAME_BYTES_MAX}"
                );
                return Err(self.fault(FaultKind::Answer, message));
            }
        }
        let files = info.template_files.into_iter().map(|f| TemplateFile { name: f.name, required: f.required });
        Ok(ChannelInfo { channel_type, template_files: files.collect() })
    }

    /// Whether a channel claims a message for itself.
    pub async fn overrides_delivery(&self, message: &Arc<Message>) -> CallResult<bool> {
        self.counted(call!(self, dry(message), channel.call_overrides_delivery_for_message, handle))
    }

    /// Links for the templates.
    pub async fn action_links(&self, message: &Arc<Message>) -> CallResult<Vec<ActionLink>> {
        let called: CallResult<Vec<channel::ActionLink>> = call!(self, dry(message), channel.call_action_links, handle);
        self.counted(called.and_then(|links| {
            self.at_most(LIST_MAX, links.len(), "action links")?;
            let longest = links.iter().map(|link| link.url.len().max(link.text.len())).max().unwrap_or(0);
            self.at_most(LINK_BYTES_MAX, longest, "bytes in one action link")?;
            let links = links.into_iter();
            Ok(links.map(|l| ActionLink { url: l.url, text: l.text, unsubscribe: l.unsubscribe }).collect())
        }))
    }

    /// URLs of tracking images for the templates.
    pub async fn tracker_image_sources(&self, message: &Arc<Message>) -> CallResult<Vec<String>> {
        let called: CallResult<Vec<String>> = call!(self, dry(message), channel.call_tracker_image_sources, handle);
        self.counted(called.and_then(|sources| {
            self.at_most(LIST_MAX, sources.len(), "tracker images")?;
            let longest = sources.iter().map(String::len).max().unwrap_or(0);
            self.at_most(LINK_BYTES_MAX, longest, "bytes in one tracker image's address").map(|()| sources)
        }))
    }

    /// Makes one delivery attempt. A fault during or after a handover is reported as such, not as a plain fault.
    pub async fn deliver(
        &self,
        message: &Arc<Message>,
        rendered: &[(String, String)],
        attempt: &Attempt,
    ) -> CallResult<Result<Receipt, DeliveryError>> {
        self.deliver_remaining(message, rendered, attempt, Earlier::default()).await
    }

    /// The same after earlier attempts: the mails that they sent are not sent again.
    pub async fn deliver_remaining(
        &self,
        message: &Arc<Message>,
        rendered: &[(String, String)],
        attempt: &Attempt,
        earlier: Earlier,
    ) -> CallResult<Result<Receipt, DeliveryError>> {
        let key = attempt.idempotency_key.as_str();
        let purpose = Purpose { message: Some(message), delivery_key: Some(key), earlier, ..Purpose::default() };
        let attempt = channel::Attempt { number: attempt.number, idempotency_key: key.to_owned() };
        let called: CallResult<Result<channel::Receipt, channel::DeliveryError>> =
            call!(self, purpose, channel.call_deliver, handle, rendered, &attempt);
        let CallResult { answer, mut handover, denied } =
            self.counted(called.and_then(|answer| self.delivered(answer)));
        let answer = match answer {
            Ok(answer) => Ok(answer),
            Err(fault) => match handover.as_deref() {
                Some(Handover { accepted: Some(answer), .. }) => {
                    Ok(Err(DeliveryError::SentWithFault { answer: answer.clone(), fault }))
                }
                Some(Handover { pending: Some(pending), .. }) => {
                    Ok(Err(DeliveryError::MaybeSent { reason: format!("{pending}; then {fault}") }))
                }
                _ => Err(fault),
            },
        };
        if let Some(handover) = &mut handover {
            let is_handed_over = match &answer {
                Ok(Ok(_)) => handover.accepted.is_some(),
                Ok(Err(DeliveryError::SentWithFault { .. } | DeliveryError::MaybeSent { .. })) => true,
                Ok(Err(_)) => handover.pending.is_some(),
                Err(_) => false,
            };
            if is_handed_over {
                handover.unreached = None;
            }
        }
        CallResult { answer, handover, denied }
    }

    fn delivered(
        &self,
        answer: Result<channel::Receipt, channel::DeliveryError>,
    ) -> Result<Result<Receipt, DeliveryError>, Fault> {
        match answer {
            Ok(receipt) => self.receipt(receipt).map(Ok),
            Err(channel::DeliveryError::Fatal(why)) => Ok(Err(DeliveryError::Fatal(self.settings.clean(&why)))),
            Err(channel::DeliveryError::Skipped(why)) => Ok(Err(DeliveryError::Skipped(self.settings.clean(&why)))),
            Err(channel::DeliveryError::Recoverable(error)) => Ok(Err(DeliveryError::Recoverable {
                message: self.settings.clean(&error.message),
                next_attempt_time: error.next_attempt_time.map(|at| self.time(at)).transpose()?,
            })),
        }
    }

    /// One page of a resolver. `message_type` and `arguments` are JSON texts.
    pub async fn resolve(
        &self,
        message_type: &String,
        arguments: &String,
        cursor: Option<&str>,
        limit: u32,
    ) -> CallResult<Result<Page, ResolveError>> {
        let purpose = Purpose::default();
        let called: CallResult<Result<recipient_resolver::Page, recipient_resolver::ResolveError>> =
            call!(self, purpose, resolver.call_resolve, message_type, arguments, cursor, limit);
        self.counted(called.and_then(|answer| match answer {
            Ok(page) => self.page(page, limit).map(Ok),
            Err(recipient_resolver::ResolveError::Fatal(why)) => {
                Ok(Err(ResolveError::Fatal(self.settings.clean(&why))))
            }
            Err(recipient_resolver::ResolveError::Recoverable(error)) => Ok(Err(ResolveError::Recoverable {
                message: self.settings.clean(&error.message),
                next_attempt_time: error.next_attempt_time.map(|at| self.time(at)).transpose()?,
            })),
        }))
    }

    fn page(&self, page: recipient_resolver::Page, limit: u32) -> Result<Page, Fault> {
        self.at_most(limit as usize, page.items.len(), "recipients")?;
        let fits = |text: &Option<String>, what: &str| {
            self.at_most(RESOLVED_BYTES_MAX, text.as_ref().map_or(0, String::len), what)
        };
        fits(&page.next, "bytes in the cursor of the next page")?;
        let items = page.items.into_iter().map(|item| {
            let user_context = item.user_context.map(|json| {
                // The error may quote the guest's text.
                let describe =
                    |e| format!("the user context is not a JSON object: {}", text::display(e, text::TEXT_BYTES_MAX));
                serde_json::from_str(&json).map_err(|e: serde_json::Error| self.fault(FaultKind::Answer, describe(e)))
            });
            let recipient = item.recipient;
            fits(&item.key, "bytes in a recipient's key")?;
            fits(&item.language, "bytes in a recipient's language")?;
            fits(&recipient.user_id, "bytes in a recipient's user id")?;
            fits(&recipient.email_address, "bytes in a recipient's e-mail address")?;
            check_contacts(&recipient.contacts)
                .map_err(|why| self.fault(FaultKind::Answer, format!("a recipient's contacts {why}")))?;
            let lms_user_id = match (recipient.lms_user_id, recipient.user_id) {
                (Some(number), _) => UserId::Number(number),
                (None, Some(text)) => UserId::Text(text),
                (None, None) => UserId::None,
            };
            let recipient =
                Recipient { lms_user_id, email_address: recipient.email_address, contacts: recipient.contacts };
            Ok(Resolved { key: item.key, recipient, language: item.language, user_context: user_context.transpose()? })
        });
        Ok(Page { items: items.collect::<Result<_, Fault>>()?, next: page.next })
    }

    fn receipt(&self, receipt: channel::Receipt) -> Result<Receipt, Fault> {
        let detail = receipt.detail.map(|json| self.detail(&json, "receipt")).transpose()?;
        Ok(Receipt { provider_id: self.reason(receipt.provider_id), detail })
    }

    /// Further details of a receipt or an event, as JSON without secrets and hidden characters.
    fn detail(&self, json: &str, of: &str) -> Result<Value, Fault> {
        self.at_most(DETAIL_BYTES_MAX, json.len(), &format!("bytes of {of} detail"))?;
        let json = self.settings.redact(json);
        let mut detail = serde_json::from_str(&json)
            .map_err(|invalid| self.fault(FaultKind::Answer, format!("the {of}'s detail is not JSON: {invalid}")))?;
        clean_texts(&mut detail);
        Ok(detail)
    }

    fn at_most(&self, max: usize, count: usize, what: &str) -> Result<(), Fault> {
        if count <= max {
            return Ok(());
        }
        Err(self.fault(FaultKind::Answer, format!("it returned {count} {what}, the limit is {max}")))
    }

    fn reason(&self, reason: Option<String>) -> Option<String> {
        reason.map(|text| self.settings.clean(&text))
    }

    fn channel_type(&self, name: String) -> Result<String, Fault> {
        let is_valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        if name == EVERY_TYPE || (!name.is_empty() && name.len() <= 64 && name.chars().all(is_valid)) {
            return Ok(name);
        }
        let name = text::one_line(&name, NAME_BYTES_MAX);
        let message = format!("{name:?} cannot be a channel type: lower-case letters, digits, \"_\", \"-\", or \"*\"");
        Err(self.fault(FaultKind::Answer, message))
    }

    fn time(&self, ms: u64) -> Result<Timestamp, Fault> {
        let at = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        at.ok_or_else(|| self.fault(FaultKind::Answer, format!("{ms} milliseconds is too large for a time")))
    }
}

/// Sanitizes every text of a receipt's detail, whose length was checked.
fn clean_texts(value: &mut Value) {
    let is_clean = |text: &String| text::is_plain(text, DETAIL_BYTES_MAX);
    let clean = |text: &str| text::lines(text, DETAIL_BYTES_MAX);
    match value {
        Value::String(text) if !is_clean(text) => *text = clean(text),
        Value::String(_) => {}
        Value::Array(items) => items.iter_mut().for_each(clean_texts),
        Value::Object(fields) => {
            if !fields.keys().all(is_clean) {
                *fields = std::mem::take(fields).into_iter().map(|(key, value)| (clean(&key), value)).collect();
            }
            fields.values_mut().for_each(clean_texts);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Calls before the delivery are dry.
fn dry(message: &Arc<Message>) -> Purpose<'_> {
    Purpose { message: Some(message), dry: true, ..Purpose::default() }
}
