//! Push notifications through two providers at once.

use std::collections::BTreeSet;

use reqwest::StatusCode;
use serde_json::json;

use super::batches::{head, until};
use super::{LISTEN, Server};
use crate::http_channels::provider::Provider;
use crate::http_channels::{apns, push};
use crate::support::Home;

/// The devices of each provider.
const EACH: usize = 500;

/// A home with both channels and 64 workers.
fn home(apple: &Provider, google: &Provider) -> Home {
    let home = Home::empty();
    home.file("ca.pem", format!("{}{}", apple.ca, google.ca));
    let tables = apns::plugin(&home, apple) + &push::plugin(&home, google);
    // The time-out of the plugin for tests of silence is too short for a busy machine.
    let tables = tables.replace("timeout-seconds = 1", "timeout-seconds = 30");
    home.config(&format!(
        "{LISTEN}\n[routing]\nlisted = {{ push = ['push_notification', 'apns'] }}\n\n[delivery]\nconcurrency = 64\n\n\
         [http]\nca-file = 'ca.pem'\n\n{tables}"
    ));
    home.file("templates/app/edx_ace/note/push/title.txt", "A reply");
    home.file("templates/app/edx_ace/note/push/body.txt", "{{ text }}");
    home
}

/// The recipients of a batch: every other one has a device of Apple's.
fn recipients() -> String {
    let recipient = |n: usize| {
        let kind = if n.is_multiple_of(2) { "apns-token" } else { "push-token" };
        let contacts = json!({ kind: format!("{n:04x}") });
        json!({"key": n.to_string(), "recipient": {"lms_user_id": n, "email_address": null, "contacts": contacts}})
    };
    (0..2 * EACH).map(|n| format!("{}\n", recipient(n))).collect()
}

#[tokio::test]
async fn a_thousand_pushes_over_64_workers_fetch_one_token_of_each_provider() {
    let apple = Provider::start_http2(vec![apns::accepted(1); EACH]);
    let google = Provider::start([push::token(1)].into_iter().chain(vec![push::accepted(1); EACH]));
    let server = Server::start(&home(&apple, &google));
    let (status, batch) = server.post("/v1/batches", head(1) + &recipients()).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{batch}");
    let batch = until(&server, 1, "done").await;
    assert_eq!(batch["by_state"], json!({"sent": 2 * EACH}), "{batch}");

    let (at_apple, at_google) = (apple.seen(), google.seen());
    assert_eq!((at_apple.len(), at_google.len()), (EACH, 1 + EACH), "each once, and one request for a token");
    assert_eq!(at_google[0].line, "POST /token HTTP/1.1");
    let tokens: BTreeSet<_> = at_apple.iter().map(apns::token).collect();
    assert_eq!((tokens.len(), apple.connections()), (1, 1), "one token and one connection");
    let tokens: BTreeSet<_> = at_google[1..].iter().map(|seen| seen.header("authorization")).collect();
    assert_eq!(tokens, BTreeSet::from([Some("Bearer ya29.1")]));
    let devices: BTreeSet<_> = at_apple.iter().map(|seen| &seen.line).collect();
    assert_eq!(devices.len(), EACH);
}
