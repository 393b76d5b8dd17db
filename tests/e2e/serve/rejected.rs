//! Files and settings that a running server rejects: the previous ones stay active, and operators see that a restart would fail.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::webhooks::Listener;
use super::{Server, configure, home, note};
use crate::support::{Home, assert_text};

/// Puts a file into the plugin folder atomically, with an old modification time, so that it counts as complete.
pub(super) fn install(home: &Home, plugin: &str, content: &[u8]) {
    let written = home.file("written", content);
    let manifest = home.path(&format!("plugins/{plugin}.toml"));
    for file in [&written, &manifest].into_iter().filter(|file| file.exists()) {
        let file = std::fs::File::options().append(true).open(file).expect("there");
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("it is ours");
    }
    std::fs::rename(written, home.path(&format!("plugins/{plugin}.wasm"))).expect("renamed");
}

async fn degraded(server: &Server) -> Vec<Value> {
    let (status, ready) = server.get("/readyz").await;
    assert_eq!((status, &ready["ready"]), (StatusCode::OK, &json!(true)), "messages are accepted: {ready}");
    ready["degraded"].as_array().expect("a list").clone()
}

async fn reload(server: &Server) {
    let (status, told) = server.post("/v1/reload", "").await;
    assert_eq!(status, StatusCode::OK, "{told}");
}

const STUB: &str = "[plugins.stub_policy]\nconfig = { deny = ['push'] }\n";

#[tokio::test]
async fn a_rejected_revision_is_shown_everywhere() {
    let home = home("");
    home.plugin("stub_policy");
    configure(&home, STUB);
    let server = Server::start(&home);
    let mut listener = Listener::connect(&server, None).await;
    let plugin = async || server.get("/v1/plugins/stub_policy").await.1;
    let (serving, good) = (plugin().await["revision"].clone(), home.read_bytes("plugins/stub_policy.wasm"));

    // An edit above its section does not change its settings.
    home.file("ace.toml", format!("# A note.\n\n{}", home.read("ace.toml")));
    install(&home, "stub_policy", &good[..good.len() / 2]);
    reload(&server).await;
    let shown = plugin().await;
    assert_eq!((&shown["state"]["state"], &shown["revision"]), (&json!("active"), &serving), "{shown}");
    let refused = shown["rejected"]["revision"].as_str().expect("a revision").to_owned();
    assert_ne!(json!(refused), serving);
    assert_text(&shown["rejected"]["reason"], "it does not compile");

    let found = degraded(&server).await;
    assert_eq!((&found[0]["kind"], &found[0]["name"], found.len()), (&json!("revision"), &json!("stub_policy"), 1));
    assert_text(&found[0]["reason"], &format!("{refused} was rejected; after a restart the plugin would be broken"));
    let metrics = server.get("/metrics").await.1;
    assert_text(&metrics, "ace_plugin_rejected{plugin=\"stub_policy\"} 1");
    let count = format!("ace_plugin_rejections_total{{plugin=\"stub_policy\",revision=\"{refused}\"}} 1");
    assert_text(&metrics, &count);
    let heard = listener.next().await;
    let data = &heard.data["data"];
    assert_eq!((heard.kind.as_str(), &data["plugin"]), ("plugin.rejected", &json!("stub_policy")));
    assert_eq!((&data["revision"], &data["active_revision"]), (&json!(refused), &serving));
    let listed = home.ace(&["plugins", "stub_policy", "--server", &server.url]).run().code(1).stdout;
    assert!(listed.contains(&format!("active; {refused} was rejected; after a restart")), "{listed}");

    // Shadow mode does not concern instances, so the active ones continue.
    configure(&home, &format!("{STUB}mode = 'shadow'\n"));
    reload(&server).await;
    let (_, compared) = server.get("/v1/shadow").await;
    assert_eq!((&compared[0]["policy"], &compared[0]["revision"]), (&json!("stub_policy"), &serving));
    // With other settings the active revision is restarted.
    configure(&home, "[plugins.stub_policy]\nconfig = { deny = ['email'] }\n");
    reload(&server).await;
    let denied = server.send(&note(1, json!({}))).await;
    assert_eq!((&denied["state"], &denied["report"]["policies"][0]["revision"]), (&json!("not_sent"), &serving));
    assert_eq!(plugin().await["rejected"]["revision"], refused);
    assert_text(&server.get("/metrics").await.1, &count);

    install(&home, "stub_policy", &good);
    reload(&server).await;
    assert_eq!((plugin().await["rejected"].clone(), degraded(&server).await), (Value::Null, Vec::new()));
    assert_text(&server.get("/metrics").await.1, "ace_plugin_rejected{plugin=\"stub_policy\"} 0");
    let heard = listener.next().await;
    assert_eq!((heard.kind.as_str(), &heard.data["data"]["to"]), ("plugin.active", &serving));
}

#[tokio::test]
async fn metrics_are_of_the_active_revision_and_have_help_texts() {
    let home = home("");
    home.plugin("stub_policy");
    configure(&home, STUB);
    let server = Server::start(&home);
    let revision = async || {
        let shown = server.get("/v1/plugins/stub_policy").await.1;
        format!("revision=\"{}\"", shown["revision"].as_str().expect("a revision"))
    };
    let metrics = async || server.get("/metrics").await.1.as_str().expect("a text").to_owned();
    let old = revision().await;
    server.send(&note(1, json!({}))).await;
    assert!(metrics().await.contains(&old));
    let manifest = home.read("plugins/stub_policy.toml");
    home.file("plugins/stub_policy.toml", format!("# Another one.\n{manifest}"));
    reload(&server).await;
    server.send(&note(2, json!({}))).await;
    let (new, now) = (revision().await, metrics().await);
    assert_ne!(old, new);
    assert!(now.contains(&new) && !now.contains(&old), "{now}");

    let named = |what: &str| -> std::collections::BTreeSet<&str> {
        now.lines().filter_map(|line| line.strip_prefix(what)?.split(' ').next()).collect()
    };
    assert!(named("# TYPE ").len() > 10, "{now}");
    assert_eq!(named("# HELP "), named("# TYPE "), "each metric says what it means");
}

#[tokio::test]
async fn rejected_settings_are_shown_until_they_are_fixed() {
    let home = home("[events]\nkeep = true\n");
    let server = Server::start(&home);
    let mut listener = Listener::connect(&server, None).await;
    configure(&home, "[events]\nkeep = true\n[plugins.djagno_email]\n");
    for _ in 0..2 {
        assert_eq!(server.post("/v1/reload", "").await.0, StatusCode::CONFLICT);
    }
    let found = degraded(&server).await;
    assert_eq!((&found[0]["kind"], found.len()), (&json!("reload"), 1), "{found:?}");
    assert_text(&found[0]["reason"], "did you mean \"django_email\"?");
    assert_eq!(server.send(&note(1, json!({}))).await["state"], "sent", "the previous version stays active");
    let heard = listener.next().await;
    assert_eq!(heard.kind, "reload.refused");
    assert_text(&heard.data["data"]["reason"], "djagno_email");
    assert_eq!(listener.next().await.kind, "message.sent", "it is reported once");

    configure(&home, "[events]\nkeep = true\n");
    reload(&server).await;
    assert_eq!(degraded(&server).await, Vec::<Value>::new());
}

#[tokio::test]
async fn settings_can_be_written_before_the_file_of_their_plugin() {
    let home = home("");
    home.plugin("stub_policy");
    let good = home.read_bytes("plugins/stub_policy.wasm");
    let server = Server::start(&home);
    let state = async |name: &str| server.get(&format!("/v1/plugins/{name}")).await.1["state"]["state"].clone();
    let quiet = "[plugins.quiet]\nconfig = { deny = ['push'] }\n";
    for _ in 0..2 {
        configure(&home, quiet);
        reload(&server).await;
        assert_eq!(state("quiet").await, "awaiting_file");
    }
    assert_eq!(server.send(&note(1, json!({}))).await["state"], "sent");
    let found = degraded(&server).await;
    assert_eq!(
        (&found[0]["kind"], &found[0]["name"], found.len()),
        (&json!("plugin"), &json!("quiet"), 1),
        "{found:?}"
    );
    assert_text(&found[0]["reason"], "it is awaiting its file");
    let listed = home.ace(&["plugins", "--server", &server.url]).run().ok().stdout;
    assert!(listed.contains("awaiting its file"), "{listed}");
    assert!(!server.get("/metrics").await.1.to_string().contains("ace_plugin_up{plugin=\\\"quiet\\\"}"));

    configure(&home, &format!("{quiet}[plugins.stub_policy]\nconfig = {{ deny = ['email'] }}\n"));
    reload(&server).await;
    assert_eq!(server.send(&note(2, json!({}))).await["state"], "not_sent", "other settings take effect");
    configure(&home, "[plugins.quiet]\nconfig = { deny = ['email'] }\n");
    reload(&server).await;
    assert_eq!(server.send(&note(3, json!({}))).await["state"], "sent");
    install(&home, "quiet", &good);
    reload(&server).await;
    assert_eq!(state("quiet").await, "active");
    let denied = server.send(&note(4, json!({}))).await;
    assert_eq!(denied["state"], "not_sent", "it serves with the settings that waited for it");
    assert_eq!(degraded(&server).await, Vec::<Value>::new());

    // At a start a policy must not be missing.
    configure(&home, "[plugins.quieter_hours]\n");
    home.ace(&["check"]).run().code(1);
}

/// A template whose latest version is broken is listed as degraded, and so is a broken plugin.
#[tokio::test]
async fn broken_plugins_and_templates_do_not_prevent_messages_from_being_accepted() {
    let home = home("");
    install(&home, "damaged", b"damaged");
    let server = Server::start(&home);
    home.file("templates/app/edx_ace/note/email/body.txt", "v2\n{{ broken");
    reload(&server).await;
    let found = degraded(&server).await;
    let kinds: Vec<&str> = found.iter().filter_map(|one| one["kind"].as_str()).collect();
    assert_eq!(kinds, ["plugin", "template"], "{found:?}");
    assert_text(&found[1]["reason"], "body.txt:2");
    let response = server.request(Method::GET, "/readyz").send().await.expect("answered");
    assert_eq!(response.status(), StatusCode::OK);
}
