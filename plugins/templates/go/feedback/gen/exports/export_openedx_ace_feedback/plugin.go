// Package export_openedx_ace_feedback hands the host's questions to the plugin, and its answers back.
package export_openedx_ace_feedback

import (
	"errors"

	"ace_plugin/gen/gc"
	"ace_plugin/gen/imports/openedx_ace_feedback"
	"ace_plugin/gen/imports/openedx_ace_incoming"
	types "go.bytecodealliance.org/pkg/wit/types"
)

type (
	Request  = openedx_ace_incoming.Request
	Event    = openedx_ace_feedback.Event
	Answer   = openedx_ace_feedback.Answer
	Received = openedx_ace_feedback.Received
)

// Feedback reads what a provider reports after a delivery.
type Feedback interface {
	// Enabled is called once per load, if the operator ties a channel to this plugin: are the settings usable? An error refuses this
	// export, in its words.
	Enabled() error
	// Receive verifies one request, which is valid until it returns, and reads it. The same request may come again, to another
	// instance, at the same time. The error is one of Refused, Malformed and Unavailable; any other is Unavailable.
	Receive(request *Request) (Received, error)
}

// Plugin is what reads requests; it is set in an init function.
var Plugin Feedback

type failure struct {
	text string
	wire openedx_ace_feedback.FeedbackError
}

func (f failure) Error() string { return f.text }

// Refused says that the request is not the provider's: its signature is missing, wrong or too old. It is answered with 401.
func Refused(why string) error {
	return failure{why, openedx_ace_feedback.MakeFeedbackErrorRefused(why)}
}

// Malformed says that the request is the provider's and cannot be read. It is answered with 400.
func Malformed(why string) error {
	return failure{why, openedx_ace_feedback.MakeFeedbackErrorMalformed(why)}
}

// Unavailable is an error that may pass: the request is answered with 503, so that the provider tries again.
func Unavailable(why string) error {
	return failure{why, openedx_ace_feedback.MakeFeedbackErrorUnavailable(why)}
}

func Enabled() types.Result[types.Unit, string] {
	if err := Plugin.Enabled(); err != nil {
		return types.Err[types.Unit](err.Error())
	}
	return types.Ok[types.Unit, string](types.Unit{})
}

func Receive(request *Request) types.Result[Received, openedx_ace_feedback.FeedbackError] {
	gc.Collect()
	defer request.Drop()
	received, err := Plugin.Receive(request)
	if err == nil {
		return types.Ok[Received, openedx_ace_feedback.FeedbackError](received)
	}
	var known failure
	if !errors.As(err, &known) {
		known.wire = openedx_ace_feedback.MakeFeedbackErrorUnavailable(err.Error())
	}
	return types.Err[Received](known.wire)
}
