//! Suppressed addresses: over HTTP, by the command line, and what becomes of messages to them.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Server, configure, home, note};
use crate::support::{Done, Home, assert_text};

const POLICY: &str = "[plugins.suppression]\ngrants = { keyvalue = ['suppressions:read'] }\n";

fn suppressing() -> (Home, Server) {
    let home = home("");
    home.plugin("suppression");
    configure(&home, POLICY);
    let server = Server::start(&home);
    (home, server)
}

async fn put(server: &Server, address: &str, body: Value) -> (StatusCode, Value) {
    server.ask(server.request(Method::PUT, &format!("/v1/suppressions/{address}")).body(body.to_string())).await
}

#[tokio::test]
async fn a_suppressed_address_gets_no_message_and_the_timeline_says_why() {
    let (_home, server) = suppressing();
    assert_eq!(server.send(&note(1, json!({}))).await["state"], "sent");
    let (status, entry) =
        put(&server, "Zoe@Learner.example", json!({"reason": "unsubscribe", "detail": "by phone"})).await;
    assert_eq!(status, StatusCode::OK, "{entry}");
    let time = entry["time"].as_str().expect("a time").to_owned();
    let expected = json!({
        "kind": "email", "address": "zoe@learner.example", "reason": "unsubscribe", "scope": "bulk", "source": "api",
        "time": time, "detail": "by phone",
    });
    assert_eq!(entry, expected);
    assert_eq!(server.get("/v1/suppressions/zoe@learner.example").await, (StatusCode::OK, expected));

    let denied = server.send(&note(2, json!({}))).await;
    assert_eq!(denied["state"], "not_sent", "{denied}");
    let reason = &denied["report"]["channels"][0]["reasons"][0];
    assert_eq!(reason["policy"], "suppression");
    assert_eq!(reason["reason"], format!("suppressed since {}: unsubscribe, reported by api", &time[..10]));
    let reset = json!({"options": {"transactional": true}});
    assert_eq!(server.send(&note(3, reset.clone())).await["state"], "sent");

    // Who opted out stays on the list when the messages are erased.
    server.post("/v1/erase?email=zoe@learner.example", "").await;
    assert_eq!(server.send(&note(4, json!({}))).await["state"], "not_sent");

    assert_eq!(put(&server, "zoe@learner.example", json!({})).await.1["scope"], "all");
    assert_eq!(server.send(&note(5, reset)).await["state"], "not_sent");
    let delete = || server.request(Method::DELETE, "/v1/suppressions/ZOE@learner.example");
    assert_eq!(server.ask(delete()).await.0, StatusCode::NO_CONTENT);
    assert_eq!(server.ask(delete()).await.0, StatusCode::NO_CONTENT, "as for a key that is not there");
    assert_eq!(server.get("/v1/suppressions/zoe@learner.example").await.0, StatusCode::NOT_FOUND);
    assert_eq!(server.send(&note(6, json!({}))).await["state"], "sent");
}

#[tokio::test]
async fn many_addresses_are_imported_and_listed_in_pages() {
    let (_home, server) = suppressing();
    let lines: String =
        (0..2_500).map(|n| format!("{{\"address\": \"u{n:04}@b.example\", \"reason\": \"complaint\"}}\n")).collect();
    assert_eq!(server.post("/v1/suppressions", lines).await.1, json!({"applied": 2500}));
    let (mut found, mut next, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let (_, page) = server.get(&format!("/v1/suppressions?limit=999{next}")).await;
        found.extend(page["suppressions"].as_array().expect("a page").iter().map(|one| one["address"].to_string()));
        pages += 1;
        match page["next"].as_str() {
            Some(cursor) => next = format!("&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!((found.len(), pages), (2_500, 3));
    found.dedup();
    assert_eq!(found.len(), 2_500);
    assert_eq!(server.get("/v1/suppressions").await.1["suppressions"].as_array().map(Vec::len), Some(100));
    assert_eq!(server.get("/v1/suppressions?limit=5000").await.1["suppressions"].as_array().map(Vec::len), Some(1000));
    assert_eq!(server.get("/v1/suppressions?after=x").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_report_about_an_address_never_narrows_an_earlier_one() {
    let (_home, server) = suppressing();
    let lines = [
        json!({"address": "a@b.example", "reason": "hard-bounce", "source": "ses", "time": "2026-01-02T03:04:05+01:00"}),
        json!({"address": "A@B.example", "reason": "unsubscribe"}),
        json!({"kind": "push-token", "address": "x:Y", "scope": "bulk"}),
    ];
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    assert_eq!(server.post("/v1/suppressions", lines).await.1, json!({"applied": 3}));
    let (_, entry) = server.get("/v1/suppressions/a@b.example").await;
    assert_eq!(
        (&entry["reason"], &entry["source"], &entry["time"]),
        (&json!("hard-bounce"), &json!("ses"), &json!("2026-01-02T02:04:05Z"))
    );
    let (_, token) = server.get("/v1/suppressions/push-token:x:Y").await;
    assert_eq!(
        (&token["reason"], &token["scope"], &token["source"]),
        (&json!("manual"), &json!("bulk"), &json!("import"))
    );
}

#[tokio::test]
async fn what_is_not_an_address_or_entry_is_refused() {
    let (_home, server) = suppressing();
    for (address, body, expected) in [
        ("7", json!({}), "the kind of \"7\" is not clear"),
        ("email:%20", json!({}), "is not an address"),
        ("Push:x", json!({}), "is not a kind of address"),
        ("a@b.example", json!({"reason": "hard_bounce"}), "unknown variant `hard_bounce`"),
        ("a@b.example", json!({"reasn": "manual"}), "unknown field `reasn`"),
        ("a@b.example", json!({"detail": "two\nlines"}), "detail: must be one line of at most 1000 bytes"),
        ("a@b.example", json!({"detail": "x".repeat(1001)}), "detail: must be one line"),
    ] {
        let (status, problem) = put(&server, address, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{address}: {problem}");
        assert_text(&problem["detail"], expected);
    }
    for (line, expected) in [
        ("nonsense", "line 2: "),
        ("{\"address\": \"7\"}", "line 2: address: the kind of"),
        ("{\"address\": \"a@b.example\", \"time\": \"yesterday\"}", "line 2: time: "),
        ("{\"address\": \"a@b.example\", \"source\": \"a\\u0007b\"}", "line 2: source: "),
    ] {
        let (status, problem) =
            server.post("/v1/suppressions", format!("{{\"address\": \"c@b.example\"}}\n{line}\n")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{line}: {problem}");
        assert_text(&problem["detail"], expected);
        assert_text(&problem["detail"], "1 lines before it were applied");
    }
    assert_eq!(server.get("/v1/suppressions").await.1["suppressions"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn the_command_line_reads_and_writes_the_list() {
    let (home, server) = suppressing();
    let ace = |arguments: &[&str]| -> Done {
        home.ace(&[&["suppressions", "--server", &server.url], arguments].concat()).run()
    };
    home.file(
        "old.csv",
        "address,reason,detail\nzac@learner.example,complaint,\"said \"\"no\"\", twice\"\n+49 30 1,,\n",
    );
    assert_eq!(ace(&["import", "old.csv"]).ok().stdout, "2 lines\n");
    ace(&["add", "zoe@learner.example", "--reason", "hard-bounce"]).ok();
    let get = ace(&["get", "ZOE@learner.example"]).ok().stdout;
    assert!(get.contains("hard-bounce") && get.contains("all"), "{get}");
    ace(&["get", "nobody@learner.example"]).code(2).says("404");
    let listed = ace(&["list"]).ok().stdout;
    for address in ["zac@learner.example", "zoe@learner.example", "+49301"] {
        assert!(listed.contains(address), "{listed}");
    }
    assert_eq!(ace(&["list", "--limit", "2", "--json"]).ok().stdout.lines().count(), 2);

    let (csv, ndjson) = (ace(&["export", "--csv"]).ok().stdout, ace(&["export"]).ok().stdout);
    assert!(
        csv.starts_with(
            "kind,address,reason,scope,source,time,detail\nemail,zac@learner.example,complaint,bulk,import,"
        ),
        "{csv}"
    );
    ace(&["remove", "zac@learner.example"]).ok();
    ace(&["remove", "phone:+49301"]).ok();
    assert_eq!(ace(&["export"]).ok().stdout.lines().count(), 1);
    // What was exported can be imported.
    for (file, content) in [("all.csv", &csv), ("all.ndjson", &ndjson)] {
        home.file(file, content);
        ace(&["remove", "zac@learner.example"]).ok();
        assert_eq!(ace(&["import", file]).ok().stdout, "3 lines\n");
        assert_eq!(
            (ace(&["export", "--csv"]).ok().stdout, ace(&["export"]).ok().stdout),
            (csv.clone(), ndjson.clone())
        );
    }
    home.file("bad.csv", "address\na@b.example\nnobody\n");
    ace(&["import", "bad.csv"]).code(2).says("line 3: address: the kind of \"nobody\" is not clear");
    ace(&["import", "bad.txt"])
        .code(2)
        .says("error: bad.txt: the file must have the extension .csv, .ndjson or .jsonl");
    ace(&["import", "none.csv"]).code(2).says("error: none.csv: No such file");
}
