"""Writes cases.json: requests of SNS with the signatures of a key and a certificate that are made for tests.

    target/venv/bin/python plugins/feedback/ses/tests/make.py            write the file
    target/venv/bin/python plugins/feedback/ses/tests/make.py --check    compare; exit 1 if it differs
"""
import base64
import json
import sys
from datetime import datetime, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.x509.oid import NameOID

FILE = Path(__file__).with_name("cases.json")
ROOT = Path(__file__).resolve().parents[4]
HOST = "sns.us-east-1.amazonaws.com"
TOPIC = "arn:aws:sns:us-east-1:123456789012:ses-events"
CERTIFICATE_KEY = f"{HOST}/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem"
CERTIFICATE_URL = f"https://{CERTIFICATE_KEY}"
NOW = "2026-03-01T12:00:00Z"
# The tags of a request that is the same from ses_email and botocore, so that both plugins use the same names.
SENT = json.loads((ROOT / "tests/fixtures/vendors/ses.json").read_text(encoding="utf-8"))
UUID = SENT["uuid"]
TAGS = {tag["Name"]: [tag["Value"]] for tag in json.loads(SENT["requests"][0]["request"]["body"])["EmailTags"]}
HASHES = {"1": hashes.SHA1(), "2": hashes.SHA256()}
SIGNED = {
    "Notification": ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"],
    "SubscriptionConfirmation": ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"],
}
SIGNED["UnsubscribeConfirmation"] = SIGNED["SubscriptionConfirmation"]


def key():
    pem = (ROOT / "tests/fixtures/dkim/rsa_pkcs8.pem").read_bytes()
    return serialization.load_pem_private_key(pem, password=None)


def authority_key():
    account = json.loads((ROOT / "host/ace/src/credentials/tests/service_account.json").read_text())
    return serialization.load_pem_private_key(account["private_key"].encode(), password=None)


def certificate():
    """A certificate of a test authority. Nothing in it is random."""
    def name(text):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    builder = x509.CertificateBuilder().subject_name(name("sns.test")).issuer_name(name("ACE test CA")).serial_number(7)
    start, end = datetime(2026, 1, 1, tzinfo=timezone.utc), datetime(2036, 1, 1, tzinfo=timezone.utc)
    builder = builder.not_valid_before(start).not_valid_after(end).public_key(key().public_key())
    return builder.sign(authority_key(), hashes.SHA256())


def text_of(body):
    return "".join(f"{name}\n{body[name]}\n" for name in SIGNED[body["Type"]] if name in body)


def signed(**fields):
    """A message of SNS with its signature."""
    body = {"Type": "Notification", "MessageId": "m-1", "TopicArn": TOPIC, "Timestamp": "2026-03-01T11:59:58.000Z", "SignatureVersion": "2", "SigningCertURL": CERTIFICATE_URL} | fields
    signature = key().sign(text_of(body).encode(), padding.PKCS1v15(), HASHES[body["SignatureVersion"]])
    return body | {"Signature": base64.b64encode(signature).decode()}


def mail(**more):
    return {"messageId": "0107-a", "timestamp": "2026-03-01T11:59:00.000Z", "source": "no-reply@campus.example", "destination": ["zoe@learner.example"]} | more


def event(kind, mail=mail(tags=TAGS | {"ses:configuration-set": ["main"]}), **parts):
    return json.dumps({"eventType": kind, "mail": mail} | parts)


def request(body, kind=None):
    return {"headers": {"x-amz-sns-message-type": kind or body["Type"], "content-type": "text/plain; charset=UTF-8"}, "body": body}


FACTS = {"sns-certificates": {CERTIFICATE_KEY: base64.b64encode(certificate().public_bytes(serialization.Encoding.DER)).decode()}}


def case(name, body, expect, kind=None, facts=FACTS, **more):
    return {"name": name, "now": NOW, "config": {"topics": [TOPIC]}, "facts": facts, "request": request(body, kind), "expect": expect, **more}


def seen(kind, at, id, address="zoe@learner.example", permanent=False, **more):
    about = {"address": {"kind": "email", "address": address}} if address else {}
    common = {"id": f"{id}:{kind}:{at}:{address}", "kind": kind, "at": at.replace(".000Z", "Z"), "permanent": permanent, "vouched": True}
    return common | {"message_uuid": UUID, "provider_id": "0107-a"} | about | more


def received(*events):
    return {"received": {"events": list(events)}}


AT = "2026-03-01T11:59:30.000Z"
BOUNCED = [{"emailAddress": "zoe@learner.example", "action": "failed", "status": "5.1.1", "diagnosticCode": "smtp; 550 5.1.1 unknown user"}]


def bounce(kind="Permanent", subtype="General", recipients=BOUNCED):
    return {"bounceType": kind, "bounceSubType": subtype, "bouncedRecipients": recipients, "feedbackId": "f-1", "timestamp": AT}


def complaint(kind):
    return {"complainedRecipients": [{"emailAddress": "zoe@learner.example"}], "complaintFeedbackType": kind, "userAgent": "mailbox", "feedbackId": "f-2", "timestamp": AT}


def hard(**more):
    common = {"permanent": True, "reason": "5.1.1 smtp; 550 5.1.1 unknown user", "detail": {"type": "Permanent", "subtype": "General"}}
    return seen("bounced", AT, "f-1", **common | more)


def delayed(action, status):
    return [{"emailAddress": "zoe@learner.example", "action": action, "status": status}]


def soft_bounce(status):
    return hard(permanent=False, reason=status)


def confirmation(url=None, token="t-1", **more):
    url = url or f"https://{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token={token}"
    return signed(Type="SubscriptionConfirmation", Message="You have chosen to subscribe.", Token=token, SubscribeURL=url, **more)


def fetched(url, status=200, body=""):
    return [{"http": {"request": {"method": "GET", "url": url}, "answer": {"status": status, "body": body}}}]


def events():
    preferences = {"unsubscribeAll": True, "topicSubscriptionStatus": [{"topicName": "news", "subscriptionStatus": "OptOut"}]}
    subscription = {"contactList": "campus", "timestamp": AT, "source": "UnsubscribeHeader", "newTopicPreferences": preferences, "oldTopicPreferences": preferences | {"unsubscribeAll": False}}
    soft = [{"emailAddress": "zoe@learner.example"}]
    delay = {"timestamp": AT, "delayType": "MailboxFull", "delayedRecipients": [{"emailAddress": "zoe@learner.example", "status": "4.2.2"}]}
    sent = "2026-03-01T11:59:00.000Z"
    return [
        ("a hard bounce", event("Bounce", bounce=bounce()), [hard()]),
        ("a full mailbox", event("Bounce", bounce=bounce("Transient", "MailboxFull", soft)), [seen("bounced", AT, "f-1", reason="MailboxFull", detail={"type": "Transient", "subtype": "MailboxFull"})]),
        ("a permanent bounce whose report says delayed", event("Bounce", bounce=bounce(recipients=delayed("delayed", "5.0.0"))), [soft_bounce("5.0.0")]),
        ("a permanent bounce whose status is temporary", event("Bounce", bounce=bounce(recipients=delayed("failed", "4.0.0"))), [soft_bounce("4.0.0")]),
        ("a complaint", event("Complaint", complaint=complaint("abuse")), [seen("complained", AT, "f-2", reason="abuse")]),
        ("a person who says that it is no spam", event("Complaint", complaint=complaint("not-spam")), [seen("not-spam", AT, "f-2", reason="not-spam")]),
        ("a report of a virus", event("Complaint", complaint=complaint("virus")), [seen("virus", AT, "f-2", reason="virus")]),
        ("a complaint without a type", event("Complaint", complaint=complaint(None)), [seen("complained", AT, "f-2")]),
        ("a delivery", event("Delivery", delivery={"timestamp": AT, "recipients": ["zoe@learner.example"], "smtpResponse": "250 ok"}), [seen("delivered", AT, "0107-a", reason="250 ok")]),
        ("a delay", event("DeliveryDelay", deliveryDelay=delay), [seen("deferred", AT, "0107-a", reason="4.2.2")]),
        ("a rejected mail", event("Reject", reject={"reason": "Bad content"}), [seen("failed", sent, "0107-a", reason="Bad content")]),
        ("a template that fails", event("Rendering Failure", failure={"errorMessage": "no name", "templateName": "t"}), [seen("failed", sent, "0107-a", reason="no name")]),
        ("an open", event("Open", open={"timestamp": AT, "ipAddress": "192.0.2.1", "userAgent": "mailbox"}), [seen("opened", AT, "0107-a")]),
        ("a click", event("Click", click={"timestamp": AT, "link": "https://campus.example/c", "ipAddress": "192.0.2.1"}), [seen("clicked", AT, "0107-a", detail={"link": "https://campus.example/c"})]),
        ("a person who unsubscribes", event("Subscription", subscription=subscription), [seen("unsubscribed", AT, "0107-a", detail={"contact_list": "campus"})]),
        ("an accepted mail has no event", event("Send", send={}), []),
        ("SES's test of a topic has no event", "Successfully validated SNS topic for Amazon SES event publishing.", []),
    ]


def several():
    pair = [{"emailAddress": "a@learner.example"}, {"emailAddress": "b@learner.example"}]
    wide = mail(destination=["a@learner.example", "b@learner.example"], headers=[{"name": "Message-ID", "value": "<7.django_email@campus.example>"}])
    bounced = json.dumps({"notificationType": "Bounce", "mail": wide, "bounce": bounce(recipients=pair)})
    plain = {"kind": "bounced", "permanent": True, "message_id": "7.django_email@campus.example", "provider_id": "0107-a"}
    each = [plain | {"id": f"f-1:bounced:{AT}:{one['emailAddress']}", "address": {"kind": "email", "address": one["emailAddress"]}} for one in pair]
    strange = event("Bounce", bounce=bounce(recipients=[BOUNCED[0] | {"emailAddress": "ann@learner.example"}]))
    formed = event("Bounce", mail=mail(destination=["Zo\u00eb <ZOE@Learner.example>"], tags=TAGS), bounce=bounce())
    opened = event("Open", mail=wide, open={"timestamp": AT})
    return [
        case("a notification about several addresses of a relay's mail", signed(Message=bounced), received(*each)),
        case("a bounce of an address that the mail was not sent to", signed(Message=strange), received(hard(address="ann@learner.example", vouched=False))),
        case("an address in another form", signed(Message=formed), received(hard())),
        case("an open by one of several people", signed(Message=opened), received({"id": f"0107-a:opened:{AT}:", "kind": "opened"})),
    ]


def refusals():
    good = signed(Message=event("Bounce", bounce=bounce()))
    other = TOPIC.replace("ses-events", "evil")
    foreign = "https://sns.us-east-1.amazonaws.com.evil.example/a.pem"
    wrong = {"request_refused": "the signature is wrong"}
    yield case("a changed message", good | {"Message": good["Message"].replace("zoe@", "ann@")}, wrong)
    yield case("a changed time", good | {"Timestamp": "2026-03-01T11:59:59.000Z"}, wrong)
    yield case("a removed subject", {k: v for k, v in signed(Message="x", Subject="s").items() if k != "Subject"}, wrong)
    yield case("a signature of the other version", good | {"SignatureVersion": "1"}, wrong)
    yield case("an unknown version", good | {"SignatureVersion": "3"}, {"request_refused": "SignatureVersion \"3\" is unknown"})
    yield case("no Base64", good | {"Signature": "%"}, {"request_refused": "the signature is not Base64"})
    yield case("a header of another type", good, {"request_refused": "x-amz-sns-message-type is not the Type of the body"}, kind="SubscriptionConfirmation")
    yield case("a certificate of another host is not fetched", signed(Message="x", SigningCertURL=foreign), {"request_refused": f"SigningCertURL \"{foreign}\" is not a certificate of {HOST}"})
    yield case("a valid message of another topic", signed(Message="x", TopicArn=other), {"request_refused": f"\"{other}\" is not in config key \"topics\""})
    yield case("a valid confirmation of another topic is not fetched", confirmation(url=f"https://{HOST}/?Action=ConfirmSubscription&TopicArn={other}&Token=t-1", TopicArn=other), {"request_refused": f"\"{other}\" is not in config key \"topics\""})
    yield case("a valid confirmation that leads to another topic is not fetched", confirmation(url=f"https://{HOST}/?Action=ConfirmSubscription&TopicArn={other}&Token=t-1"), {"request_refused": "SubscribeURL does not confirm the subscription to this topic"})
    yield case("a valid confirmation that leads to another host is not fetched", confirmation(url="https://evil.example/"), {"request_refused": f"SubscribeURL does not lead to {HOST}"})
    yield case("an old message is replayed", signed(Message="x", Timestamp="2026-02-28T11:59:59.000Z"), {"request_refused": "its Timestamp is not of the last day"})
    yield case("raw delivery has no signature", {"eventType": "Bounce"}, {}, kind="Notification") | {"expect": {"request_refused": "not a message of SNS: missing field `Type` at line 1 column 22"}}
    yield case("an event that cannot be read", signed(Message="{\"eventType\": 7}"), {"malformed": "Message: invalid type: integer `7`, expected a string at line 1 column 15"})


def certificates():
    good, bounced = signed(Message=event("Bounce", bounce=bounce())), received(hard())
    pem = certificate().public_bytes(serialization.Encoding.PEM).decode()
    yield case("a certificate is fetched once and kept", good, bounced, facts={}, host=fetched(CERTIFICATE_URL, body=pem), facts_after=FACTS)
    missing = {"request_refused": f"{CERTIFICATE_URL} answered 404"}
    yield case("a certificate that cannot be fetched", good, missing, facts={}, host=fetched(CERTIFICATE_URL, 404), facts_after={"sns-certificates": {CERTIFICATE_KEY: None}})
    down = {"unavailable": f"{CERTIFICATE_URL} answered 503"}
    yield case("a certificate that cannot be fetched now", good, down, facts={}, host=fetched(CERTIFICATE_URL, 503), facts_after={"sns-certificates": {CERTIFICATE_KEY: None}})
    made_up = f"https://{HOST}/0123456789abcdef0123456789abcdef.pem"
    yield case("a file that is no certificate of SNS is not fetched", signed(Message="x", SigningCertURL=made_up), {"request_refused": f"SigningCertURL \"{made_up}\" is not a certificate of {HOST}"}, host=[])
    html = {"unavailable": f"{CERTIFICATE_URL} is not a certificate: <html>"}
    yield case("a page in its place is not kept", good, html, facts={}, host=fetched(CERTIFICATE_URL, body="<html>"), facts_after={"sns-certificates": {CERTIFICATE_KEY: None}})


def confirmations():
    body = confirmation()
    yield case("a subscription is confirmed", body, received(), host=fetched(body["SubscribeURL"], body="<ConfirmSubscriptionResponse/>"))
    yield case("a confirmation that fails is repeated", body, {"unavailable": f"https://{HOST}/ answered 500"}, host=fetched(body["SubscribeURL"], 500))
    yield case("a removed subscription is not restored", signed(Type="UnsubscribeConfirmation", Message="x", Token="t-1", SubscribeURL=body["SubscribeURL"]), received(), host=[])


def settings():
    body = signed(Message="x")
    yield case("no topics", body, {"refused": "it says it cannot work: config key \"topics\": it is not set"}, config={})
    yield case("a topic of nothing", body, {"refused": "it says it cannot work: config key \"topics\": \"x\" is not a topic, as in \"arn:aws:sns:eu-central-1:123456789012:ses-events\""}, config={"topics": ["x"]})


def cases():
    all = [case(name, signed(Message=message), received(*expected)) for name, message, expected in events()]
    bounced = event("Bounce", bounce=bounce())
    all.append(case("the older signature", signed(Message=bounced, SignatureVersion="1"), received(hard())))
    all.append(case("a subject is signed too", signed(Message=bounced, Subject="Amazon SES"), received(hard())))
    return [*all, *several(), *refusals(), *certificates(), *confirmations(), *settings()]


def main():
    text = json.dumps(cases(), indent=1, ensure_ascii=False) + "\n"
    if "--check" not in sys.argv:
        FILE.write_text(text, encoding="utf-8")
    elif FILE.read_text(encoding="utf-8") != text:
        sys.exit("make.py: plugins/feedback/ses/tests/cases.json is not what the script writes; run it, then read the difference")


if __name__ == "__main__":
    main()
