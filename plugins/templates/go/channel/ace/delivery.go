package ace

import (
	"encoding/json"

	delivery "ace_plugin/gen/imports/openedx_ace_delivery"
	"go.bytecodealliance.org/pkg/wit/types"
)

// Outcome is the result for an address.
type Outcome string

const (
	// Sent: the provider accepted the message for it.
	Sent Outcome = "sent"
	// Dropped: it does not exist any more; the application should delete it.
	Dropped Outcome = "dropped"
	// Failed: it does not get this message over this channel.
	Failed Outcome = "failed"
	// Retry: it is tried again.
	Retry Outcome = "retry"
)

// Note is the outcome for one address of the message.
type Note struct {
	// Kind is the kind of address, as in the recipient's contacts; "email" for the e-mail address.
	Kind    string  `json:"kind"`
	Address string  `json:"address"`
	Outcome Outcome `json:"outcome"`
	// ProviderId is the provider's id of the message to this address.
	ProviderId string `json:"provider_id,omitempty"`
	// Code is the provider's error code.
	Code string `json:"code,omitempty"`
}

// NoteOutcome notes the outcome for an address, within Deliver. It replaces an earlier note on the same address. Later attempts do
// not get addresses that were sent, dropped or failed.
func NoteOutcome(note Note) {
	// A note has only strings, so it can always be written.
	if text, err := json.Marshal(note); err == nil {
		delivery.NoteOutcome(string(text))
	}
}

// NotedOutcomes returns the notes of earlier attempts of this message.
func NotedOutcomes() ([]Note, error) {
	var notes []Note
	err := json.Unmarshal([]byte(delivery.NotedOutcomes()), &notes)
	return notes, err
}

// HoldChannel stops the whole channel, within Deliver: until a time in milliseconds since 1970, or with 0 until a message gets
// through. The reason is one line for the operator. Return a recoverable error as well: it uses up no attempt of the message.
func HoldChannel(reason string, until uint64) {
	at := wit_types.None[uint64]()
	if until > 0 {
		at = wit_types.Some(until)
	}
	delivery.HoldChannel(at, reason)
}
