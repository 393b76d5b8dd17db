//! Resolves a list of user ids.

use ace_plugin::Recipient;
use ace_plugin::recipient_resolver::{Page, RecipientResolver, ResolveError, Resolved};
use serde::Deserialize;

struct __TYPE__;

ace_plugin::export_recipient_resolver!(__TYPE__);

#[derive(Deserialize)]
struct Arguments {
    user_ids: Vec<i64>,
}

impl RecipientResolver for __TYPE__ {
    fn resolve(_: &str, arguments: &str, cursor: Option<&str>, limit: u32) -> Result<Page, ResolveError> {
        let Ok(Arguments { user_ids }) = serde_json::from_str(arguments) else {
            let why = "the argument \"user_ids\" is missing: a list of numbers is expected";
            return Err(ResolveError::Fatal(why.to_owned()));
        };
        let from: usize = cursor.and_then(|cursor| cursor.parse().ok()).unwrap_or(0);
        let to = user_ids.len().min(from.saturating_add(limit as usize));
        let items = user_ids.get(from..to).unwrap_or_default().iter().map(|id| resolved(*id));
        Ok(Page { items: items.collect(), next: (to < user_ids.len()).then(|| to.to_string()) })
    }
}

fn resolved(id: i64) -> Resolved {
    let recipient =
        Recipient { user_id: Some(id.to_string()), lms_user_id: Some(id), email_address: None, contacts: Vec::new() };
    Resolved { key: None, recipient, language: None, user_context: None }
}

#[cfg(test)]
mod tests {
    ace_plugin::table_test!(resolver super::__TYPE__);
}
