// What a channel reports besides the result of `deliver`: the outcome for each address, and a hold of the whole channel. No grant is
// needed. The functions have an effect only within `deliver`. They are no part of ace.js, because only channels may import them.

import * as delivery from "openedx:ace/delivery@1.1.0";

/**
 * The outcome for one address of the message. "sent": the provider accepted the message for it; "dropped": the address does not exist
 * any more, and the application should delete it; "failed": it does not get this message; "retry": it is tried again.
 * @typedef {object} Note
 * @property {string} kind of the address, as in the recipient's contacts; "email" for the e-mail address
 * @property {string} address
 * @property {"sent" | "dropped" | "failed" | "retry"} outcome
 * @property {string} [providerId] the provider's id of the message to this address
 * @property {string} [code] the provider's error code
 */

/**
 * Notes the outcome for one address. It replaces an earlier note on the same address. Later attempts do not get addresses that were
 * sent, dropped or failed.
 * @param {Note} note
 */
export const noteOutcome = ({ kind, address, outcome, providerId, code }) =>
  delivery.noteOutcome(JSON.stringify({ kind, address, outcome, provider_id: providerId, code }));

/**
 * The notes of earlier attempts of this message.
 * @returns {Note[]}
 */
export const notedOutcomes = () =>
  JSON.parse(delivery.notedOutcomes()).map(
    (/** @type {{ provider_id?: string }} */ { provider_id: providerId, ...note }) => ({ ...note, providerId }),
  );

/**
 * Stops the whole channel: until a time in milliseconds since 1970, or without one until a message gets through. Throw a recoverable
 * error as well: it uses up no attempt of the message.
 * @param {string} reason one line for the operator
 * @param {number} [until]
 */
export const holdChannel = (reason, until) => delivery.holdChannel(until, reason);
