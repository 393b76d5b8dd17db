// Package export_openedx_ace_channel hands the host's questions to the plugin, and its answers back.
package export_openedx_ace_channel

import (
	"errors"

	"ace_plugin/gen/gc"
	"ace_plugin/gen/imports/openedx_ace_channel"
	"ace_plugin/gen/imports/openedx_ace_common"
	"ace_plugin/gen/imports/openedx_ace_messages"
	types "go.bytecodealliance.org/pkg/wit/types"
)

type (
	Message      = openedx_ace_messages.Message
	Info         = openedx_ace_channel.ChannelInfo
	TemplateFile = openedx_ace_channel.TemplateFile
	Link         = openedx_ace_channel.ActionLink
	Attempt      = openedx_ace_channel.Attempt
	Receipt      = openedx_ace_channel.Receipt
)

// Channel delivers rendered messages.
type Channel interface {
	// Describe says which channel type it serves and which template files it needs. Asked once a load.
	Describe() Info
	// Enabled is asked once a load: are the settings usable? An error refuses the plugin, in its words.
	Enabled() error
	// Deliver hands a message to the provider, once; rendered is by file name. The message is valid until it returns.
	// The error is one of Recoverable, Fatal and Skipped; any other is fatal.
	Deliver(message *Message, rendered map[string]string, attempt Attempt) (Receipt, error)
}

// Claimer is a channel that claims messages although another one of its type would be chosen.
type Claimer interface {
	OverridesDeliveryForMessage(message *Message) bool
}

// Linker is a channel that has links for the templates.
type Linker interface {
	ActionLinks(message *Message) []Link
}

// Tracker is a channel that has tracking images for the templates.
type Tracker interface {
	TrackerImageSources(message *Message) []string
}

// Plugin is the channel that is asked; it is set in an init function.
var Plugin Channel

type failure struct {
	text string
	wire openedx_ace_channel.DeliveryError
}

func (f failure) Error() string { return f.text }

// Recoverable is an error that may pass: the host tries again, on its own schedule.
func Recoverable(message string) error {
	return recoverable(message, types.None[uint64]())
}

// RecoverableAt is an error that may pass, not before a moment in milliseconds since 1970.
func RecoverableAt(message string, at uint64) error {
	return recoverable(message, types.Some(at))
}

func recoverable(message string, at types.Option[uint64]) error {
	wire := openedx_ace_common.RecoverableError{Message: message, NextAttemptTime: at}
	return failure{message, openedx_ace_channel.MakeDeliveryErrorRecoverable(wire)}
}

// Fatal is an error that stays.
func Fatal(why string) error {
	return failure{why, openedx_ace_channel.MakeDeliveryErrorFatal(why)}
}

// Skipped says that there is nothing to do: no address of this kind, say.
func Skipped(why string) error {
	return failure{why, openedx_ace_channel.MakeDeliveryErrorSkipped(why)}
}

func Describe() Info { return Plugin.Describe() }

func Enabled() types.Result[types.Unit, string] {
	if err := Plugin.Enabled(); err != nil {
		return types.Err[types.Unit](err.Error())
	}
	return types.Ok[types.Unit, string](types.Unit{})
}

func OverridesDeliveryForMessage(message *Message) bool {
	defer message.Drop()
	claimer, is := Plugin.(Claimer)
	return is && claimer.OverridesDeliveryForMessage(message)
}

func ActionLinks(message *Message) []Link {
	defer message.Drop()
	if linker, is := Plugin.(Linker); is {
		return linker.ActionLinks(message)
	}
	return nil
}

func TrackerImageSources(message *Message) []string {
	defer message.Drop()
	if tracker, is := Plugin.(Tracker); is {
		return tracker.TrackerImageSources(message)
	}
	return nil
}

func Deliver(
	message *Message, rendered []types.Tuple2[string, string], attempt Attempt,
) types.Result[Receipt, openedx_ace_channel.DeliveryError] {
	gc.Collect()
	defer message.Drop()
	files := make(map[string]string, len(rendered))
	for _, file := range rendered {
		files[file.F0] = file.F1
	}
	receipt, err := Plugin.Deliver(message, files, attempt)
	if err == nil {
		return types.Ok[Receipt, openedx_ace_channel.DeliveryError](receipt)
	}
	var known failure
	if !errors.As(err, &known) {
		known.wire = openedx_ace_channel.MakeDeliveryErrorFatal(err.Error())
	}
	return types.Err[Receipt](known.wire)
}
