// Package export_openedx_ace_recipient_resolver hands the host's questions to the plugin, and its answers back.
package export_openedx_ace_recipient_resolver

import (
	"errors"

	"ace_plugin/gen/gc"
	"ace_plugin/gen/imports/openedx_ace_common"
	"ace_plugin/gen/imports/openedx_ace_recipient_resolver"
	types "go.bytecodealliance.org/pkg/wit/types"
)

type (
	Recipient = openedx_ace_common.Recipient
	Resolved  = openedx_ace_recipient_resolver.Resolved
	Page      = openedx_ace_recipient_resolver.Page
)

// Resolver turns "everyone who …" into recipients.
type Resolver interface {
	// Enabled is asked once a load: are the settings usable? An error refuses the plugin, in its words.
	Enabled() error
	// Resolve gives the page after cursor ("" for the first), at most limit items, in a stable order. Message type and
	// arguments are JSON objects. The error is one of Recoverable and Fatal; any other is fatal.
	Resolve(messageType, arguments, cursor string, limit int) (Page, error)
}

// Plugin is the resolver that is asked; it is set in an init function.
var Plugin Resolver

type failure struct {
	text string
	wire openedx_ace_recipient_resolver.ResolveError
}

func (f failure) Error() string { return f.text }

// Recoverable is an error that may pass: the same page is asked for again.
func Recoverable(message string) error {
	wire := openedx_ace_common.RecoverableError{Message: message, NextAttemptTime: types.None[uint64]()}
	return failure{message, openedx_ace_recipient_resolver.MakeResolveErrorRecoverable(wire)}
}

// Fatal is an error that stays: the batch stops here.
func Fatal(why string) error {
	return failure{why, openedx_ace_recipient_resolver.MakeResolveErrorFatal(why)}
}

func Enabled() types.Result[types.Unit, string] {
	if err := Plugin.Enabled(); err != nil {
		return types.Err[types.Unit](err.Error())
	}
	return types.Ok[types.Unit, string](types.Unit{})
}

func Resolve(
	messageType, arguments string, cursor types.Option[string], limit uint32,
) types.Result[Page, openedx_ace_recipient_resolver.ResolveError] {
	gc.Collect()
	page, err := Plugin.Resolve(messageType, arguments, cursor.SomeOr(""), int(limit))
	if err == nil {
		return types.Ok[Page, openedx_ace_recipient_resolver.ResolveError](page)
	}
	var known failure
	if !errors.As(err, &known) {
		known.wire = openedx_ace_recipient_resolver.MakeResolveErrorFatal(err.Error())
	}
	return types.Err[Page](known.wire)
}
