//! Signs mail with DKIM (RFC 6376): RSA-SHA256 and Ed25519-SHA256 (RFC 8463), relaxed/relaxed.

use std::sync::Arc;

use mail_auth::common::crypto::{Algorithm, DkimKey, Sha256, SigningKey};
use mail_auth::common::headers::{HeaderWriter, Writable};
use mail_auth::dkim::{Canonicalization, DkimSigner};

use super::secret::FromSecret;
use crate::config::{Dkim, dkim_key};

/// The headers that are signed, as far as a mail has them. `From` is signed once more than it is there, so that nobody can add another
/// one; the last two are required for one-click unsubscribing (RFC 8058, section 4).
const SIGNED: [&str; 11] = [
    "From",
    "To",
    "Cc",
    "Subject",
    "Date",
    "Message-ID",
    "Reply-To",
    "MIME-Version",
    "Content-Type",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
];

/// The signatures of a relay's mail.
pub(super) struct Signer(Vec<Signature>);

struct Signature {
    settings: Dkim,
    key: FromSecret<DkimKey>,
}

impl Signer {
    /// `None` without signatures.
    pub(super) fn new(settings: &[Dkim]) -> Option<Signer> {
        let signature =
            |settings: &Dkim| Signature { settings: settings.clone(), key: FromSecret::new(&settings.key, dkim_key) };
        (!settings.is_empty()).then(|| Signer(settings.iter().map(signature).collect()))
    }

    /// The mail with all signatures, or why one of them cannot be made. `mail` is complete, but not yet dot-stuffed. Blocks: RSA takes
    /// up to a few milliseconds, and a key file that changed is read again.
    pub(super) fn sign(&self, mail: &str) -> Result<String, String> {
        let body = mail.find("\r\n\r\n").map_or(mail.len(), |end| end + 4);
        let headers = signed_headers(&mail[..body]);
        // mail-auth keeps an empty line for white space at the end of the body, which RFC 6376, section 3.4.4 removes.
        let end = body + mail[body..].trim_end_matches([' ', '\t', '\r', '\n']).len();
        let signatures = self.0.iter().map(|signature| signature.header(&headers, &mail.as_bytes()[..end]));
        let mut signed = signatures.collect::<Result<String, String>>()?;
        signed.push_str(mail);
        Ok(signed)
    }
}

/// The headers of a mail to sign.
fn signed_headers(head: &str) -> Vec<&'static str> {
    let is_there = |name: &str| {
        head.lines().any(|line| {
            let start = line.get(..name.len()).filter(|start| start.eq_ignore_ascii_case(name));
            start.is_some() && line[name.len()..].trim_start().starts_with(':')
        })
    };
    SIGNED.into_iter().filter(|name| is_there(name)).chain(["From"]).collect()
}

impl Signature {
    fn header(&self, headers: &[&'static str], mail: &[u8]) -> Result<String, String> {
        let Dkim { domain, selector, .. } = &self.settings;
        let failed = |problem: String| format!("the DKIM key {selector}._domainkey.{domain}: {problem}");
        let signer = DkimSigner::from_key(SharedKey(self.key.get().map_err(failed)?))
            .domain(domain)
            .selector(selector)
            .headers(headers.iter().copied())
            .header_canonicalization(Canonicalization::Relaxed)
            .body_canonicalization(Canonicalization::Relaxed);
        let header = signer.sign(mail).map_err(|error| failed(error.to_string()))?.to_header();
        // Some verifiers keep the white space between the signature and the semicolon.
        Ok(header.replace("\r\n\t;\r\n", ";\r\n"))
    }
}

/// A key that is shared by all mails.
struct SharedKey(Arc<DkimKey>);

impl SigningKey for SharedKey {
    type Hasher = Sha256;

    fn sign(&self, input: impl Writable) -> mail_auth::Result<Vec<u8>> {
        self.0.sign(input)
    }

    fn algorithm(&self) -> Algorithm {
        self.0.algorithm()
    }
}
