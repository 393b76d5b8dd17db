// Reads the events of a mail provider, which posts them to `/v1/feedback/__NAME__/SECRET`.
//
// Without stdio: printf asks for files, and so for WASI's preview 1, which no component imports.

#include "gen/feedback_plugin.h"
#define ACE_WORLD feedback_plugin
#include "ace_json.h"

typedef exports_openedx_ace_feedback_own_request_t own_request;
typedef exports_openedx_ace_feedback_event_t event_t;
typedef exports_openedx_ace_feedback_received_t received_t;
typedef exports_openedx_ace_feedback_feedback_error_t feedback_error;

enum { REFUSED = EXPORTS_OPENEDX_ACE_FEEDBACK_FEEDBACK_ERROR_REFUSED, MALFORMED = EXPORTS_OPENEDX_ACE_FEEDBACK_FEEDBACK_ERROR_MALFORMED };

#define TEXT_BYTES_MAX 1024

bool exports_openedx_ace_feedback_enabled(ace_text *err) {
  ace_text secret;
  if (!ace_required("path-secret", &secret, err)) return false;
  ace_free(&secret);
  return true;
}

static bool fail(feedback_error *err, uint8_t tag, const char *why) {
  err->tag = tag;
  err->val.refused = ace_copy(why);
  return false;
}

// Whether the path is "/" and the secret. Compares without revealing by its duration how much is the same.
static bool is_from_provider(ace_text path) {
  ace_text secret, err;
  if (!ace_required("path-secret", &secret, &err)) {
    ace_free(&err);
    return false;
  }
  bool is_long = secret.len > 0 && path.len == secret.len + 1;
  uint8_t differs = 0;
  for (size_t i = 0; is_long && i < secret.len; i++) differs |= path.ptr[i + 1] ^ secret.ptr[i];
  ace_free(&secret);
  return is_long && differs == 0;
}

// A text of the body that the host accepts as an id or an address.
static bool read_text(ace_text body, const char *key, ace_text *text) {
  if (!ace_json_member_text(body, key, text)) return false;
  if (text->len > 0 && text->len <= TEXT_BYTES_MAX) return true;
  ace_free(text);
  return false;
}

static const char *kind_of(ace_text body) {
  ace_text type;
  if (!read_text(body, "type", &type)) return "unknown";
  const char *kind = ace_equals(type, "bounce") ? "bounced" : ace_equals(type, "complaint") ? "complained" : "unknown";
  ace_free(&type);
  return kind;
}

// One event. It is not vouched for, so it is shown but suppresses nobody: set `is_vouched` once a signature was verified.
static bool read_event(ace_text body, event_t *event, feedback_error *err) {
  // One event is short; a long body would only use up the time of the call.
  if (body.len > 16384) return fail(err, MALFORMED, "the body: it is longer than 16,384 bytes");
  if (!ace_json_is_valid(body)) return fail(err, MALFORMED, "the body: it is not JSON");
  if (!read_text(body, "id", &event->id)) return fail(err, MALFORMED, "the body: it has no text \"id\" of 1 to 1,024 bytes");
  event->kind = ace_copy(kind_of(body));
  event->message_id.is_some = read_text(body, "message", &event->message_id.val);
  event->reason.is_some = read_text(body, "code", &event->reason.val);
  event->is_permanent = event->reason.is_some && event->reason.val.ptr[0] == '5';
  event->address.is_some = read_text(body, "email", &event->address.val.f1);
  if (event->address.is_some) event->address.val.f0 = ace_copy("email");
  return true;
}

bool exports_openedx_ace_feedback_receive(own_request request, received_t *received, feedback_error *err) {
  memset(received, 0, sizeof *received);
  ace_text path;
  feedback_plugin_list_u8_t bytes;
  openedx_ace_incoming_method_request_path(openedx_ace_incoming_borrow_request(request), &path);
  openedx_ace_incoming_method_request_body(openedx_ace_incoming_borrow_request(request), &bytes);
  // An owned handle is dropped exactly once, on every way out.
  openedx_ace_incoming_request_drop_own(request);
  ace_text body = {bytes.ptr, bytes.len};
  event_t *event = calloc(1, sizeof *event);
  if (event == NULL) abort();
  bool is_read = is_from_provider(path) ? read_event(body, event, err)
                                        : fail(err, REFUSED, "the path does not end with the secret");
  ace_free(&path);
  ace_free(&body);
  if (!is_read) {
    free(event);
    return false;
  }
  received->events.ptr = event;
  received->events.len = 1;
  return true;
}
