// A reader of feedback built against tests/compat/wit-1.1.0. It must not be changed.
package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	feedback "ace_plugin/gen/exports/export_openedx_ace_feedback"
	_ "ace_plugin/gen/exports/wit_exports"
	incoming "ace_plugin/gen/imports/openedx_ace_incoming"
	signatures "ace_plugin/gen/imports/openedx_ace_signatures"
	"go.bytecodealliance.org/pkg/wit/types"
)

type plugin struct{}

func init() { feedback.Plugin = plugin{} }

func main() {}

func (plugin) Enabled() error {
	if incoming.PublicUrl().IsNone() {
		return errors.New("set server.public-url")
	}
	return nil
}

func (plugin) Receive(request *feedback.Request) (feedback.Received, error) {
	if request.Method() == "GET" {
		return challenged(request), nil
	}
	body := request.Body()
	signature, err := hex.DecodeString(strings.Join(request.Header("X-Signature"), ""))
	if err != nil {
		return feedback.Received{}, feedback.Refused("the signature is wrong")
	}
	answer := signatures.Verify("provider", "hmac-sha256", body, signature)
	if answer.IsErr() || !answer.Ok() {
		return feedback.Received{}, feedback.Refused("the signature is wrong")
	}
	switch string(body) {
	case "":
		return feedback.Received{}, feedback.Malformed("there is no event")
	case "later":
		return feedback.Received{}, feedback.Unavailable(refusal())
	}
	return feedback.Received{Events: []feedback.Event{event(request, string(body))}}, nil
}

func challenged(request *feedback.Request) feedback.Received {
	url, query := request.Url().SomeOr("-"), request.Query().SomeOr("-")
	return feedback.Received{Answer: wit_types.Some(feedback.Answer{
		Status:  202,
		Headers: []wit_types.Tuple2[string, string]{{F0: "content-type", F1: "text/plain"}},
		Body:    []byte(incoming.PublicUrl().SomeOr("-") + " " + url + " " + query),
	})}
}

func event(request *feedback.Request, id string) feedback.Event {
	address := wit_types.Tuple2[string, string]{F0: "email", F1: "zoe@learner.example"}
	return feedback.Event{
		Id:          id,
		Kind:        "bounced",
		At:          wit_types.Some(request.ReceivedAt()),
		MessageUuid: wit_types.Some("00000000-0000-4000-8000-000000000001"),
		ProviderId:  wit_types.Some(strings.TrimPrefix(request.Path(), "/")),
		MessageId:   wit_types.Some("<m@example.com>"),
		Address:     wit_types.Some(address),
		IsPermanent: true,
		IsVouched:   true,
		Reason:      wit_types.Some(fmt.Sprintf("%d headers", len(request.Headers()))),
		Detail:      wit_types.Some(`{"frozen":true}`),
	}
}

// refusal is what verify-with says of a key that is none.
func refusal() string {
	answer := signatures.VerifyWith([]byte("no key"), "ed25519", nil, nil)
	if answer.IsErr() && answer.Err().Tag() == signatures.SignatureError_Invalid {
		return "invalid"
	}
	return "?"
}
