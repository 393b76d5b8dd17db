//! A resolver that names as many learners as its arguments say, a few per page. While the bucket `audience` has an entry for a page's
//! number, that page fails as the value says: "fatal", "recoverable", "trap", "same" (it returns the same cursor again).

use ace_plugin::recipient_resolver::{Page, RecipientResolver, ResolveError, Resolved};
use ace_plugin::{Recipient, keyvalue};
use serde::Deserialize;

struct Audience;

ace_plugin::export_recipient_resolver!(Audience);

#[derive(Deserialize)]
struct Arguments {
    count: i64,
    page: i64,
}

impl RecipientResolver for Audience {
    fn resolve(_: &str, arguments: &str, cursor: Option<&str>, limit: u32) -> Result<Page, ResolveError> {
        let Arguments { count, page } =
            serde_json::from_str(arguments).map_err(|e| ResolveError::Fatal(format!("arguments: {e}")))?;
        let from: i64 = cursor.map_or(Ok(0), str::parse).map_err(|_| ResolveError::Fatal("the cursor".to_owned()))?;
        let told = keyvalue::get("audience", &(from / page).to_string()).map_err(|e| ResolveError::Fatal(e.into()))?;
        match told.as_deref() {
            None => {}
            Some(b"recoverable") => return Err(ResolveError::recoverable("the register is away")),
            Some(b"trap") => panic!("as it was told"),
            Some(b"same") => return Ok(Page { items: Vec::new(), next: cursor.map(str::to_owned) }),
            Some(_) => return Err(ResolveError::Fatal("there is no such register".to_owned())),
        }
        let to = count.min(from + page.min(limit.into()));
        let next = (to < count).then(|| to.to_string());
        Ok(Page { items: (from..to).map(learner).collect(), next })
    }
}

fn learner(id: i64) -> Resolved {
    let recipient = Recipient {
        user_id: Some(id.to_string()),
        lms_user_id: Some(id),
        email_address: Some(format!("u{id}@example.com")),
        contacts: Vec::new(),
    };
    Resolved { key: None, recipient, language: None, user_context: Some(format!("{{\"text\": \"Hi {id}\"}}")) }
}
