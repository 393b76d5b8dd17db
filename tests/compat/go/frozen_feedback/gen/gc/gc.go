// Package gc collects garbage when the component model allows it. While the host puts a text into the component's memory, and
// while it takes a result out, the component may call nothing; but Go's collector reads the clock. So it does not begin on its
// own, unless memory runs short: each question that the host asks begins with Collect.
package gc

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"

	wit "go.bytecodealliance.org/pkg/wit/runtime"
)

const (
	// step is how much garbage may gather, in bytes.
	step = 8 << 20
	// limit leaves room below the 64 MiB that a host gives a plugin.
	limit = 48 << 20
)

var (
	heap = []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	next = uint64(step)
)

func init() {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(limit)
}

// Collect collects garbage where enough has gathered. What the host handed over for the question before is garbage unless the
// plugin still refers to it.
func Collect() {
	wit.Unpin()
	if size() < next {
		return
	}
	runtime.GC()
	next = size() + step
}

func size() uint64 {
	metrics.Read(heap)
	return heap[0].Value.Uint64()
}
