// A policy built against tests/compat/wit-1.1.0, which uses what 1.1.0 gave to policies: credentials, signatures and places in a window.
// It must not be changed. No printf, because stdio needs files, and therefore WASI preview 1.

#include <stdlib.h>
#include <string.h>

#include "policy_plugin.h"

typedef policy_plugin_string_t string;
typedef policy_plugin_list_u8_t bytes;
typedef exports_openedx_ace_policy_policy_result_t policy_result;

static string borrowed(const char *text) { return (string){(uint8_t *)text, strlen(text)}; }

static uint8_t digit(uint8_t c) { return (uint8_t)(c <= '9' ? c - '0' : c - 'a' + 10); }

static bool fail(string *err, const char *why) {
  policy_plugin_string_dup(err, why);
  return false;
}

static void deny(policy_result *verdict, const char *channel_type, const char *reason) {
  exports_openedx_ace_policy_denial_t *denial = calloc(1, sizeof *denial);
  if (denial == NULL) abort();
  policy_plugin_string_dup(&denial->channel_type, channel_type);
  denial->reason.is_some = true;
  policy_plugin_string_dup(&denial->reason.val, reason);
  verdict->deny.ptr = denial;
  verdict->deny.len = 1;
}

// Whether the signature, a JSON text of 64 digits, is one of "frozen".
static bool is_signed(string json, bool *is, string *err) {
  uint8_t signature[32];
  if (json.len != 66) return fail(err, "the signature has another length");
  for (size_t i = 0; i < 32; i++) signature[i] = (uint8_t)(digit(json.ptr[1 + 2 * i]) << 4 | digit(json.ptr[2 + 2 * i]));
  string credential = borrowed("consent"), algorithm = borrowed("hmac-sha256"), data = borrowed("frozen");
  bytes of = {data.ptr, data.len}, by = {signature, sizeof signature};
  openedx_ace_signatures_signature_error_t error;
  if (openedx_ace_signatures_verify(&credential, &algorithm, &of, &by, is, &error)) return true;
  openedx_ace_signatures_signature_error_free(&error);
  return fail(err, "the signature cannot be verified");
}

static bool has_consent(bool *has, string *err) {
  openedx_ace_http_request_t request = {.method = borrowed("GET"), .url = borrowed("https://consent.example.com/v1/7")};
  string credential = borrowed("consent");
  openedx_ace_http_response_t response;
  openedx_ace_authorized_http_authorized_error_t error;
  if (openedx_ace_authorized_http_fetch(&request, &credential, &response, &error)) {
    *has = response.status == 200;
    openedx_ace_http_response_free(&response);
    return true;
  }
  static const char *const tags[] = {"http", "rejected", "unavailable"};
  fail(err, tags[error.tag]);
  openedx_ace_authorized_http_authorized_error_free(&error);
  return false;
}

// Delays push until a place is free.
static bool take_place(string uuid, policy_result *verdict, string *err) {
  string bucket = borrowed("caps"), key = borrowed("window");
  openedx_ace_keyvalue_place_t place;
  openedx_ace_keyvalue_keyvalue_error_t error;
  if (!openedx_ace_keyvalue_take_place(&bucket, &key, &uuid, 1, 60000, &place, &error)) {
    openedx_ace_keyvalue_keyvalue_error_free(&error);
    return fail(err, "no place can be taken");
  }
  if (place.is_granted) return true;
  exports_openedx_ace_policy_delay_t *delay = calloc(1, sizeof *delay);
  if (delay == NULL) abort();
  policy_plugin_string_dup(&delay->channel_type, "push");
  delay->not_before = place.next_free.val;
  verdict->delay.ptr = delay;
  verdict->delay.len = 1;
  return true;
}

bool exports_openedx_ace_policy_enabled(string *err) {
  (void)err;
  return true;
}

bool exports_openedx_ace_policy_check(exports_openedx_ace_policy_own_message_t message, policy_result *verdict, string *err) {
  memset(verdict, 0, sizeof *verdict);
  openedx_ace_messages_borrow_message_t borrow = openedx_ace_messages_borrow_message(message);
  string pointer = borrowed("/signature"), json, uuid;
  openedx_ace_messages_method_message_uuid(borrow, &uuid);
  bool has_signature = openedx_ace_messages_method_message_context(borrow, &pointer, &json);
  openedx_ace_messages_message_drop_own(message);
  if (!has_signature) return fail(err, "there is no signature");
  bool is = false, has = false;
  if (!is_signed(json, &is, err)) return false;
  policy_plugin_string_free(&json);
  if (!is) {
    deny(verdict, "*", "forged");
    return true;
  }
  if (!has_consent(&has, err)) return false;
  if (!has) deny(verdict, "email", "no consent");
  bool is_answered = take_place(uuid, verdict, err);
  policy_plugin_string_free(&uuid);
  return is_answered;
}
