//! The topics that messages may come from, and the URLs that belong to a topic.

/// A topic of SNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// `arn:aws:sns:REGION:ACCOUNT:NAME`.
    pub arn: String,
    /// The host of SNS in the topic's region: the only one that certificates and confirmations may be fetched from.
    host: String,
}

impl Topic {
    pub fn parse(arn: &str) -> Result<Topic, String> {
        let wrong = || format!("{arn:?} is not a topic, as in \"arn:aws:sns:eu-central-1:123456789012:ses-events\"");
        let parts: Vec<&str> = arn.split(':').collect();
        let ["arn", partition, "sns", region, account, name] = parts[..] else { return Err(wrong()) };
        let domain = match partition {
            "aws" | "aws-us-gov" => "amazonaws.com",
            "aws-cn" => "amazonaws.com.cn",
            _ => return Err(wrong()),
        };
        let is_region = region.len() > 2 && region.bytes().all(|b| is_lower_or_digit(b) || b == b'-');
        let is_account = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
        let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if !is_region || !is_account || name.is_empty() || !name.bytes().all(is_name) {
            return Err(wrong());
        }
        Ok(Topic { arn: arn.to_owned(), host: format!("sns.{region}.{domain}") })
    }

    /// The host and the file of a URL of a certificate, which is also the key under which the certificate is kept.
    pub fn certificate<'a>(&self, url: &'a str) -> Result<&'a str, String> {
        let rest = url.strip_prefix("https://").unwrap_or_default();
        let file =
            rest.strip_prefix(self.host.as_str()).and_then(|path| path.strip_prefix("/SimpleNotificationService-"));
        let id = file.and_then(|file| file.strip_suffix(".pem")).unwrap_or_default();
        if id.len() != 32 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!("SigningCertURL {url:?} is not a certificate of {}", self.host));
        }
        Ok(rest)
    }

    /// Checks that a URL confirms a subscription to this topic and does nothing else.
    pub fn check_subscribe_url(&self, url: &str, token: &str) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("SubscribeURL {what}"));
        let Some(query) = url.strip_prefix(&format!("https://{}/?", self.host)) else {
            return wrong(&format!("does not lead to {}", self.host));
        };
        if !query.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
            return wrong("has characters that a query does not have");
        }
        let mut pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
        pairs.sort();
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (&**name, &**value)).collect();
        match pairs[..] {
            [("Action", "ConfirmSubscription"), ("Token", given), ("TopicArn", topic)]
                if given == token && topic == self.arn =>
            {
                Ok(())
            }
            _ => wrong("does not confirm the subscription to this topic"),
        }
    }
}

fn is_lower_or_digit(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:sns:eu-central-1:123456789012:ses-events";

    fn topic() -> Topic {
        Topic::parse(ARN).expect("valid")
    }

    #[test]
    fn a_topic_decides_the_host() {
        assert_eq!(topic().host, "sns.eu-central-1.amazonaws.com");
        let china = Topic::parse("arn:aws-cn:sns:cn-north-1:123456789012:a").expect("valid");
        assert_eq!(china.host, "sns.cn-north-1.amazonaws.com.cn");
        for wrong in [
            "",
            "ses-events",
            "arn:aws:sqs:eu-central-1:123456789012:a",
            "arn:evil:sns:eu-central-1:123456789012:a",
            "arn:aws:sns:eu.evil:123456789012:a",
            "arn:aws:sns:eu-central-1:12:a",
            "arn:aws:sns:eu-central-1:123456789012:",
            "arn:aws:sns:eu-central-1:123456789012:a:b",
        ] {
            assert!(Topic::parse(wrong).expect_err(wrong).contains("is not a topic"), "{wrong}");
        }
    }

    #[test]
    fn certificates_come_from_the_topics_host_alone() {
        let file = "SimpleNotificationService-0123456789abcdef0123456789abcdef.pem";
        let key = format!("sns.eu-central-1.amazonaws.com/{file}");
        assert_eq!(topic().certificate(&format!("https://{key}")), Ok(key.as_str()));
        for wrong in [
            "http://sns.eu-central-1.amazonaws.com/",
            "https://sns.us-east-1.amazonaws.com/",
            "https://sns.eu-central-1.amazonaws.com.evil.example/",
            "https://sns.eu-central-1.amazonaws.com@evil.example/",
            "https://sns.eu-central-1.amazonaws.com:8443/",
            "https://evil.example/sns.eu-central-1.amazonaws.com/",
            "https://evil-sns.eu-central-1.amazonaws.com/",
            "https://sns.eu-central-1.amazonaws.com/a/../",
            "https://sns.eu-central-1.amazonaws.com/?Action=x&y=",
        ] {
            assert!(topic().certificate(&format!("{wrong}{file}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn certificates_have_the_names_that_sns_gives() {
        for wrong in [
            "",
            "a.pem",
            ".pem",
            "SimpleNotificationService-.pem",
            "SimpleNotificationService-0123456789abcdef.pem",
            "SimpleNotificationService-0123456789abcdef0123456789abcdef0.pem",
            "SimpleNotificationService-0123456789abcdef0123456789abcdeg.pem",
            "SimpleNotificationService-0123456789abcdef/../89abcdef0123.pem",
            "SimpleNotificationService-0123456789abcdef0123456789abcdef.crt",
            "a/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem",
        ] {
            let url = format!("https://sns.eu-central-1.amazonaws.com/{wrong}");
            assert!(topic().certificate(&url).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_confirmation_is_of_this_topic_alone() {
        let url = |host: &str, query: &str| format!("https://{host}/?{query}");
        let host = "sns.eu-central-1.amazonaws.com";
        let query = format!("Action=ConfirmSubscription&TopicArn={ARN}&Token=t1");
        assert_eq!(topic().check_subscribe_url(&url(host, &query), "t1"), Ok(()));
        let encoded = query.replace(':', "%3A");
        assert_eq!(topic().check_subscribe_url(&url(host, &encoded), "t1"), Ok(()));
        for wrong in [
            url("evil.example", &query),
            url("sns.eu-central-1.amazonaws.com.evil.example", &query),
            url(host, &query.replace("ses-events", "other")),
            url(host, &query.replace("ConfirmSubscription", "DeleteTopic")),
            url(host, &format!("{query}&TopicArn=arn:aws:sns:eu-central-1:123456789012:other")),
            url(host, &format!("{query}&AuthenticateOnUnsubscribe=true")),
            url(host, &query.replace("t1", "t2")),
            url(host, &format!("{query}#x")),
            format!("https://{host}:8443/?{query}"),
            format!("https://{host}/x?{query}"),
        ] {
            assert!(topic().check_subscribe_url(&wrong, "t1").is_err(), "{wrong}");
        }
    }
}
