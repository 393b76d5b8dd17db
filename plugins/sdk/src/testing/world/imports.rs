//! The functions of the WIT, module by module.

pub mod keyvalue;

pub mod config {
    use crate::testing::world::{text, with};

    pub fn get(key: &str) -> Option<String> {
        with(|world| world.secrets.get(key).cloned().or_else(|| world.config.get(key).map(text)))
    }
}

pub mod logging {
    use crate::Level;
    use crate::testing::world::with;

    pub fn log(level: Level, message: &str) {
        with(|world| world.logs.push(format!("{level:?}: {message}")));
    }
}

pub mod delivery {
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use crate::delivery::Note;
    use crate::testing::world::{World, with};

    pub fn hold_channel(until: Option<u64>, reason: &str) {
        within_delivery("hold-channel", |world| {
            let until = until.and_then(|ms| Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok());
            let until = until.map(|at| ("until".to_owned(), at.to_string().into()));
            let fields = until.into_iter().chain([("reason".to_owned(), reason.into())]);
            world.hold = Some(Value::Object(fields.collect()));
        });
    }

    /// Notes an outcome. A malformed one changes nothing.
    pub fn note_outcome(outcome: &str) {
        within_delivery("note-outcome", |world| match serde_json::from_str::<Note>(outcome) {
            Err(why) => world.logs.push(format!("Error: note-outcome changed nothing: {why}")),
            Ok(note) => {
                let is_same = |other: &&mut Value| other["kind"] == note.kind && other["address"] == note.address;
                match world.outcomes.iter_mut().find(is_same) {
                    Some(other) => *other = json!(note),
                    None => world.outcomes.push(json!(note)),
                }
            }
        });
    }

    pub fn noted_outcomes() -> String {
        with(|world| json!(world.noted).to_string())
    }

    fn within_delivery(function: &str, change: impl FnOnce(&mut World)) {
        with(|world| match world.delivery_key {
            Some(_) => change(world),
            None => world.logs.push(format!("Debug: {function} has no effect outside of deliver")),
        });
    }
}

pub mod time_zones {
    use jiff::Timestamp;
    use jiff::tz::TimeZone;

    pub fn offset_ms(zone: &str, at: u64) -> Result<i32, String> {
        let rules = TimeZone::get(zone).map_err(|_| format!("there is no time zone {zone:?}"))?;
        let at = i64::try_from(at).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        Ok(rules.to_offset(at.ok_or("the moment is too far away")?).seconds() * 1000)
    }
}

pub mod wall_clock {
    use crate::bindings::wasi::clocks::wall_clock::Datetime;
    use crate::testing::world::with;

    pub fn now() -> Datetime {
        let now = with(|world| world.now);
        Datetime {
            seconds: now.as_second().max(0).cast_unsigned(),
            nanoseconds: now.subsec_nanosecond().max(0).cast_unsigned(),
        }
    }
}

pub mod random {
    use crate::testing::world::with;

    pub fn get_random_bytes(count: u64) -> Vec<u8> {
        with(|world| (0..count).map(|_| world.random_byte()).collect())
    }

    pub fn get_random_u64() -> u64 {
        with(|world| u64::from_be_bytes(std::array::from_fn(|_| world.random_byte())))
    }
}

pub mod http {
    use serde_json::{Value, json};

    use crate::http::{HttpError, Request, Response};
    use crate::testing::case::HttpAnswer;
    use crate::testing::world::{Exchange, Object, World, with, written};

    /// Makes one request and waits for the whole response. Nothing is retried.
    pub fn fetch(request: &Request) -> Result<Response, HttpError> {
        with(|world| answer(world, request, asked(request))?.outcome())
    }

    /// The answer of the case to a request.
    pub fn answer(world: &mut World, request: &Request, asked: Value) -> Result<HttpAnswer, HttpError> {
        if !request.url.starts_with("https://") && !request.url.starts_with("http://") {
            return Err(HttpError::Invalid(format!("{:?} is not an http or https URL", request.url)));
        }
        world.requests.http(&request.url).map_err(HttpError::Denied)?;
        match world.next_answer("http", asked) {
            Ok(Exchange::Http { answer, .. }) => Ok(answer),
            Ok(Exchange::Mail { .. }) => unreachable!("an HTTP answer was requested"),
            Err(why) => Err(HttpError::Connection(why)),
        }
    }

    /// A request in the form of a case.
    pub fn asked(request: &Request) -> Value {
        let mut fields = Object::new();
        fields.insert("method".to_owned(), request.method.as_str().into());
        fields.insert("url".to_owned(), request.url.as_str().into());
        let header = |(name, value): &(String, String)| (name.to_ascii_lowercase(), Value::from(value.as_str()));
        let headers: Object = request.headers.iter().map(header).collect();
        if !headers.is_empty() {
            fields.insert("headers".to_owned(), json!(headers));
        }
        if let Some(body) = &request.body {
            fields.insert("body".to_owned(), written(body));
        }
        Value::Object(fields)
    }
}

pub mod authorized_http {
    use super::http::{answer, asked};
    use crate::authorized_http::AuthorizedError;
    use crate::http::{HttpError, Request, Response};
    use crate::testing::world::with;

    /// Makes one request with a credential, which the case shows by its name.
    pub fn fetch(request: &Request, credential: &str) -> Result<Response, AuthorizedError> {
        let mut asked = asked(request);
        asked["credential"] = credential.into();
        with(|world| {
            let denied = |why| AuthorizedError::Http(HttpError::Denied(why));
            world.requests.credential(credential).map_err(denied)?;
            answer(world, request, asked).map_err(AuthorizedError::Http)?.authorized_outcome()
        })
    }
}

pub mod signatures {
    use ace_signatures::Algorithm;

    use crate::signatures::SignatureError;
    use crate::testing::world::with;

    /// Whether a signature is of the key that the case has for this credential.
    pub fn verify(credential: &str, algorithm: &str, data: &[u8], signature: &[u8]) -> Result<bool, SignatureError> {
        let key = with(|world| {
            world.requests.credential(credential).map_err(SignatureError::Denied)?;
            Ok(world.credentials[credential].clone())
        })?;
        named(algorithm)?.verify(key.as_bytes(), data, signature).map_err(invalid)
    }

    /// Whether a signature is of this public key.
    pub fn verify_with(key: &[u8], algorithm: &str, data: &[u8], signature: &[u8]) -> Result<bool, SignatureError> {
        named(algorithm)?.verify_with_public_key(key, data, signature).map_err(invalid)
    }

    fn named(algorithm: &str) -> Result<Algorithm, SignatureError> {
        Algorithm::named(algorithm)
            .ok_or_else(|| SignatureError::Invalid(format!("there is no algorithm {algorithm:?}")))
    }

    fn invalid(error: ace_signatures::InvalidKey) -> SignatureError {
        SignatureError::Invalid(error.to_string())
    }
}

pub mod mailer {
    use serde_json::{Value, json};

    use crate::RecoverableError;
    use crate::mailer::{Accepted, Email, MailError};
    use crate::testing::world::{Exchange, MailAnswer, with, written};

    /// Sends one mail to the relay and waits for its reply. Only a channel's `deliver` can.
    pub fn send(email: &Email, _idempotency_key: &str) -> Result<Accepted, MailError> {
        let recoverable = |message| RecoverableError { message, next_attempt_time: None };
        with(|world| {
            world.requests.mailer().map_err(MailError::Denied)?;
            let key = world.delivery_key.clone();
            let key = key.ok_or_else(|| MailError::Denied("only `deliver` can send mail".to_owned()))?;
            match world.next_answer("mail", asked(email)) {
                Ok(Exchange::Mail { answer: MailAnswer::Accepted(answer), .. }) => {
                    Ok(Accepted { answer, message_id: format!("<{key}@test.invalid>"), refused: Vec::new() })
                }
                Ok(Exchange::Mail { answer: MailAnswer::Invalid(text), .. }) => Err(MailError::Invalid(text)),
                Ok(Exchange::Mail { answer: MailAnswer::Permanent(text), .. }) => Err(MailError::Permanent(text)),
                Ok(Exchange::Mail { answer: MailAnswer::Temporary(text), .. }) => {
                    Err(MailError::Temporary(recoverable(text)))
                }
                Ok(Exchange::Http { .. }) => unreachable!("a mail answer was requested"),
                Err(why) => Err(MailError::Temporary(recoverable(why))),
            }
        })
    }

    /// A mail in the form of a case, without unset fields.
    fn asked(email: &Email) -> Value {
        let attachments = email.attachments.iter().map(|a| {
            json!({
                "file_name": a.file_name,
                "content_type": a.content_type,
                "content": written(&a.content),
                "content_id": a.content_id,
            })
        });
        let mut fields = json!({
            "sender": email.sender,
            "recipients": email.recipients,
            "cc": email.cc,
            "bcc": email.bcc,
            "reply_to": email.reply_to,
            "subject": email.subject,
            "text": email.text,
            "html": email.html,
            "headers": email.headers,
            "attachments": attachments.collect::<Vec<_>>(),
            "relay": email.relay,
            "return_path": email.return_path,
        });
        if let Some(fields) = fields.as_object_mut() {
            fields.retain(|_, value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()));
        }
        fields
    }
}

pub mod outbox {
    use std::path::{Component, Path};

    use crate::outbox::OutboxError;
    use crate::testing::world::with;

    /// Writes a whole new file into the folder that the operator granted. `name` is relative to it.
    pub fn write(name: &str, _content: &[u8]) -> Result<(), OutboxError> {
        let is_plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        with(|world| {
            world.requests.outbox().map_err(OutboxError::Denied)?;
            if name.is_empty() || !is_plain || name.chars().any(|c| c.is_control() || c == '\\') {
                return Err(OutboxError::Invalid(format!("{name:?} cannot be a file in the outbox")));
            }
            if world.files.insert(name.to_owned()) { Ok(()) } else { Err(OutboxError::Exists(name.to_owned())) }
        })
    }
}

pub mod incoming {
    use crate::testing::case::IncomingRequest;
    use crate::testing::world::with;

    pub fn public_url() -> Option<String> {
        with(|world| world.public_url.clone())
    }

    /// The request of a case, for the plugin with this name.
    #[derive(Debug)]
    pub struct Request(pub IncomingRequest, pub String);

    impl Request {
        pub fn method(&self) -> String {
            self.0.method.clone()
        }

        pub fn url(&self) -> Option<String> {
            public_url().map(|url| format!("{url}/v1/feedback/{}{}", self.1, self.0.path))
        }

        pub fn path(&self) -> String {
            self.0.path.clone()
        }

        pub fn query(&self) -> Option<String> {
            self.0.query.clone()
        }

        pub fn header(&self, name: &str) -> Vec<String> {
            let fits = |(known, _): &(&String, &String)| known.eq_ignore_ascii_case(name);
            self.0.headers.iter().filter(fits).map(|(_, value)| value.clone()).collect()
        }

        pub fn headers(&self) -> Vec<(String, String)> {
            self.0.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect()
        }

        pub fn body(&self) -> Vec<u8> {
            self.0.body()
        }

        pub fn received_at(&self) -> u64 {
            with(|world| world.now.as_millisecond().max(0).cast_unsigned())
        }
    }
}

pub mod messages {
    use jiff::Timestamp;
    use jiff::civil::DateTime;
    use jiff::tz::TimeZone;
    use serde_json::Value;

    use crate::Recipient;
    use crate::testing::world::Object;

    /// The complete message of a case, in edx-ace's form.
    #[derive(Debug)]
    pub struct Message(pub Object);

    impl Message {
        fn text(&self, field: &str) -> Option<String> {
            self.0[field].as_str().map(str::to_owned)
        }

        pub fn uuid(&self) -> String {
            self.text("uuid").unwrap_or_default()
        }

        pub fn send_uuid(&self) -> Option<String> {
            self.text("send_uuid")
        }

        pub fn app_label(&self) -> String {
            self.text("app_label").unwrap_or_default()
        }

        pub fn name(&self) -> String {
            self.text("name").unwrap_or_default()
        }

        pub fn unique_name(&self) -> String {
            format!("{}.{}", self.app_label(), self.name())
        }

        pub fn language(&self) -> Option<String> {
            self.text("language")
        }

        pub fn expiration_time(&self) -> Option<u64> {
            let text = self.text("expiration_time")?;
            let naive = || text.parse::<DateTime>().ok().and_then(|at| TimeZone::UTC.to_timestamp(at).ok());
            let at = text.parse::<Timestamp>().ok().or_else(naive);
            let at = at.unwrap_or_else(|| panic!("message: expiration_time: {text:?} is not a date and time"));
            Some(at.as_millisecond().max(0).cast_unsigned())
        }

        pub fn recipient(&self) -> Option<Recipient> {
            let recipient = self.0["recipient"].as_object()?;
            let id = recipient.get("lms_user_id").unwrap_or(&Value::Null);
            let contacts = recipient.get("contacts").and_then(Value::as_object);
            let contacts = contacts.into_iter().flatten().flat_map(|(kind, addresses)| {
                let list = addresses.as_array().cloned().unwrap_or_else(|| vec![addresses.clone()]);
                list.into_iter().filter_map(move |one| Some((kind.clone(), one.as_str()?.to_owned())))
            });
            Some(Recipient {
                user_id: id.as_str().map(str::to_owned).or_else(|| id.as_i64().map(|id| id.to_string())),
                lms_user_id: id.as_i64().or_else(|| id.as_str()?.parse().ok()),
                email_address: recipient.get("email_address").and_then(Value::as_str).map(str::to_owned),
                contacts: contacts.collect(),
            })
        }

        pub fn headers(&self) -> Vec<(String, String)> {
            let headers = self.0["headers"].as_object().into_iter().flatten();
            headers.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
        }

        pub fn options(&self, pointer: &str) -> Option<String> {
            part(&self.0["options"], pointer)
        }

        pub fn context(&self, pointer: &str) -> Option<String> {
            part(&self.0["context"], pointer)
        }

        pub fn to_json(&self) -> String {
            Value::Object(self.0.clone()).to_string()
        }
    }

    fn part(of: &Value, pointer: &str) -> Option<String> {
        let is_pointer = pointer.is_empty() || pointer.starts_with('/');
        assert!(is_pointer, "{pointer:?} is not a JSON pointer: write \"\" for the whole or \"/key\" for a part");
        of.pointer(pointer).map(Value::to_string)
    }
}
