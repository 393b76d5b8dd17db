// Delivers text messages through a gateway.
//
// Without stdio: printf asks for files, and so for WASI's preview 1, which no component imports.

#include "gen/channel_plugin.h"
#define ACE_WORLD channel_plugin
#include "ace_channel.h"

typedef exports_openedx_ace_channel_own_message_t own_message;

void exports_openedx_ace_channel_describe(exports_openedx_ace_channel_channel_info_t *info) {
  info->channel_type = ace_copy("sms");
  info->template_files.ptr = malloc(sizeof *info->template_files.ptr);
  if (info->template_files.ptr == NULL) abort();
  info->template_files.len = 1;
  info->template_files.ptr[0].name = ace_copy("body.txt");
  info->template_files.ptr[0].required = true;
}

bool exports_openedx_ace_channel_enabled(ace_text *err) {
  ace_text url;
  if (!ace_required("url", &url, err)) return false;
  ace_free(&url);
  return true;
}

bool exports_openedx_ace_channel_overrides_delivery_for_message(own_message message) {
  openedx_ace_messages_message_drop_own(message);
  return false;
}

void exports_openedx_ace_channel_action_links(own_message message, exports_openedx_ace_channel_list_action_link_t *links) {
  openedx_ace_messages_message_drop_own(message);
  links->ptr = NULL;
  links->len = 0;
}

void exports_openedx_ace_channel_tracker_image_sources(own_message message, channel_plugin_list_string_t *sources) {
  openedx_ace_messages_message_drop_own(message);
  sources->ptr = NULL;
  sources->len = 0;
}

// {"to": …, "text": …}, or nothing where there is no telephone number.
static bool write_body(own_message message, ace_text text, ace_text *body) {
  openedx_ace_messages_recipient_t recipient;
  if (!openedx_ace_messages_method_message_recipient(openedx_ace_messages_borrow_message(message), &recipient)) return false;
  bool is_found = false;
  for (size_t i = 0; i < recipient.contacts.len && !is_found; i++) {
    if (!ace_equals(recipient.contacts.ptr[i].f0, "phone")) continue;
    *body = ace_copy("{\"to\":");
    ace_append_json(body, recipient.contacts.ptr[i].f1);
    ace_append_text(body, ",\"text\":");
    ace_append_json(body, text);
    ace_append_text(body, "}");
    is_found = true;
  }
  openedx_ace_messages_recipient_free(&recipient);
  return is_found;
}

static bool post(ace_text url, ace_text key, ace_text body, ace_delivery_error *err) {
  channel_plugin_tuple2_string_string_t headers[] = {
      {ace_borrowed("content-type"), ace_borrowed("application/json")},
      {ace_borrowed("idempotency-key"), key},
  };
  openedx_ace_http_request_t request = {.method = ace_borrowed("POST"), .url = url};
  request.headers.ptr = headers;
  request.headers.len = 2;
  request.body.is_some = true;
  request.body.val.ptr = body.ptr;
  request.body.val.len = body.len;
  openedx_ace_http_response_t response;
  // The host adds the credential, so the token never enters the plugin.
  if (!ace_fetch_ok(&request, "gateway", &response, err)) return false;
  openedx_ace_http_response_free(&response);
  return true;
}

bool exports_openedx_ace_channel_deliver(
    own_message message,
    channel_plugin_list_tuple2_string_string_t *rendered,
    exports_openedx_ace_channel_attempt_t *attempt,
    exports_openedx_ace_channel_receipt_t *receipt,
    ace_delivery_error *err) {
  memset(receipt, 0, sizeof *receipt);
  ace_text body, url, why;
  bool has_body = write_body(message, rendered->ptr[0].f1, &body);
  // An owned handle is dropped exactly once, on every way out.
  openedx_ace_messages_message_drop_own(message);
  if (!has_body) return ace_skipped(ace_copy("the recipient has no telephone number"), err);
  if (!ace_required("url", &url, &why)) return ace_fatal(why, err);
  bool is_sent = post(url, attempt->idempotency_key, body, err);
  ace_free(&url);
  ace_free(&body);
  return is_sent;
}
