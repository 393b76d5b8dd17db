//! Policies in shadow mode.

use super::*;

#[test]
fn a_policy_in_shadow_mode_is_recorded_and_has_no_effect() {
    let shadow = "[plugins.second]\nmode = \"shadow\"\nshadow-of = \"stub_policy\"\nconfig = { deny = [\"*\"] }\n";
    let home = home(&format!("{}{shadow}", stub("stub_policy", "[\"push\"]")));
    std::fs::copy(home.path("plugins/stub_policy.wasm"), home.path("plugins/second.wasm")).expect("copied");
    let mut host = Host::start(&home);
    let told = host.send();
    assert_eq!(channel(&told, "email")["state"], "sent");
    let policies = told["report"]["policies"].as_array().expect("policies");
    let second = policies.iter().find(|p| p["policy"] == "second").expect("it was asked");
    assert_eq!((&second["shadow"], &second["result"]["deny"][0]["channel_type"]), (&json!("differs"), &json!("*")));
    host.end();
}

/// The same plugin twice: the enforced one has effects, the one in shadow mode has none.
#[test]
fn a_policy_in_shadow_mode_leaves_no_trace() {
    let grants = |name: &str, mode: &str, folder: &str| {
        format!(
            "[plugins.{name}]\nmode = '{mode}'\n\
             grants = {{ keyvalue = ['loot'], mailer = true, outbox = '{folder}' }}\n"
        )
    };
    let relay = "[relays.main]\nkind = 'file'\ndir = 'mails'\n";
    let home = Home::empty();
    home.guest("hostile", "bold");
    home.guest("hostile", "shy");
    home.file("templates/app/edx_ace/note/email/body.txt", "Hi");
    let ask = || message("note", json!({"context": {"in": "check", "do": "effects"}}));
    let reason = |line: &Value, policy: &str| {
        let policies = line["report"]["policies"].as_array().expect("policies");
        let report = policies.iter().find(|p| p["policy"] == policy).unwrap_or_else(|| panic!("{line}"));
        report["result"]["deny"][0]["reason"].as_str().unwrap_or_else(|| panic!("{line}")).to_owned()
    };
    home.config(&format!("{relay}{}{}", grants("bold", "shadow", "bold"), grants("shy", "shadow", "shy")));
    for line in home.send(&[ask(), ask()]).ok().lines() {
        for policy in ["bold", "shy"] {
            let told = reason(&line, policy);
            assert!(told.starts_with("counted Ok(1), set Ok(())"), "an overlay for each call: {told}");
            assert_eq!(told.matches("Denied").count(), 2, "{told}");
        }
    }
    assert_eq!((home.list("bold"), home.list("shy"), home.list("mails")), (vec![], vec![], vec![]));

    home.config(&format!("{relay}{}{}", grants("bold", "enforce", "bold"), grants("shy", "shadow", "shy")));
    let lines = home.ace(&["send", "--json", "--concurrency", "1", "-"]).input(format!("{}\n{}", ask(), ask())).run();
    for (at, line) in lines.lines().iter().enumerate() {
        let told = reason(line, "bold");
        assert!(told.starts_with(&format!("counted Ok({}), set Ok(())", at + 1)), "{told}");
        // Mail can only be sent by `deliver`, in shadow mode or not.
        let written = ["written Ok(())", "written Err(OutboxError::Exists(\"trace.txt\"))"][at];
        assert!(told.ends_with(written) && told.contains("only `deliver` can send mail"), "{told}");
        // It reads entries of the other, and its own writes are visible only to itself.
        let told = reason(line, "shy");
        assert!(told.starts_with(&format!("counted Ok({}), set Ok(())", at + 2)), "{told}");
    }
    assert_eq!((home.list("bold").len(), home.list("shy").len()), (1, 0));
    assert_eq!(home.list("mails"), Vec::<String>::new());
}
