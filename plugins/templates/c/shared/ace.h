// Small helpers over the generated bindings: texts that are borrowed, copied and joined, settings and options, and JSON that is written;
// ace_json.h reads JSON. What is not called is not imported. Include it after the header of the world, with ACE_WORLD set to its prefix:
//
//   #include "policy_plugin.h"
//   #define ACE_WORLD policy_plugin
//   #include "ace.h"
#ifndef ACE_H
#define ACE_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define ACE_JOIN_(a, b) a##b
#define ACE_JOIN(a, b) ACE_JOIN_(a, b)

// UTF-8, not ended by a zero byte.
typedef ACE_JOIN(ACE_WORLD, _string_t) ace_text;
typedef ACE_JOIN(ACE_WORLD, _list_u8_t) ace_bytes;

// A text that stays where it is: an argument for an import. Never to be freed.
static inline ace_text ace_borrowed(const char *text) { return (ace_text){(uint8_t *)text, strlen(text)}; }

// A copy of its own: for what is returned, whose memory the bindings free.
static inline ace_text ace_copied(const char *text, size_t length) {
  ace_text copy = {malloc(length ? length : 1), length};
  if (copy.ptr == NULL) abort();
  memcpy(copy.ptr, text, length);
  return copy;
}

static inline ace_text ace_copy(const char *text) { return ace_copied(text, strlen(text)); }

static inline bool ace_equals(ace_text text, const char *other) {
  return text.len == strlen(other) && memcmp(text.ptr, other, text.len) == 0;
}

// Frees a text that the host handed out, or that ace_copy made.
static inline void ace_free(ace_text *text) { ACE_JOIN(ACE_WORLD, _string_free)(text); }

// Adds to a text that was made by ace_copy, or is {NULL, 0}.
static inline void ace_append(ace_text *line, const void *text, size_t length) {
  line->ptr = realloc(line->ptr, line->len + length + 1);
  if (line->ptr == NULL) abort();
  memcpy(line->ptr + line->len, text, length);
  line->len += length;
}

static inline void ace_append_text(ace_text *line, const char *text) { ace_append(line, text, strlen(text)); }

// A setting or secret: a text as it is, anything else as JSON. False: it is not set. The value is the caller's to free.
static inline bool ace_setting(const char *name, ace_text *value) {
  ace_text key = ace_borrowed(name);
  return openedx_ace_config_get(&key, value);
}

// A setting without which the plugin cannot work. False: it is not set, and `err` says so to the operator.
static inline bool ace_required(const char *name, ace_text *value, ace_text *err) {
  if (ace_setting(name, value)) return true;
  *err = ace_copy("config key \"");
  ace_append_text(err, name);
  ace_append_text(err, "\": it is not set");
  return false;
}

// Whether Python would call a JSON value true, as edx-ace does with options: not null, false, 0, nor an empty text, list or object.
static inline bool ace_json_is_true(ace_text json) {
  static const char *const empty[] = {"null", "false", "\"\"", "[]", "{}"};
  for (size_t i = 0; i < sizeof empty / sizeof *empty; i++) {
    if (ace_equals(json, empty[i])) return false;
  }
  if (json.len == 0 || (json.ptr[0] != '-' && (json.ptr[0] < '0' || json.ptr[0] > '9'))) return json.len > 0;
  // A zero has no other digit before its exponent.
  for (size_t i = 0; i < json.len && json.ptr[i] != 'e' && json.ptr[i] != 'E'; i++) {
    if (json.ptr[i] >= '1' && json.ptr[i] <= '9') return true;
  }
  return false;
}

// Whether an option is there and true, by RFC 6901 pointer ("/transactional").
static inline bool ace_option_is_true(openedx_ace_messages_borrow_message_t message, const char *at) {
  ace_text pointer = ace_borrowed(at), json;
  if (!openedx_ace_messages_method_message_options(message, &pointer, &json)) return false;
  bool is = ace_json_is_true(json);
  ace_free(&json);
  return is;
}

// What openedx_ace_keyvalue_* said went wrong, for the operator. Frees it.
static inline void ace_keyvalue_failed(openedx_ace_keyvalue_keyvalue_error_t *error, ace_text *err) {
  *err = ace_copy("keyvalue: ");
  ace_append(err, error->val.denied.ptr, error->val.denied.len);
  openedx_ace_keyvalue_keyvalue_error_free(error);
}

// Adds 1 to a counter once for each token (a message's uuid), and tells what that token was counted as: the same at each repetition.
// `ttl_ms`: how long a counter lives that this call makes; 0: until it is deleted. False: `err` says why. Needs the bucket for writing.
static inline bool ace_count_once(
    const char *bucket, ace_text key, ace_text token, uint64_t ttl_ms, openedx_ace_keyvalue_counted_t *counted, ace_text *err) {
  ace_text in = ace_borrowed(bucket);
  openedx_ace_keyvalue_keyvalue_error_t error;
  if (openedx_ace_keyvalue_count_once(&in, &key, &token, 1, ttl_ms ? &ttl_ms : NULL, counted, &error)) return true;
  ace_keyvalue_failed(&error, err);
  return false;
}

// Takes one of `limit` places within the last `window_ms` milliseconds for a token (a message's uuid): a cap that starves nobody,
// since a token that gets none uses none. False: `err` says why that cannot be said. Needs the bucket for writing.
static inline bool ace_take_place(
    const char *bucket, ace_text key, ace_text token, uint32_t limit, uint64_t window_ms, openedx_ace_keyvalue_place_t *place,
    ace_text *err) {
  ace_text in = ace_borrowed(bucket);
  openedx_ace_keyvalue_keyvalue_error_t error;
  if (openedx_ace_keyvalue_take_place(&in, &key, &token, limit, window_ms, place, &error)) return true;
  ace_keyvalue_failed(&error, err);
  return false;
}

// Gives the place of a token back; none is no error. False: `err` says why it cannot. Needs the bucket for writing.
static inline bool ace_give_place_back(const char *bucket, ace_text key, ace_text token, ace_text *err) {
  ace_text in = ace_borrowed(bucket);
  openedx_ace_keyvalue_keyvalue_error_t error;
  if (openedx_ace_keyvalue_give_place_back(&in, &key, &token, &error)) return true;
  ace_keyvalue_failed(&error, err);
  return false;
}

// Whether `signature` is a signature of `data` by a key of a credential, whose name is the plugin's own. The algorithms are
// "hmac-sha1", "hmac-sha256", "hmac-sha512", "ecdsa-p256-sha256", "rsa-pkcs1-sha1", "rsa-pkcs1-sha256" and "ed25519". False: `err` says
// why it cannot be verified.
static inline bool ace_verify(
    const char *credential, const char *algorithm, ace_bytes data, ace_bytes signature, bool *is_valid, ace_text *err) {
  ace_text name = ace_borrowed(credential), by = ace_borrowed(algorithm);
  openedx_ace_signatures_signature_error_t error;
  if (openedx_ace_signatures_verify(&name, &by, &data, &signature, is_valid, &error)) return true;
  *err = ace_copy("signatures: ");
  ace_append(err, error.val.denied.ptr, error.val.denied.len);
  openedx_ace_signatures_signature_error_free(&error);
  return false;
}

// A decimal number.
static inline void ace_append_number(ace_text *line, int64_t number) {
  char digits[20];
  size_t at = sizeof digits;
  uint64_t left = number < 0 ? -(uint64_t)number : (uint64_t)number;
  do digits[--at] = (char)('0' + left % 10);
  while (left /= 10);
  if (number < 0) ace_append(line, "-", 1);
  ace_append(line, digits + at, sizeof digits - at);
}

// The text as a JSON string, with its quotes.
static inline void ace_append_json(ace_text *line, ace_text text) {
  ace_append(line, "\"", 1);
  for (size_t i = 0; i < text.len; i++) {
    uint8_t c = text.ptr[i];
    if (c == '"' || c == '\\') {
      ace_append(line, (char[]){'\\', (char)c}, 2);
    } else if (c < 0x20) {
      const char *hex = "0123456789abcdef";
      ace_append(line, (char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
    } else {
      ace_append(line, &c, 1);
    }
  }
  ace_append(line, "\"", 1);
}

#endif
