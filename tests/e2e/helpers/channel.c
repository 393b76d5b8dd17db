// Posts with a credential, if the provider's signature in the context is valid, and notes outcomes.
#include "gen/channel_plugin.h"
#define ACE_WORLD channel_plugin
#include "ace_channel.h"

typedef exports_openedx_ace_channel_own_message_t own_message;

void exports_openedx_ace_channel_describe(exports_openedx_ace_channel_channel_info_t *info) {
  memset(info, 0, sizeof *info);
  info->channel_type = ace_copy("sms");
}

bool exports_openedx_ace_channel_enabled(ace_text *err) {
  (void)err;
  return true;
}

bool exports_openedx_ace_channel_overrides_delivery_for_message(own_message message) {
  openedx_ace_messages_message_drop_own(message);
  return false;
}

void exports_openedx_ace_channel_action_links(own_message message, exports_openedx_ace_channel_list_action_link_t *links) {
  openedx_ace_messages_message_drop_own(message);
  memset(links, 0, sizeof *links);
}

void exports_openedx_ace_channel_tracker_image_sources(own_message message, channel_plugin_list_string_t *sources) {
  openedx_ace_messages_message_drop_own(message);
  memset(sources, 0, sizeof *sources);
}

static void note_again(void) {
  ace_text json;
  ace_note earlier;
  ace_noted_outcomes(&json);
  for (size_t at = 0; ace_next_note(json, &at, &earlier); ace_free_note(&earlier)) {
    ace_text address = ace_copy("again "), code = ace_copied((const char *)earlier.outcome.ptr, earlier.outcome.len);
    ace_append(&address, earlier.address.ptr, earlier.address.len);
    ace_append_text(&code, " ");
    if (earlier.provider_id.len > 0) ace_append(&code, earlier.provider_id.ptr, earlier.provider_id.len);
    else ace_append_text(&code, "-");
    ace_note_outcome((ace_note){
        .kind = earlier.kind, .address = address, .outcome = ace_borrowed("failed"), .provider_id = earlier.code, .code = code});
    ace_free(&address);
    ace_free(&code);
  }
  ace_free(&json);
}

static bool post(ace_text data, uint16_t *status, ace_delivery_error *err) {
  ace_text body = ace_copy("{\"data\":");
  ace_append_json(&body, data);
  ace_append_text(&body, "}");
  channel_plugin_tuple2_string_string_t header = {ace_borrowed("content-type"), ace_borrowed("application/json")};
  openedx_ace_http_request_t request = {.method = ace_borrowed("POST"), .url = ace_borrowed("https://sms.example.com/v1/send")};
  request.headers.ptr = &header;
  request.headers.len = 1;
  request.body.is_some = true;
  request.body.val = (ace_bytes){body.ptr, body.len};
  openedx_ace_http_response_t response;
  bool is_sent = ace_fetch_ok(&request, "api", &response, err);
  ace_free(&body);
  if (!is_sent) return false;
  *status = response.status;
  openedx_ace_http_response_free(&response);
  return true;
}

static bool send(ace_text context, ace_text *status, ace_delivery_error *err) {
  ace_text data, hex, until, why;
  ace_bytes signature = {(uint8_t[32]){0}, 32};
  if (!ace_json_member_text(context, "data", &data) || !ace_json_member_text(context, "signature", &hex)) abort();
  for (size_t i = 0; i < 32; i++) {
    uint8_t digits[] = {'0', '0', hex.ptr[2 * i], hex.ptr[2 * i + 1]};
    signature.ptr[i] = (uint8_t)ace_json_hex(digits);
  }
  ace_free(&hex);
  bool is_valid;
  if (!ace_verify("api", "hmac-sha256", (ace_bytes){data.ptr, data.len}, signature, &is_valid, &why)) return ace_fatal(why, err);
  if (!is_valid) return ace_fatal(ace_copy("forged"), err);
  note_again();
  if (ace_json_member(context, "until", &until)) {
    uint64_t at = 0;
    for (size_t i = 0; i < until.len; i++) at = at * 10 + (until.ptr[i] - '0');
    ace_hold_channel("the quota is used up", at);
  }
  uint16_t code;
  bool is_sent = post(data, &code, err);
  ace_free(&data);
  if (!is_sent) return false;
  ace_note_outcome((ace_note){
      .kind = ace_borrowed("phone"), .address = ace_borrowed("+1 \"ü\" \\ 😀"), .outcome = ace_borrowed("sent"),
      .provider_id = ace_borrowed("p-1")});
  *status = (ace_text){NULL, 0};
  ace_append_number(status, code);
  return true;
}

bool exports_openedx_ace_channel_deliver(
    own_message message, channel_plugin_list_tuple2_string_string_t *rendered, exports_openedx_ace_channel_attempt_t *attempt,
    exports_openedx_ace_channel_receipt_t *receipt, ace_delivery_error *err) {
  (void)rendered, (void)attempt;
  memset(receipt, 0, sizeof *receipt);
  ace_text pointer = ace_borrowed(""), context;
  if (!openedx_ace_messages_method_message_context(openedx_ace_messages_borrow_message(message), &pointer, &context)) abort();
  openedx_ace_messages_message_drop_own(message);
  bool is_sent = send(context, &receipt->provider_id.val, err);
  receipt->provider_id.is_some = is_sent;
  ace_free(&context);
  return is_sent;
}
