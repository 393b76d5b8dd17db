//! One message, submitted for one channel type after the other under the same uuid.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{Server, configure, home, note, settled};
use crate::http_channels::provider::{Answer, Provider};
use crate::servers::Smtpd;
use crate::support::channel;

fn states(told: &Value) -> [Value; 2] {
    ["email", "slack"].map(|kind| channel(&json!({"report": told["report"]}), kind)["state"].clone())
}

#[tokio::test]
async fn each_channel_type_is_delivered_once_and_none_is_dropped() {
    let (smtp, provider) = (Smtpd::start(&[]), Provider::start(vec![Answer::new(200, "ok")]));
    let (home, url) = (home(""), provider.url());
    home.example("slack_webhook_rust");
    home.file("ca.pem", &provider.ca);
    home.file("webhook", format!("{url}/services/T0/B0/x"));
    home.file("templates/app/edx_ace/note/slack/body.txt", "Hi");
    configure(
        &home,
        &format!(
            "{}\n[http]\nca-file = 'ca.pem'\n[plugins.slack_webhook_rust]\ngrants = {{ http = ['{url}/services/'] }}\n\
         secrets = {{ webhook-url = {{ file = 'webhook' }} }}\n",
            smtp.relay()
        ),
    );
    let server = Server::start(&home);
    let contacts = json!({"slack": ["U012AB3CD"]});
    let message =
        note(1, json!({"recipient": {"lms_user_id": 7, "email_address": "a@example.com", "contacts": contacts}}));

    let (status, taken) = server.post("/v1/messages?limit_to=email&wait=30", message.clone()).await;
    assert_eq!((status, &taken["state"], &taken["extended"]), (StatusCode::OK, &json!("sent"), &json!(false)));
    assert_eq!(states(&taken), ["sent", "excluded"]);

    let (_, taken) = server.post("/v1/messages?limit_to=email", message.clone()).await;
    assert_eq!((&taken["repeated"], &taken["extended"]), (&json!(true), &json!(false)), "nothing new is asked for");

    let (status, taken) = server.post("/v1/messages?limit_to=slack&wait=30", message.clone()).await;
    assert_eq!(status, StatusCode::OK, "{taken}");
    assert_eq!((&taken["repeated"], &taken["extended"]), (&json!(true), &json!(true)));
    assert_eq!(states(&taken), ["sent", "sent"]);
    assert_eq!(provider.seen().len(), 1);
    smtp.mail();

    let (status, taken) = server.post("/v1/messages", message.clone()).await;
    assert_eq!((status, &taken["repeated"]), (StatusCode::ACCEPTED, &json!(true)), "no limit: all of it was sent");
    settled(&server, &taken["uuid"], "sent").await;
    assert_eq!((provider.seen().len(), smtp.mails().len()), (1, 1), "each once");
    let other = note(1, json!({"language": "fr"}));
    assert_eq!(server.post("/v1/messages?limit_to=slack", other).await.0, StatusCode::CONFLICT);
}
