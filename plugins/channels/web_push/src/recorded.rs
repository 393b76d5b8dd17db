//! The requests beside those of another client for the same messages, encrypted with the same keys. See tests/fixtures/README.md.

use ace_plugin::testing::Table;
use serde_json::json;
use vendors::{Difference, EVERY};

#[path = "../../../../tests/fixtures/vendors/recorded.rs"]
mod vendors;

/// Where the plugin differs from the client on purpose.
const DIFFERENCES: [Difference; 4] = [
    // The client names no type of the encrypted body.
    Difference { case: EVERY, header: "content-type", theirs: None, ours: "application/octet-stream" },
    // If the application sets nothing, the client asks that the notification is not stored. The plugin stores it as long as FCM does.
    Difference { case: "bare", header: "ttl", theirs: Some("0"), ours: "2419200" },
    // The default of RFC 8030, section 5.3, which the plugin spells out.
    Difference { case: "bare", header: "urgency", theirs: None, ours: "normal" },
    // The client sends the topic that the application chose. The plugin hashes its key, which may be longer than a topic, or, as here,
    // have characters that a topic cannot have.
    Difference {
        case: "replacing",
        header: "topic",
        theirs: Some("thread-7"),
        ours: "UQ7EKfDlL_ohi35qZ5cYo5Jfxenbg7aA",
    },
];

#[test]
fn the_requests_are_those_of_another_client() {
    let cases = vendors::cases(crate::RECORDED, &DIFFERENCES, &json!({"status": 201}));
    let table = Table::of_cases("web_push", include_str!("../web_push.toml"), cases).exact_headers();
    table.channel::<crate::WebPush>(concat!(module_path!(), "::the_requests_are_those_of_another_client"));
}
