//! The functions of the WIT, module by module.

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

pub mod keyvalue {
    use crate::keyvalue::{Counted, KeyvalueError, Place};
    use crate::testing::world::{World, with};

    /// The value of a key; `None` if it does not exist. Needs read access to the bucket.
    pub fn get(bucket: &str, key: &str) -> Result<Option<Vec<u8>>, KeyvalueError> {
        with(|world| {
            world.requests.bucket(bucket, "read").map_err(KeyvalueError::Denied)?;
            Ok(world.facts.get(&(bucket.to_owned(), key.to_owned())).cloned())
        })
    }

    /// Sets the value of a key, optionally for `ttl_ms` milliseconds. Needs write access to the bucket.
    pub fn set(bucket: &str, key: &str, value: &[u8], _ttl_ms: Option<u64>) -> Result<(), KeyvalueError> {
        write(bucket, |world| {
            world.facts.insert((bucket.to_owned(), key.to_owned()), value.to_owned());
            Ok(())
        })
    }

    /// Deletes a key, which need not exist. Needs write access to the bucket.
    pub fn delete(bucket: &str, key: &str) -> Result<(), KeyvalueError> {
        write(bucket, |world| {
            world.facts.remove(&(bucket.to_owned(), key.to_owned()));
            world.tokens.retain(|(of, under, _), _| (of.as_str(), under.as_str()) != (bucket, key));
            world.places.remove(&(bucket.to_owned(), key.to_owned()));
            Ok(())
        })
    }

    /// Adds to a counter and returns it. With `once`, a token counts once. Needs write access to the bucket.
    pub fn increment(
        bucket: &str,
        key: &str,
        by: i64,
        _ttl_ms: Option<u64>,
        once: Option<&str>,
    ) -> Result<i64, KeyvalueError> {
        write(bucket, |world| Ok(count(world, bucket, key, by, once)?.total))
    }

    /// Adds once for each token and returns its number. Needs write access to the bucket.
    pub fn count_once(
        bucket: &str,
        key: &str,
        token: &str,
        by: i64,
        _ttl_ms: Option<u64>,
    ) -> Result<Counted, KeyvalueError> {
        write(bucket, |world| count(world, bucket, key, by, Some(token)))
    }

    /// Takes one of `limit` places within the last `window_ms`. Needs write access to the bucket.
    pub fn take_place(
        bucket: &str,
        key: &str,
        token: &str,
        limit: u32,
        window_ms: u64,
    ) -> Result<Place, KeyvalueError> {
        write(bucket, |world| {
            if limit == 0 {
                return Err(KeyvalueError::Quota(format!("{bucket}/{key}: the limit of places must be at least 1")));
            }
            let place = (bucket.to_owned(), key.to_owned());
            if world.facts.contains_key(&place) && !world.places.contains_key(&place) {
                return Err(KeyvalueError::Unavailable(format!("{bucket}/{key} does not hold places")));
            }
            let now = u64::try_from(world.now.as_millisecond()).unwrap_or_default();
            let taken = world.places.entry(place.clone()).or_default();
            taken.retain(|_, at| *at > now.saturating_sub(window_ms));
            let is_granted = taken.contains_key(token) || taken.len() < limit as usize;
            if is_granted {
                taken.entry(token.to_owned()).or_insert(now);
            }
            let mut moments: Vec<u64> = taken.values().copied().collect();
            moments.sort_unstable();
            let blocking = moments.get(moments.len().saturating_sub(limit as usize));
            let next_free = blocking.filter(|_| !is_granted).map(|at| at + window_ms);
            let used = moments.len() as u32;
            world.facts.insert(place, used.to_string().into_bytes());
            Ok(Place { is_granted, used, next_free })
        })
    }

    /// Releases the place of a token, if it has one. Needs write access to the bucket.
    pub fn give_place_back(bucket: &str, key: &str, token: &str) -> Result<(), KeyvalueError> {
        write(bucket, |world| {
            let place = (bucket.to_owned(), key.to_owned());
            let Some(taken) = world.places.get_mut(&place) else { return Ok(()) };
            taken.remove(token);
            match taken.len() {
                0 => drop((world.places.remove(&place), world.facts.remove(&place))),
                left => drop(world.facts.insert(place, left.to_string().into_bytes())),
            }
            Ok(())
        })
    }

    fn count(
        world: &mut World,
        bucket: &str,
        key: &str,
        by: i64,
        once: Option<&str>,
    ) -> Result<Counted, KeyvalueError> {
        let place = (bucket.to_owned(), key.to_owned());
        let held = world.facts.get(&place).map(|bytes| String::from_utf8_lossy(bytes).parse::<i64>());
        let no_counter = || KeyvalueError::Unavailable(format!("{bucket}/{key} is not a counter"));
        let before = held.transpose().map_err(|_| no_counter())?.unwrap_or(0);
        let token = once.map(|token| (place.0.clone(), place.1.clone(), token.to_owned()));
        if let Some(at) = token.as_ref().and_then(|token| world.tokens.get(token)) {
            return Ok(Counted { at: *at, total: before, first_time: false });
        }
        let total = before.saturating_add(by);
        if by != 0 || token.is_some() {
            world.facts.insert(place, total.to_string().into_bytes());
        }
        world.tokens.extend(token.map(|token| (token, total)));
        Ok(Counted { at: total, total, first_time: true })
    }

    fn write<T>(bucket: &str, change: impl FnOnce(&mut World) -> Result<T, KeyvalueError>) -> Result<T, KeyvalueError> {
        with(|world| {
            world.requests.bucket(bucket, "write").map_err(KeyvalueError::Denied)?;
            change(world)
        })
    }
}

pub mod http {
    use serde_json::{Value, json};

    use crate::http::{HttpError, Request, Response};
    use crate::testing::world::{Exchange, Object, with, written};

    /// Makes one request and waits for the whole response. Nothing is retried.
    pub fn fetch(request: &Request) -> Result<Response, HttpError> {
        with(|world| {
            if !request.url.starts_with("https://") && !request.url.starts_with("http://") {
                return Err(HttpError::Invalid(format!("{:?} is not an http or https URL", request.url)));
            }
            world.requests.http(&request.url).map_err(HttpError::Denied)?;
            match world.next_answer("http", asked(request)) {
                Ok(Exchange::Http { answer, .. }) => answer.outcome(),
                Ok(Exchange::Mail { .. }) => unreachable!("an HTTP answer was requested"),
                Err(why) => Err(HttpError::Connection(why)),
            }
        })
    }

    /// A request in the form of a case.
    fn asked(request: &Request) -> Value {
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
