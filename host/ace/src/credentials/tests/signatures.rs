//! Tokens and signatures that are made here. `tests/signatures.rs` of the project has them checked by independent implementations.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, KeyPair, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use serde_json::{Value, json};

use super::server::Server;
use super::*;
use crate::config::credentials::keys::ServiceAccount;

const ACCOUNT: &str = include_str!("service_account.json");

/// The header and the claims of a token whose signature is good.
fn verified(token: &str, algorithm: &'static dyn VerificationAlgorithm, key: &[u8]) -> (Value, Value) {
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!("{token}") };
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).expect("base64url");
    let text = format!("{header}.{claims}");
    UnparsedPublicKey::new(algorithm, key).verify(text.as_bytes(), &decode(signature)).expect("a good signature");
    let json = |part: &str| serde_json::from_slice(&decode(part)).expect("JSON");
    (json(header), json(claims))
}

fn ec_public() -> Vec<u8> {
    keys::ec_key(EC_KEY).expect("a key").public_key().as_ref().to_vec()
}

#[tokio::test]
async fn apple_gets_the_key_and_the_team() {
    let text = one("apns", "key = { env = 'EC_KEY' }\nkey-id = 'ABC123DEFG'\nteam-id = 'DEF123GHIJ'");
    let mut request = Sent::new("https://api.example/v1/");
    request.authorize(&credentials(&text)).await.unwrap();
    let token = request.header("authorization").strip_prefix("bearer ").expect("a token");
    let (header, claims) = verified(token, &ECDSA_P256_SHA256_FIXED, &ec_public());
    assert_eq!(header, json!({"alg": "ES256", "typ": "JWT", "kid": "ABC123DEFG"}));
    assert_eq!(claims, json!({"iss": "DEF123GHIJ", "iat": START.as_second()}));
}

#[tokio::test]
async fn google_gets_an_assertion_of_the_account() {
    let server = Server::with_lifetime(3599).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("account.json");
    std::fs::write(&file, ACCOUNT.replace("https://oauth2.example/token", &server.url)).expect("written");
    let key = format!("key = {{ file = '{}' }}\nsubject = 'someone@example.com'", file.display());
    let mut request = Sent::new("https://api.example/v1/");
    request.authorize(&credentials(&one("google-service-account", &key))).await.unwrap();
    assert_eq!(request.header("authorization"), "Bearer t0");
    let asked = &server.asked()[0];
    assert_eq!(asked.field("grant_type"), "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let account = ServiceAccount::parse(ACCOUNT).expect("an account");
    let public = account.key.public_key().as_ref();
    let (header, claims) = verified(asked.field("assertion"), &RSA_PKCS1_2048_8192_SHA256, public);
    assert_eq!(header, json!({"alg": "RS256", "typ": "JWT", "kid": "key-1"}));
    let expected = json!({
        "iss": "tests@example.iam.gserviceaccount.com",
        "scope": "https://www.googleapis.com/auth/firebase.messaging",
        "aud": server.url,
        "iat": START.as_second(),
        "exp": START.as_second() + 3600,
        "sub": "someone@example.com",
    });
    assert_eq!(claims, expected);
}

#[tokio::test]
async fn a_push_service_gets_a_token_for_its_origin() {
    let text = "[credentials.c]\nkind = 'vapid'\nurls = ['https://*/', 'https://updates.push.test:8443/']\nkey = { env = 'EC_KEY' }\nsubject = 'mailto:push@example.com'";
    let credentials = credentials(text);
    let authorization = async |url: &str| {
        let mut request = Sent::new(url);
        request.authorize(&credentials).await.map(|_| request.header("authorization").to_owned())
    };
    let first = authorization("https://updates.push.test:8443/wpush/v2/abc").await.unwrap();
    let (token, key) = first.strip_prefix("vapid t=").and_then(|rest| rest.split_once(",k=")).expect("two parts");
    assert_eq!(URL_SAFE_NO_PAD.decode(key).expect("base64url"), ec_public());
    let (header, claims) = verified(token, &ECDSA_P256_SHA256_FIXED, &ec_public());
    assert_eq!(header, json!({"alg": "ES256", "typ": "JWT"}));
    let (audience, end) = ("https://updates.push.test:8443", START.as_second() + 12 * 3600);
    assert_eq!(claims, json!({"aud": audience, "exp": end, "sub": "mailto:push@example.com"}));
    assert_eq!(authorization("https://updates.push.test:8443/wpush/v2/other").await.unwrap(), first);
    assert_ne!(authorization("https://fcm.googleapis.com/wp/abc").await.unwrap(), first);
    pass(SignedDuration::from_hours(1));
    assert_ne!(authorization("https://updates.push.test:8443/wpush/v2/abc").await.unwrap(), first);
}

#[test]
fn a_key_of_web_push_tools_is_read_in_both_forms() {
    // As `web-push generate-vapid-keys` writes them.
    let public = keys::public_half(&keys::ec_key(EC_KEY).expect("a key"));
    let der = pem_bytes(EC_KEY);
    let at = der.windows(3).position(|window| window == [0x02, 0x01, 0x01]).expect("the private key") + 5;
    let private = URL_SAFE_NO_PAD.encode(&der[at..at + 32]);
    let pair = keys::vapid_key(&private, Some(&public)).expect("a key");
    assert_eq!(keys::public_half(&pair), public);
    assert!(keys::vapid_key(&private, None).is_err() && keys::vapid_key("s3cret", Some(&public)).is_err());
}

fn pem_bytes(pem: &str) -> Vec<u8> {
    use rustls::pki_types::pem::PemObject;
    rustls::pki_types::PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).expect("PEM").secret_pkcs8_der().to_vec()
}

#[tokio::test]
async fn aws_requests_are_signed_with_the_token_of_a_temporary_key() {
    let text = one(
        "aws-sigv4",
        "access-key-id = 'AKIDEXAMPLE'\nsecret-access-key = { env = 'AWS_KEY' }\nsession-token = { env = 'TOKEN' }\nregion = 'eu-central-1'\nservice = 'ses'",
    );
    let credentials = credentials(&text);
    let mut request =
        Sent::new("https://api.example/v1/send").with("content-type", "application/json").with("x-other", "1");
    let authorized = request.authorize(&credentials).await.unwrap();
    let authorization = request.header("authorization");
    let start = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261130/eu-central-1/ses/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, Signature=";
    assert!(authorization.starts_with(start), "{authorization}");
    assert_eq!(
        (request.header("x-amz-date"), request.header("x-amz-security-token")),
        ("20261130T120000Z", "s3cret-one")
    );
    assert!(request.headers["x-amz-security-token"].is_sensitive());
    let judge = |status, header: &str, body: &str| {
        let headers = [("x-amzn-errortype", header)].map(|(name, value)| {
            (http::HeaderName::from_static(name), HeaderValue::from_str(value).expect("a header"))
        });
        credentials.answered(&authorized, status, &HeaderMap::from_iter(headers), body.as_bytes())
    };
    let rejected = |code: &str| Judgement::Rejected(format!("the credential \"c\" was refused: 403 {code}"));
    let (forbidden, xml) = (StatusCode::FORBIDDEN, "<Error><Code>InvalidClientTokenId</Code></Error>");
    assert_eq!(judge(forbidden, "ExpiredTokenException:http://x/", ""), rejected("ExpiredToken"));
    assert_eq!(judge(forbidden, "", xml), rejected("InvalidClientTokenId"));
    assert_eq!(judge(forbidden, "AccessDeniedException", ""), Judgement::Fine);
    assert_eq!(judge(StatusCode::OK, "", xml), Judgement::Fine);
    let mut again = Sent::new("https://api.example/v1/").with("x-amz-date", "20261130T120000Z");
    let refusal = again.authorize(&credentials).await.unwrap_err().to_string();
    assert_eq!(refusal, "the credential \"c\" sets the header x-amz-date; do not set it too");
}

#[tokio::test]
async fn a_client_certificate_is_for_who_connects() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).expect("written");
        file.display().to_string()
    };
    let made = |names: &str| rcgen::generate_simple_self_signed([names.to_owned()]).expect("a certificate");
    let (one_pair, other_pair) = (made("one.example"), made("two.example"));
    let files = |name: &str, pair: &rcgen::CertifiedKey<rcgen::KeyPair>| {
        let certificate = write(&format!("{name}.pem"), &pair.cert.pem());
        let key = write(&format!("{name}.key"), &pair.signing_key.serialize_pem());
        one("client-certificate", &format!("certificate = '{certificate}'\nkey = {{ file = '{key}' }}"))
    };
    let (first, other) = (credentials(&files("one", &one_pair)), credentials(&files("two", &other_pair)));
    let identity = first.identity("c").await.unwrap().expect("an identity");
    let same = first.identity("c").await.unwrap().expect("an identity");
    let different = other.identity("c").await.unwrap().expect("an identity");
    assert_eq!(identity.fingerprint(), same.fingerprint());
    assert_ne!(identity.fingerprint(), different.fingerprint());
    assert!(crate::tls::client_config_as(None, &identity).expect("settings").client_auth_cert_resolver.has_certs());
    let mut request = Sent::new("https://api.example/v1/");
    request.authorize(&first).await.unwrap();
    assert!(request.headers.is_empty());
    assert!(Sent::new("https://other.example/").authorize(&first).await.is_err());
    assert!(credentials(&one("bearer", "token = { env = 'TOKEN' }")).identity("c").await.unwrap().is_none());
}

#[tokio::test]
async fn aws_requests_have_the_signature_of_botocore() {
    let recorded = include_str!("../../../../../tests/fixtures/vendors/ses.json");
    let recorded: Value = serde_json::from_str(recorded).expect("the recording is JSON");
    let settings = "urls = ['https://email.eu-central-1.amazonaws.com/']\naccess-key-id = 'AKIDEXAMPLE'\nsecret-access-key = { env = 'AWS_KEY' }\nregion = 'eu-central-1'\nservice = 'ses'";
    let credentials = credentials(&format!("[credentials.c]\nkind = 'aws-sigv4'\n{settings}\n"));
    for case in recorded["requests"].as_array().expect("requests") {
        let (theirs, text) = (&case["request"], |value: &Value| value.as_str().expect("text").to_owned());
        let url = format!("https://{}{}", text(&theirs["host"]), text(&theirs["path"]));
        let mut request = Sent::new(&url).with("content-type", &text(&theirs["headers"]["content-type"]));
        request.body = text(&theirs["body"]).into_bytes();
        request.authorize(&credentials).await.unwrap();
        for name in ["authorization", "x-amz-date"] {
            assert_eq!(request.header(name), text(&theirs["headers"][name]), "{}", case["case"]);
        }
    }
}
