use serde_json::json;

use super::*;

struct Stub {
    name: &'static str,
    channel_type: &'static str,
    overrides: bool,
}

#[async_trait]
impl Channel for Stub {
    fn name(&self) -> &str {
        self.name
    }
    fn channel_type(&self) -> &str {
        self.channel_type
    }
    fn template_files(&self) -> &[TemplateFile] {
        &[]
    }
    async fn overrides_delivery_for_message(&self, _: &Arc<Message>, _: &CallContext) -> Result<bool, Fault> {
        Ok(self.overrides)
    }
    async fn deliver(
        &self,
        _: &Arc<Message>,
        _: &[(String, String)],
        _: &Attempt,
        _: &CallContext,
    ) -> Result<Receipt, DeliveryError> {
        Ok(Receipt::default())
    }
}

fn map(channels: &[(&'static str, &'static str)], claiming: &str) -> ChannelMap {
    ChannelMap::new(channels.iter().map(|(name, channel_type)| {
        Arc::new(Stub { name, channel_type, overrides: *name == claiming }) as Arc<dyn Channel>
    }))
}

const CHANNELS: [(&str, &str); 5] =
    [("zeta", "email"), ("bulk", "email"), ("fast", "email"), ("fcm", "push"), ("twilio", "sms")];

fn routing() -> Routing {
    let pairs = |list: &[(&str, &str)]| list.iter().map(|(t, n)| ((*t).to_owned(), (*n).to_owned())).collect();
    Routing {
        default: pairs(&[("email", "bulk")]),
        transactional: pairs(&[("email", "fast")]),
        listed: BTreeMap::from([("push".to_owned(), vec!["gone".to_owned(), "fcm".to_owned()])]),
        failover: BTreeMap::from([(
            "email".to_owned(),
            vec!["bulk".to_owned(), "missing".to_owned(), "zeta".to_owned()],
        )]),
        fallback: BTreeMap::new(),
    }
}

async fn chosen(map: &ChannelMap, routing: &Routing, channel_type: &str, options: serde_json::Value) -> (String, Rule) {
    let mut message = Message::new("app", "name", None);
    message.options = options.as_object().cloned().unwrap_or_default();
    let found = candidates(map, routing, &Limit::default(), channel_type, &message);
    match choose(found.channels, &Arc::new(message), &CallContext::default()).await.expect("stubs do not break") {
        Some((channel, rule)) => (channel.name().to_owned(), rule),
        None => ("-".to_owned(), Rule::FirstOfType),
    }
}

#[tokio::test]
async fn the_rules_choose_a_channel() {
    let cases = [
        ("default", "", "email", json!({}), "bulk", Rule::Default),
        ("transactional", "", "email", json!({"transactional": true}), "fast", Rule::Transactional),
        ("truthy is enough", "", "email", json!({"transactional": "yes"}), "fast", Rule::Transactional),
        ("falsy is not", "", "email", json!({"transactional": 0}), "bulk", Rule::Default),
        ("override", "", "email", json!({"override_default_channel": "zeta"}), "zeta", Rule::OverrideDefaultChannel),
        (
            "an override stands alone",
            "bulk",
            "email",
            json!({"override_default_channel": "zeta"}),
            "zeta",
            Rule::OverrideDefaultChannel,
        ),
        ("an empty override is none", "", "email", json!({"override_default_channel": ""}), "bulk", Rule::Default),
        (
            "an unknown override gives way",
            "",
            "email",
            json!({"override_default_channel": "zzz"}),
            "bulk",
            Rule::Default,
        ),
        (
            "it gives way to the transactional one too",
            "",
            "email",
            json!({"override_default_channel": "zzz", "transactional": true}),
            "fast",
            Rule::Transactional,
        ),
        (
            "an override of another type is not for this one",
            "",
            "email",
            json!({"override_default_channel": "fcm"}),
            "bulk",
            Rule::Default,
        ),
        (
            "the default claims a transactional one",
            "bulk",
            "email",
            json!({"transactional": true}),
            "bulk",
            Rule::OverridesDelivery,
        ),
        ("an outsider cannot claim", "zeta", "email", json!({"transactional": true}), "fast", Rule::Transactional),
        ("a missing listed one gives way to the next", "", "push", json!({}), "fcm", Rule::Listed),
        ("a type without settings: its first", "", "sms", json!({}), "twilio", Rule::FirstOfType),
        ("a type without channels", "", "fax", json!({}), "-", Rule::FirstOfType),
    ];
    for (name, claiming, channel_type, options, channel, rule) in cases {
        let found = chosen(&map(&CHANNELS, claiming), &routing(), channel_type, options).await;
        assert_eq!(found, (channel.to_owned(), rule), "{name}");
    }
}

#[tokio::test]
async fn a_missing_candidate_is_followed_by_the_next_and_then_by_the_first_of_its_type() {
    let without_fast = map(&[("zeta", "email"), ("bulk", "email")], "");
    assert_eq!(
        chosen(&without_fast, &routing(), "email", json!({"transactional": true})).await,
        ("bulk".to_owned(), Rule::Default)
    );
    let only_zeta = map(&[("zeta", "email"), ("alpha", "email")], "");
    assert_eq!(chosen(&only_zeta, &routing(), "email", json!({})).await, ("zeta".to_owned(), Rule::FirstOfType));
    let found = candidates(&only_zeta, &routing(), &Limit::default(), "email", &Message::new("a", "n", None));
    assert_eq!(found.passed_over, ["bulk: no channel of type email has this name"]);
}

#[test]
fn the_order_of_types_is_fixed() {
    let channels = [("a", "sms"), ("b", "chat"), ("c", "push"), ("d", "email")];
    assert_eq!(map(&channels, "").types(), ["email", "push", "chat", "sms"]);
    assert_eq!(ChannelMap::default().types(), ["email", "push"]);
}

#[test]
fn a_limit_accepts_types_and_names_and_rejects_unknown_ones() {
    let map = map(&CHANNELS, "");
    let limit = |values: &[&str]| Limit::new(&values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>(), &map);
    let none = limit(&[]).expect("no limit");
    assert!(none.allows_type("email", &map) && none.allows_type("sms", &map));
    let push = limit(&["push"]).expect("a type");
    assert!(push.allows_type("push", &map) && !push.allows_type("email", &map));
    let zeta = limit(&["zeta"]).expect("a name");
    assert!(zeta.allows_type("email", &map) && !zeta.allows_type("push", &map));
    let found = candidates(&map, &routing(), &zeta, "email", &Message::new("a", "n", None));
    let names: Vec<&str> = found.channels.iter().map(|(c, _)| c.name()).collect();
    assert_eq!(names, ["zeta"], "the default is outside the limit");
    assert!(limit(&["emial"]).expect_err("unknown").to_string().contains("did you mean \"email\""));
    assert!(limit(&["pager"]).expect_err("unknown").to_string().contains("twilio"));
}

#[test]
fn failover_follows_its_list_without_repeating_a_channel() {
    let map = map(&CHANNELS, "");
    let next = |tried: &[&str]| {
        let tried: Vec<String> = tried.iter().map(|t| (*t).to_owned()).collect();
        failover(&map, &routing(), &Limit::default(), "email", &tried).first().map(|c| c.name().to_owned())
    };
    assert_eq!(next(&["fast"]).as_deref(), Some("bulk"));
    assert_eq!(next(&["bulk"]).as_deref(), Some("zeta"));
    assert_eq!(next(&["bulk", "zeta"]), None);
    assert!(failover(&map, &routing(), &Limit::default(), "push", &[]).is_empty(), "none is configured");
}
