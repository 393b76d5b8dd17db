//! The features in a mail server's reply to EHLO.

use super::reply::Reply;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Features {
    pub(super) starttls: bool,
    pub(super) pipelining: bool,
    pub(super) smtputf8: bool,
    pub(super) eight_bit: bool,
    /// The maximum size of a mail (RFC 1870); 0 for no fixed maximum.
    pub(super) size: Option<usize>,
    /// The mechanisms of all AUTH lines, in upper case.
    pub(super) mechanisms: Vec<String>,
}

impl Features {
    /// Parses all lines except the first, which has the server's name. Keywords and mechanisms are case-insensitive (RFC 5321,
    /// section 4.1.1.1; RFC 4422, section 3.1). Some servers still use `AUTH=`, the form before RFC 2554.
    pub(super) fn read(reply: &Reply) -> Features {
        let mut features = Features::default();
        for line in reply.lines().skip(1) {
            let mut words = line.split([' ', '\t', '=']).filter(|word| !word.is_empty());
            match words.next().unwrap_or_default().to_ascii_uppercase().as_str() {
                "STARTTLS" => features.starttls = true,
                "PIPELINING" => features.pipelining = true,
                "SMTPUTF8" => features.smtputf8 = true,
                "8BITMIME" => features.eight_bit = true,
                "SIZE" => features.size = Some(words.next().and_then(|limit| limit.parse().ok()).unwrap_or(0)),
                "AUTH" => features.mechanisms.extend(words.map(str::to_ascii_uppercase)),
                _ => {}
            }
        }
        features
    }

    pub(super) fn offers_mechanism(&self, name: &str) -> bool {
        self.mechanisms.iter().any(|mechanism| mechanism == name)
    }
}

#[cfg(test)]
mod tests {
    use super::super::reply::Inbox;
    use super::*;

    fn read(reply: &str) -> Features {
        let mut inbox = Inbox::default();
        inbox.space().extend_from_slice(reply.as_bytes());
        Features::read(&inbox.take().unwrap().unwrap())
    }

    #[test]
    fn keywords_and_mechanisms_are_read_in_any_case_and_form() {
        let all = Features {
            starttls: true,
            pipelining: true,
            smtputf8: true,
            eight_bit: true,
            size: Some(1000),
            mechanisms: vec!["PLAIN".into(), "LOGIN".into()],
        };
        for auth in ["AUTH PLAIN LOGIN", "auth plain login", "Auth=Plain Login", "AUTH=PLAIN\r\n250-AUTH\tlogin"] {
            let reply = format!(
                "250-mx.example starttls\r\n250-StartTls\r\n250-pipelining\r\n250-size 1000\r\n250-8bitMIME\r\n\
                 250-{auth}\r\n250 smtpUTF8\r\n"
            );
            assert_eq!(read(&reply), all, "{auth}");
        }
        assert_eq!(read("250-a\r\n250 SIZE\r\n").size, Some(0));
        assert_eq!(read("250 mx.example PIPELINING\r\n"), Features::default());
    }
}
