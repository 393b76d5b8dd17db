//! Denies messages to suppressed addresses. The entries are those of `ace_address::suppression`, which the host writes.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use ace_address::suppression::{BUCKET, EMAIL, Reason, Suppression, key};
use ace_plugin::policy::{Policy, PolicyResult};
use ace_plugin::{Message, Recipient, Settings, keyvalue};

/// The most addresses of one recipient.
const ADDRESSES_MAX: usize = 100;

/// The channel types of kinds with another name.
const CHANNEL_TYPES: [(&str, &str); 2] = [("phone", "sms"), ("push-token", "push")];

/// The channel type of each kind of address.
type ChannelTypes = BTreeMap<String, String>;
/// Kinds and addresses, by channel type.
type Addresses<'a> = BTreeMap<String, Vec<(&'a str, &'a str)>>;

static CONFIGURED: LazyLock<Result<ChannelTypes, String>> = LazyLock::new(|| {
    let configured: ChannelTypes = Settings.get("channel-types").map_err(|e| e.to_string())?.unwrap_or_default();
    let usual = CHANNEL_TYPES.map(|(kind, channel_type)| (kind.to_owned(), channel_type.to_owned()));
    Ok(usual.into_iter().chain(configured).collect())
});

struct SuppressionPolicy;

ace_plugin::export_policy!(SuppressionPolicy);

impl Policy for SuppressionPolicy {
    fn enabled() -> Result<(), String> {
        CONFIGURED.as_ref().map(drop).map_err(Clone::clone)
    }

    fn check(message: &Message) -> Result<PolicyResult, String> {
        let Some(recipient) = message.recipient() else { return Ok(PolicyResult::pass()) };
        let is_transactional = message.is_transactional();
        let mut verdict = PolicyResult::pass();
        for (channel_type, addresses) in addresses(&recipient, CONFIGURED.as_ref().map_err(Clone::clone)?)? {
            let mut entries = Vec::new();
            for (kind, address) in addresses {
                entries.push(suppression_of(kind, address)?.filter(|entry| entry.scope.covers(is_transactional)));
            }
            if let Some(entry) = decisive(&entries) {
                verdict = verdict.deny(channel_type, reason(entry));
            }
        }
        Ok(verdict)
    }
}

/// The addresses of a recipient with their kinds, by channel type.
fn addresses<'a>(recipient: &'a Recipient, channel_types: &ChannelTypes) -> Result<Addresses<'a>, String> {
    let email = recipient.email_address.as_deref().map(|address| (EMAIL, address));
    let contacts = recipient.contacts.iter().map(|(kind, address)| (kind.as_str(), address.as_str()));
    let mut by_type = Addresses::new();
    let mut count = 0;
    for (kind, address) in email.into_iter().chain(contacts).filter(|(_, address)| !address.trim().is_empty()) {
        count += 1;
        if count > ADDRESSES_MAX {
            return Err(format!("the recipient has more than {ADDRESSES_MAX} addresses"));
        }
        let channel_type = channel_types.get(kind).cloned().unwrap_or_else(|| kind.replace('-', "_"));
        by_type.entry(channel_type).or_default().push((kind, address));
    }
    Ok(by_type)
}

/// What is stored about an address. One that cannot be a key cannot be suppressed.
fn suppression_of(kind: &str, address: &str) -> Result<Option<Suppression>, String> {
    let Ok(key) = key(kind, address) else { return Ok(None) };
    Ok(keyvalue::get(BUCKET, &key)?.map(|value| Suppression::read(&value)))
}

/// The entry that denies a channel type: the person's decision about any address, or else a hard bounce of the last one.
fn decisive(entries: &[Option<Suppression>]) -> Option<&Suppression> {
    let decided = entries.iter().flatten().find(|entry| entry.reason != Reason::HardBounce);
    decided.or_else(|| entries.iter().map(Option::as_ref).collect::<Option<Vec<_>>>()?.pop())
}

fn reason(entry: &Suppression) -> String {
    let date = entry.time.get(..10).unwrap_or(&entry.time);
    format!("suppressed since {date}: {}, reported by {}", entry.reason.as_str(), entry.source)
}

#[cfg(test)]
mod tests {
    ace_plugin::table_test!(policy super::SuppressionPolicy);
}
