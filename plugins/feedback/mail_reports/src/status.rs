//! Status codes of delivery reports (RFC 3463), and which of them mean that an address does not exist.

/// A status code such as 5.1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status {
    class: u8,
    subject: u16,
    detail: u16,
}

/// Permanent failures that say nothing of the address (RFC 3463): the sender's address, a full mailbox, the length of the mail, a
/// loop, a delivery that took too long.
const SOFT: [(u16, u16); 6] = [(1, 7), (1, 8), (2, 2), (2, 3), (4, 6), (4, 7)];
/// Subjects that say nothing of the address: mail system, protocol, content, and security or policy.
const SOFT_SUBJECTS: [u16; 4] = [3, 5, 6, 7];
/// The reply code of SMTP for a mailbox that is full (RFC 5321, section 4.2.2).
const FULL: &str = "552";

impl Status {
    /// The code of a recipient: that of the field `Status`, or the one in the server's reply if the field says nothing more than that
    /// the delivery failed.
    pub(crate) fn of(status: Option<&str>, reply: &str) -> Option<Status> {
        let status = status.and_then(|text| Status::read(text.split_whitespace().next()?));
        match status {
            Some(Status { class, subject: 0, detail: 0 }) => {
                Status::of_reply(reply).filter(|reply| reply.class == class).or(status)
            }
            Some(_) => status,
            None => Status::of_reply(reply),
        }
    }

    /// The code in a reply such as `550 5.1.1 unknown user`.
    fn of_reply(reply: &str) -> Option<Status> {
        let mut words = reply.split(|c: char| c.is_whitespace() || c == '-');
        let code = words.next().filter(|code| code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit()));
        let enhanced = code.map_or(reply.split_whitespace().next(), |_| words.next());
        let enhanced = enhanced.and_then(|word| Status::read(word.trim_start_matches('#')));
        enhanced.or_else(|| match code? {
            FULL => Some(Status { class: 5, subject: 2, detail: 2 }),
            code => match code.as_bytes()[0] {
                class @ (b'2' | b'4' | b'5') => Some(Status { class: class - b'0', subject: 0, detail: 0 }),
                _ => None,
            },
        })
    }

    fn read(text: &str) -> Option<Status> {
        let mut numbers = text.split('.').map(|number| number.parse::<u16>().ok().filter(|number| *number < 1_000));
        let (class, subject, detail) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let class = u8::try_from(class).ok().filter(|class| matches!(class, 2 | 4 | 5))?;
        numbers.next().is_none().then_some(Status { class, subject, detail })
    }

    pub(crate) fn is_success(self) -> bool {
        self.class == 2
    }

    /// Whether it means that the address is not to be tried again.
    pub(crate) fn is_hard(self) -> bool {
        let is_soft = SOFT_SUBJECTS.contains(&self.subject) || SOFT.contains(&(self.subject, self.detail));
        self.class == 5 && !is_soft
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_failures_are_told_from_soft_ones() {
        let table = [
            (Some("5.1.1"), "", "5.1.1", true),
            (Some("5.1.1 (bad destination mailbox address)"), "", "5.1.1", true),
            (Some("5.0.0"), "", "5.0.0", true),
            (Some("5.4.4"), "", "5.4.4", true),
            (Some("5.2.1"), "", "5.2.1", true),
            (Some("5.1.7"), "", "5.1.7", false),
            (Some("5.1.8"), "", "5.1.8", false),
            (Some("5.1.10"), "", "5.1.10", true),
            (Some("5.2.2"), "", "5.2.2", false),
            (Some("5.2.3"), "", "5.2.3", false),
            (Some("5.3.0"), "", "5.3.0", false),
            (Some("5.3.4"), "", "5.3.4", false),
            (Some("5.4.6"), "", "5.4.6", false),
            (Some("5.4.7"), "", "5.4.7", false),
            (Some("5.5.0"), "", "5.5.0", false),
            (Some("5.6.1"), "", "5.6.1", false),
            (Some("5.7.1"), "", "5.7.1", false),
            (Some("5.7.509"), "", "5.7.509", false),
            (Some("4.4.1"), "", "4.4.1", false),
            (Some("2.0.0"), "", "2.0.0", false),
            // What the server replied is more exact.
            (Some("5.0.0"), "550 5.7.1 blocked", "5.7.1", false),
            (Some("5.0.0"), "550-5.1.1 no such user", "5.1.1", true),
            (Some("5.0.0"), "552 too much", "5.2.2", false),
            (Some("5.0.0"), "450 4.2.1 later", "5.0.0", true),
            (Some("5.1.1"), "550 5.7.1 blocked", "5.1.1", true),
            (None, "550 5.1.1 no such user", "5.1.1", true),
            (None, "550 #5.1.0 Address rejected.", "5.1.0", true),
            (None, "550 no such user", "5.0.0", true),
            (None, "451 later", "4.0.0", false),
            (None, "5.1.1 no such user", "5.1.1", true),
            (Some("five"), "550 no such user", "5.0.0", true),
        ];
        for (status, reply, expected, is_hard) in table {
            let read = Status::of(status, reply).unwrap_or_else(|| panic!("{status:?} {reply}"));
            assert_eq!((read.to_string().as_str(), read.is_hard()), (expected, is_hard), "{status:?} {reply}");
        }
        for text in ["", "5", "5.1", "5.1.1.1", "3.1.1", "9.1.1", "5.1000.1", "5.-1.1", "555", "é50 x", "999 what"] {
            assert_eq!(Status::of(Some(text), text).filter(|_| text != "555"), None, "{text}");
        }
    }
}
