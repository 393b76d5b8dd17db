//! The helpers that `ace plugin new` writes into a project (`ace.js`, `ace.py`, `ace.h`, Go's package `ace`) do what they document. In Rust
//! they are the SDK, which has its own tests; TypeScript uses those of JavaScript.

mod channels;

use serde_json::{Value, json};

use crate::author::plugin;
use crate::support::{Home, message};

/// Denies push, with the helpers' results as the reason.
const JAVASCRIPT: &str = r#"
import { contact, context, countOnce, fact, givePlaceBack, isTrue, option, reading } from "./ace.js";
import { setting, settingJson, takePlace, text, utf8 } from "./ace.js";

export const policy = {
  enabled() {},

  check(message) {
    const [is, phone, bucket, key] = reading(message, (message) => [
      isTrue(option(message, "/transactional")),
      contact(message, "phone"),
      context(message, "/bucket"),
      context(message, "/key"),
    ]);
    const held = key === undefined ? undefined : fact(bucket, key);
    if (bucket === "caps") return { deny: [{ channelType: "push", reason: caps() }], delay: [] };
    const found = [setting("greeting"), setting("none"), settingJson("list")?.[1], settingJson("greeting"), phone, held, is];
    const reason = text(utf8(found.map((one) => String(one ?? "-")).join("|")));
    return { deny: [{ channelType: "push", reason }], delay: [] };
  },
};

function caps() {
  const counted = ["m1", "m2", "m1"].map((token) => countOnce("caps", "n", token, 1000)).map((c) => `${c.at}/${c.total}`);
  const placed = ["m1", "m2"].map((token) => takePlace("caps", "p", token, 1, 1000)).map((p) => `${p.isGranted}/${p.used}`);
  const next = takePlace("caps", "p", "m2", 1, 1000).nextFree;
  givePlaceBack("caps", "p", "m1");
  return [...counted, ...placed, next, takePlace("caps", "p", "m2", 1, 1000).isGranted].join("|");
}
"#;

const PYTHON: &str = r#"
from ace import contact, context, count_once, fact, give_place_back, option, setting, setting_json, take_place
from wit_world import exports
from wit_world.exports.policy import Denial, PolicyResult


class Policy(exports.Policy):
    def enabled(self):
        pass

    def check(self, message):
        with message:
            transactional = bool(option(message, "/transactional"))
            phone = contact(message.recipient(), "phone")
            bucket, key = context(message, "/bucket"), context(message, "/key")
        held = None if key is None else fact(bucket, key)
        if bucket == "caps":
            return PolicyResult(deny=[Denial("push", caps())], delay=[])
        second = setting_json("list")[1]
        found = [setting("greeting"), setting("none"), second, setting_json("greeting"), phone, held, str(transactional).lower()]
        reason = "|".join("-" if one is None else str(one) for one in found)
        return PolicyResult(deny=[Denial("push", reason)], delay=[])


def caps():
    counted = [count_once("caps", "n", token, 1000) for token in ("m1", "m2", "m1")]
    placed = [take_place("caps", "p", token, 1, 1000) for token in ("m1", "m2")]
    next_free = take_place("caps", "p", "m2", 1, 1000).next_free
    give_place_back("caps", "p", "m1")
    found = [f"{c.at}/{c.total}" for c in counted] + [f"{str(p.is_granted).lower()}/{p.used}" for p in placed]
    return "|".join([*found, str(next_free), str(take_place("caps", "p", "m2", 1, 1000).is_granted).lower()])
"#;

/// Denies push with a greeting, or with an error, if the option is true.
const C: &str = r#"
#include "gen/policy_plugin.h"
#define ACE_WORLD policy_plugin
#include "ace.h"

// Two are counted, the first once; one of them gets the only place, until it returns it.
static bool caps(ace_text *err) {
  ace_text key = ace_borrowed("n"), one = ace_borrowed("m1"), two = ace_borrowed("m2");
  openedx_ace_keyvalue_counted_t counted;
  openedx_ace_keyvalue_place_t place;
  if (!ace_count_once("caps", key, one, 1000, &counted, err) || !ace_count_once("caps", key, two, 0, &counted, err) ||
      !ace_count_once("caps", key, one, 0, &counted, err)) return false;
  bool is_right = counted.at == 1 && counted.total == 2 && !counted.first_time;
  key = ace_borrowed("p");
  if (!ace_take_place("caps", key, one, 1, 1000, &place, err)) return false;
  is_right = is_right && place.is_granted && place.used == 1;
  if (!ace_take_place("caps", key, two, 1, 1000, &place, err)) return false;
  is_right = is_right && !place.is_granted && place.next_free.is_some;
  if (!ace_give_place_back("caps", key, one, err) || !ace_take_place("caps", key, two, 1, 1000, &place, err)) return false;
  if (!is_right || !place.is_granted) abort();
  return true;
}

bool exports_openedx_ace_policy_enabled(ace_text *err) {
  ace_text greeting;
  if (!ace_required("greeting", &greeting, err)) return false;
  ace_free(&greeting);
  return true;
}

bool exports_openedx_ace_policy_check(
    exports_openedx_ace_policy_own_message_t message, exports_openedx_ace_policy_policy_result_t *verdict, ace_text *err) {
  (void)err;
  memset(verdict, 0, sizeof *verdict);
  bool is = ace_option_is_true(openedx_ace_messages_borrow_message(message), "/transactional");
  openedx_ace_messages_message_drop_own(message);
  if (!is) return true;
  verdict->deny.ptr = calloc(1, sizeof *verdict->deny.ptr);
  if (verdict->deny.ptr == NULL) abort();
  verdict->deny.len = 1;
  verdict->deny.ptr->channel_type = ace_copy("push");
  verdict->deny.ptr->reason.is_some = ace_setting("greeting", &verdict->deny.ptr->reason.val);
  return caps(err);
}
"#;

const MANIFEST: &str = "
[requests]
keyvalue = ['facts:read', 'caps:read-write']

[defaults]
greeting = 'Grüß Zoë'
list = [1, 2]
";

/// Values of an option, and whether they are true in Python.
fn truths() -> Vec<(Value, bool)> {
    let empty = [json!(null), json!(false), json!(0), json!(-0.0), json!(0e5), json!(""), json!([]), json!({})];
    let full =
        [json!(true), json!(1), json!(-0.5), json!(1e-9), json!("0"), json!(" "), json!([0]), json!({"a": null})];
    empty.map(|value| (value, false)).into_iter().chain(full.map(|value| (value, true))).collect()
}

fn case(fields: Value, expect: Value) -> Value {
    json!({"message": message("note", fields), "facts": {"facts": {"ü/1": "Zoë ✓"}}, "expect": expect})
}

fn denied(reason: &str) -> Value {
    json!({"deny": [{"channel_type": "push", "reason": reason}]})
}

/// Builds a policy from this source, and runs the cases.
fn answers(language: &str, file: &str, source: &str, manifest: &str, cases: &[Value]) {
    answers_of("policy", language, file, source, manifest, cases);
}

fn answers_of(kind: &str, language: &str, file: &str, source: &str, manifest: &str, cases: &[Value]) {
    let home = Home::empty();
    plugin(&home, &["new", "mine", "--kind", kind, "--lang", language]).ok();
    home.file(&format!("mine/{file}"), source);
    home.file("mine/mine.toml", manifest);
    home.file("mine/tests/cases.json", json!(cases).to_string());
    plugin(&home, &["build", "mine"]).ok();
    plugin(&home, &["test", "mine"]).ok().says(", 0 failed");
}

/// The expected answers in JavaScript and Python.
fn found() -> Vec<Value> {
    let zoe = json!({"lms_user_id": 7, "email_address": null, "contacts": {"phone": ["+15550100", "+15550101"]}});
    let held = json!({"recipient": zoe, "context": {"bucket": "facts", "key": "ü/1"}});
    let nothing = json!({"recipient": null, "context": {"bucket": "facts", "key": "none"}});
    let others = json!({"context": {"bucket": "others", "key": "1"}});
    let refused =
        "keyvalue: not granted; the operator can write `grants = { keyvalue = [\"others:read\"] }` into ace.toml";
    let mut cases = vec![
        case(held, denied("Grüß Zoë|-|2|-|+15550100|Zoë ✓|false")),
        case(nothing, denied("Grüß Zoë|-|2|-|-|-|false")),
        case(others, json!({"fault": {"kind": "error", "message": refused}})),
    ];
    let caps = "1/1|2/2|1/2|true/1|false/1|1767268801000|true";
    cases.push(case(json!({"context": {"bucket": "caps", "key": "n"}}), denied(caps)));
    cases.extend(truths().into_iter().map(|(value, is)| {
        case(json!({"options": {"transactional": value}}), denied(&format!("Grüß Zoë|-|2|-|-|-|{is}")))
    }));
    cases
}

#[test]
fn in_javascript_they_do_what_they_document() {
    answers("js", "mine.js", JAVASCRIPT, MANIFEST, &found());
}

#[test]
fn in_python_they_do_what_they_document() {
    answers("python", "mine.py", PYTHON, MANIFEST, &found());
}

#[test]
fn in_c_they_do_what_they_document() {
    let cases = truths().into_iter().map(|(value, is)| {
        let expect = if is { denied("Grüß Zoë") } else { json!("pass") };
        case(json!({"options": {"transactional": value}}), expect)
    });
    answers("c", "mine.c", C, MANIFEST, &cases.chain([case(json!({}), json!("pass"))]).collect::<Vec<_>>());
    let unset = "it says it cannot work: config key \"greeting\": it is not set";
    answers("c", "mine.c", C, "", &[case(json!({}), json!({"refused": unset}))]);
}
