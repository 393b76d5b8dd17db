//! `limit`: how many of the matching messages are listed or changed.

use reqwest::StatusCode;
use serde_json::json;

use super::{Server, home, note};

#[tokio::test]
async fn a_limit_applies_to_lists_and_changes() {
    let home = home("");
    let server = Server::start(&home);
    for number in 1..=6 {
        let failed = server.send(&note(number, json!({"name": "no-templates"}))).await;
        assert_eq!(failed["state"], "failed", "{failed}");
    }
    let url = server.url.clone();
    let ask = |arguments: &[&str]| {
        let all = [&["messages", "--state", "failed"], arguments, &["--server", &url]].concat();
        home.ace(&all).run()
    };
    assert_eq!(ask(&["--limit", "0", "--retry"]).ok().stdout, "0 messages\n");
    assert_eq!(ask(&["--limit", "0", "--json"]).ok().stdout, "");
    assert_eq!(ask(&["--limit", "1", "--retry"]).ok().stdout, "1 message\n");
    assert_eq!(ask(&["--limit", "2", "--discard", "--json"]).ok().stdout, "{\"changed\":2}\n");
    // The retried message fails again.
    let dead = async |n: usize| {
        for _ in 0..600 {
            let listed = server.get("/v1/messages?state=failed").await.1["messages"].as_array().map(Vec::len);
            if listed == Some(n) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("{n} failed messages were to be listed");
    };
    dead(4).await;
    assert_eq!(server.get("/v1/messages?state=failed&limit=3").await.1["messages"].as_array().map(Vec::len), Some(3));
    assert_eq!(server.get("/v1/messages?limit=0&cursor=3").await.1, json!({"messages": [], "next": 3}));
    assert_eq!(server.post("/v1/dead-letters/discard?limit=1&state=failed", "").await.1["changed"], 1);
    assert_eq!(server.post("/v1/dead-letters/discard?limit=0", "").await.1["changed"], 0);
    dead(3).await;
    assert_eq!(server.post("/v1/dead-letters/retry?limit=-1", "").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(ask(&["--discard"]).ok().stdout, "3 messages\n", "without a limit all that are found");
    let one = uuid::Uuid::from_u128(1).to_string();
    home.ace(&["messages", &one, "--limit", "1", "--retry", "--server", &url])
        .run()
        .code(2)
        .says("cannot be used with");
}
