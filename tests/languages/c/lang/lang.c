// A policy that does what `context.do` of a message says. No printf, because stdio needs files, and therefore WASI preview 1.

#include <stdlib.h>
#include <string.h>

#include "policy_plugin.h"

// Authors should not rely on this: it lives as long as the instance.
static unsigned calls;

static bool is(const policy_plugin_string_t *json, const char *text) {
  return json->len == strlen(text) && memcmp(json->ptr, text, json->len) == 0;
}

static void count(exports_openedx_ace_policy_policy_result_t *verdict) {
  exports_openedx_ace_policy_denial_t *denial = calloc(1, sizeof *denial);
  char reason[16] = "", *digit = reason + sizeof reason - 1;
  if (denial == NULL) abort();
  for (unsigned rest = calls; rest > 0; rest /= 10) *--digit = (char)('0' + rest % 10);
  policy_plugin_string_dup(&denial->channel_type, "push");
  denial->reason.is_some = true;
  policy_plugin_string_dup(&denial->reason.val, digit);
  verdict->deny.ptr = denial;
  verdict->deny.len = 1;
}

static void spin(void) {
  for (volatile unsigned turns = 0;; turns++) {
  }
}

// The compiler removes what is not used.
static char *volatile treasure;

static void hoard(void) {
  for (;;) {
    treasure = malloc(1 << 20);
    if (treasure == NULL) abort();
    memset(treasure, 1, 1 << 20);
  }
}

// The address of each frame escapes, so that no compiler turns this into a loop; a counter ends it.
static unsigned recurse(volatile unsigned *outer) {
  volatile unsigned here = *outer + 1;
  return here == 0 ? 0 : recurse(&here) + here;
}

bool exports_openedx_ace_policy_enabled(policy_plugin_string_t *err) {
  (void)err;
  return true;
}

bool exports_openedx_ace_policy_check(exports_openedx_ace_policy_own_message_t message,
                                      exports_openedx_ace_policy_policy_result_t *verdict,
                                      policy_plugin_string_t *err) {
  calls++;
  policy_plugin_string_t pointer, asked;
  policy_plugin_string_set(&pointer, "/do");
  bool any = openedx_ace_messages_method_message_context(openedx_ace_messages_borrow_message(message), &pointer, &asked);
  openedx_ace_messages_message_drop_own(message);
  memset(verdict, 0, sizeof *verdict);
  if (!any) return true;
  if (is(&asked, "\"count\"")) count(verdict);
  if (is(&asked, "\"trap\"")) __builtin_trap();
  if (is(&asked, "\"spin\"")) spin();
  if (is(&asked, "\"hoard\"")) hoard();
  if (is(&asked, "\"recurse\"")) recurse(&calls);
  bool fails = is(&asked, "\"error\"");
  if (fails) policy_plugin_string_dup(err, "the facts are out of reach");
  policy_plugin_string_free(&asked);
  return !fails;
}
