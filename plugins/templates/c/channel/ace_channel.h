// Small helpers for channels: what `deliver` returns, HTTP, and what it reports about addresses. What is not called is not imported.
#ifndef ACE_CHANNEL_H
#define ACE_CHANNEL_H

#include "ace_json.h"

typedef exports_openedx_ace_channel_delivery_error_t ace_delivery_error;

// What `deliver` returns if it never works. Takes the text over.
static inline bool ace_fatal(ace_text why, ace_delivery_error *err) {
  memset(err, 0, sizeof *err);
  err->tag = EXPORTS_OPENEDX_ACE_CHANNEL_DELIVERY_ERROR_FATAL;
  err->val.fatal = why;
  return false;
}

// What `deliver` returns if it may pass. Takes the text over.
static inline bool ace_recoverable(ace_text why, ace_delivery_error *err) {
  memset(err, 0, sizeof *err);
  err->tag = EXPORTS_OPENEDX_ACE_CHANNEL_DELIVERY_ERROR_RECOVERABLE;
  err->val.recoverable.message = why;
  return false;
}

// What `deliver` returns if there is nothing to do: no address of this kind. Takes the text over.
static inline bool ace_skipped(ace_text why, ace_delivery_error *err) {
  memset(err, 0, sizeof *err);
  err->tag = EXPORTS_OPENEDX_ACE_CHANNEL_DELIVERY_ERROR_SKIPPED;
  err->val.skipped = why;
  return false;
}

// "http: " and the reason. Frees the error.
static inline bool ace_http_failed(openedx_ace_http_http_error_t *error, ace_delivery_error *err) {
  ace_text why = ace_copy("http: ");
  uint8_t tag = error->tag;
  if (tag == OPENEDX_ACE_HTTP_HTTP_ERROR_TIMED_OUT) {
    ace_append_text(&why, "no answer in time");
  } else if (tag == OPENEDX_ACE_HTTP_HTTP_ERROR_TOO_LARGE) {
    ace_append_text(&why, "the answer is too long");
  } else {
    if (tag == OPENEDX_ACE_HTTP_HTTP_ERROR_CONNECTION) ace_append_text(&why, "connection failed: ");
    ace_append(&why, error->val.denied.ptr, error->val.denied.len);
  }
  openedx_ace_http_http_error_free(error);
  bool may_pass = tag == OPENEDX_ACE_HTTP_HTTP_ERROR_TIMED_OUT || tag == OPENEDX_ACE_HTTP_HTTP_ERROR_CONNECTION;
  return may_pass ? ace_recoverable(why, err) : ace_fatal(why, err);
}

// As the above, for a request with a credential.
static inline bool ace_authorized_failed(openedx_ace_authorized_http_authorized_error_t *error, ace_delivery_error *err) {
  if (error->tag == OPENEDX_ACE_AUTHORIZED_HTTP_AUTHORIZED_ERROR_HTTP) return ace_http_failed(&error->val.http, err);
  bool is_rejected = error->tag == OPENEDX_ACE_AUTHORIZED_HTTP_AUTHORIZED_ERROR_REJECTED;
  ace_text reason = is_rejected ? error->val.rejected : error->val.unavailable.message;
  ace_text why = ace_copy(is_rejected ? "the credential is rejected: " : "no token: ");
  ace_append(&why, reason.ptr, reason.len);
  ace_recoverable(why, err);
  if (!is_rejected) err->val.recoverable.next_attempt_time = error->val.unavailable.next_attempt_time;
  openedx_ace_authorized_http_authorized_error_free(error);
  return false;
}

// One request whose answer must be a success (2xx); the answer is the caller's to free. `credential` is the plugin's own name for one
// that the host adds, or NULL. False: `err` says what happens next. 408, 425, 429, 5xx, time-outs, broken connections and what is
// wrong with a credential are recoverable, the rest is fatal. Needs the grant for the URL.
static inline bool ace_fetch_ok(
    openedx_ace_http_request_t *request, const char *credential, openedx_ace_http_response_t *response, ace_delivery_error *err) {
  if (credential == NULL) {
    openedx_ace_http_http_error_t error;
    if (!openedx_ace_http_fetch(request, response, &error)) return ace_http_failed(&error, err);
  } else {
    openedx_ace_authorized_http_authorized_error_t error;
    ace_text name = ace_borrowed(credential);
    if (!openedx_ace_authorized_http_fetch(request, &name, response, &error)) return ace_authorized_failed(&error, err);
  }
  uint16_t status = response->status;
  if (status >= 200 && status < 300) return true;
  openedx_ace_http_response_free(response);
  ace_text why = ace_copied((const char *)request->url.ptr, request->url.len);
  ace_append_text(&why, " answered ");
  ace_append_number(&why, status);
  bool may_pass = status == 408 || status == 425 || status == 429 || status >= 500;
  return may_pass ? ace_recoverable(why, err) : ace_fatal(why, err);
}

// The outcome for one address of the message. `kind` is that of the recipient's contacts, or "email". `outcome` is "sent"; "dropped",
// if the address does not exist any more and the application should delete it; "failed", if it does not get this message; or "retry".
// The provider's id of the message to this address and its error code are empty if there is none.
typedef struct {
  ace_text kind, address, outcome, provider_id, code;
} ace_note;

static inline void ace_append_member(ace_text *json, const char *key, ace_text value) {
  if (value.len == 0) return;
  ace_append_text(json, json->len > 1 ? ",\"" : "\"");
  ace_append_text(json, key);
  ace_append_text(json, "\":");
  ace_append_json(json, value);
}

// Notes the outcome for an address, within `deliver`; the texts stay the caller's. It replaces an earlier note on the same address.
// Later attempts do not get addresses that were sent, dropped or failed.
static inline void ace_note_outcome(ace_note note) {
  ace_text json = ace_copy("{");
  ace_append_member(&json, "kind", note.kind);
  ace_append_member(&json, "address", note.address);
  ace_append_member(&json, "outcome", note.outcome);
  ace_append_member(&json, "provider_id", note.provider_id);
  ace_append_member(&json, "code", note.code);
  ace_append_text(&json, "}");
  openedx_ace_delivery_note_outcome(&json);
  ace_free(&json);
}

// The notes of earlier attempts of this message, as a JSON list for ace_next_note. The text is the caller's to free.
static inline void ace_noted_outcomes(ace_text *json) { openedx_ace_delivery_noted_outcomes(json); }

static inline void ace_free_note(ace_note *note) {
  ace_text *texts[] = {&note->kind, &note->address, &note->outcome, &note->provider_id, &note->code};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) ace_free(texts[i]);
}

// The next note of such a list. `*at` is 0 for the first. False: there is none. Its texts are the caller's to free, by ace_free_note.
static inline bool ace_next_note(ace_text json, size_t *at, ace_note *note) {
  ace_text item;
  memset(note, 0, sizeof *note);
  if (!ace_json_next(json, at, &item)) return false;
  ace_json_member_text(item, "kind", &note->kind);
  ace_json_member_text(item, "address", &note->address);
  ace_json_member_text(item, "outcome", &note->outcome);
  ace_json_member_text(item, "provider_id", &note->provider_id);
  ace_json_member_text(item, "code", &note->code);
  return true;
}

// Stops the whole channel, within `deliver`: until a time in milliseconds since 1970, or with 0 until a message gets through. `reason`
// is one line for the operator. Return a recoverable error as well: it uses up no attempt of the message.
static inline void ace_hold_channel(const char *reason, uint64_t until) {
  ace_text why = ace_borrowed(reason);
  openedx_ace_delivery_hold_channel(until ? &until : NULL, &why);
}

#endif
