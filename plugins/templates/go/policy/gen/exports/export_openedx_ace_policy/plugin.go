// Package export_openedx_ace_policy hands the host's questions to the plugin, and its answers back.
package export_openedx_ace_policy

import (
	"ace_plugin/gen/gc"
	"ace_plugin/gen/imports/openedx_ace_messages"
	"ace_plugin/gen/imports/openedx_ace_policy"
	types "go.bytecodealliance.org/pkg/wit/types"
)

type (
	Message = openedx_ace_messages.Message
	Result  = openedx_ace_policy.PolicyResult
	Denial  = openedx_ace_policy.Denial
	Delay   = openedx_ace_policy.Delay
)

// Policy judges messages.
type Policy interface {
	// Enabled is asked once a load: are the settings usable? An error refuses the plugin, in its words.
	Enabled() error
	// Check judges one message, which is valid until it returns. The zero Result lets it pass. An error is a fault, never a "no".
	Check(message *Message) (Result, error)
}

// Plugin is the policy that is asked; it is set in an init function.
var Plugin Policy

func Enabled() types.Result[types.Unit, string] {
	if err := Plugin.Enabled(); err != nil {
		return types.Err[types.Unit](err.Error())
	}
	return types.Ok[types.Unit, string](types.Unit{})
}

func Check(message *Message) types.Result[Result, string] {
	gc.Collect()
	defer message.Drop()
	result, err := Plugin.Check(message)
	if err != nil {
		return types.Err[Result](err.Error())
	}
	return types.Ok[Result, string](result)
}
