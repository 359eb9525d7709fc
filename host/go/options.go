package boundaryusage

// #include "bridge.h"
import "C"

import (
	"fmt"
	"strings"
	"time"
	"unsafe"
)

// Options are the options of a tracker. The zero value of an option means its default.
type Options struct {
	// Database is the URL of the database: sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE. It is required.
	Database string
	// Replica is the id of this process. Default: the one in StateDir, or else a random one.
	//
	// Two running processes must not use the same id.
	Replica ID
	// StateDir is the directory of the checkpoint, which the next start restores after a crash. Default: no checkpoint.
	StateDir string
	// StateSlots lets several processes share StateDir. Each takes a slot in it.
	StateSlots bool
	// CheckpointInterval is the time between checkpoints. Default: 1 s.
	//
	// A killed process loses at most the activity of this time.
	CheckpointInterval time.Duration
	// FlushInterval is the time between flushes. Default: 60 s.
	FlushInterval time.Duration
	// FlushTimeout is the time limit of a flush. Default: 30 s.
	FlushTimeout time.Duration
	// ShutdownTimeout is the time limit of the last flush. Default: 10 s.
	ShutdownTimeout time.Duration
	// Component is the path of a component file. Default: the component inside the library.
	Component string
}

// withC calls a function with the options of the library, and releases them afterwards.
func (options Options) withC(call func(*C.boundary_usage_options) error) error {
	opts := C.boundary_usage_options_new()
	defer C.boundary_usage_options_free(opts)
	settings := []struct{ name, value string }{
		{"database", options.Database},
		{"state-dir", options.StateDir},
		{"component", options.Component},
		{"checkpoint-interval", duration(options.CheckpointInterval)},
		{"flush-interval", duration(options.FlushInterval)},
		{"flush-timeout", duration(options.FlushTimeout)},
		{"shutdown-timeout", duration(options.ShutdownTimeout)},
	}
	if options.Replica != (ID{}) {
		settings = append(settings, struct{ name, value string }{"replica", options.Replica.String()})
	}
	if options.StateSlots {
		settings = append(settings, struct{ name, value string }{"state-slots", "on"})
	}
	for _, setting := range settings {
		if setting.value == "" {
			continue
		}
		if err := set(opts, setting.name, setting.value); err != nil {
			return err
		}
	}
	return call(opts)
}

func set(opts *C.boundary_usage_options, name, value string) error {
	if strings.IndexByte(value, 0) >= 0 {
		// C would end the text there.
		return &Error{Status: ErrInvalidArgument, Message: fmt.Sprintf("%s is %q, must not contain NUL", name, value)}
	}
	cName, cValue := C.CString(name), C.CString(value)
	defer C.free(unsafe.Pointer(cName))
	defer C.free(unsafe.Pointer(cValue))
	return failure(C.bridge_set(opts, cName, cValue))
}

// duration returns a time as the library reads it, or an empty text for the default.
//
// The library refuses negative times, and its error names the option.
func duration(value time.Duration) string {
	if value == 0 {
		return ""
	}
	return fmt.Sprintf("%dns", value.Nanoseconds())
}
