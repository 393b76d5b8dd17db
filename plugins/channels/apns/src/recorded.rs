//! The requests beside those of another client for the same messages. See tests/fixtures/README.md.

use ace_plugin::testing::Table;
use serde_json::json;
use vendors::{Difference, EVERY};

#[path = "../../../../tests/fixtures/vendors/recorded.rs"]
mod vendors;

/// Where the plugin differs from the client on purpose.
const DIFFERENCES: [Difference; 5] = [
    // The client names no type of its JSON.
    Difference { case: EVERY, header: "content-type", theirs: None, ours: "application/json" },
    // If the application sets nothing, the client leaves the following to APNs: to store the notification for some time, to deliver it
    // at once, and to guess its type, which Apple requires to be named. The plugin has defaults of its own.
    Difference { case: "bare", header: "apns-expiration", theirs: None, ours: "1774785600" },
    Difference { case: "bare", header: "apns-priority", theirs: None, ours: "5" },
    Difference { case: "bare", header: "apns-push-type", theirs: None, ours: "alert" },
    // A notification that may not be stored: Apple's documentation has 0 for it. The client has no value for that, and sends the current
    // time.
    Difference { case: "background", header: "apns-expiration", theirs: Some("1772366400"), ours: "0" },
];

#[test]
fn the_requests_are_those_of_another_client() {
    let cases = vendors::cases(crate::RECORDED, &DIFFERENCES, &json!({"status": 200}));
    let table = Table::of_cases("apns", include_str!("../apns.toml"), cases).exact_headers();
    table.channel::<crate::Apns>(concat!(module_path!(), "::the_requests_are_those_of_another_client"));
}
