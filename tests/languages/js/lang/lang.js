// A policy that does what `context.do` of a message says; built with QuickJS (lang_js) and StarlingMonkey (lang_starling).

// Authors should not rely on this: it lives as long as the instance.
let calls = 0;

const harms = {
  count: () => ({ deny: [{ channelType: "push", reason: String(calls) }], delay: [] }),
  error: () => {
    throw "the facts are out of reach";
  },
  trap: () => {
    throw new TypeError("nothing the interface knows");
  },
  spin: () => {
    for (;;);
  },
  hoard: () => {
    for (const treasure = []; ; ) treasure.push(new Uint8Array(1 << 20).fill(1));
  },
  recurse: function deeper() {
    return 1 + deeper();
  },
};

export const policy = {
  enabled() {},

  check(message) {
    calls += 1;
    const asked = message.context("/do");
    message[Symbol.dispose]();
    const harm = asked && harms[JSON.parse(asked)];
    return harm ? harm() : { deny: [], delay: [] };
  },
};
