package boundaryusage

// #include "bridge.h"
import "C"

import (
	"fmt"
	"sync/atomic"
)

// LogLevel is the level of a log message.
type LogLevel int

// The levels of log messages.
const (
	// LogError means that something needs attention, because counts may get lost.
	LogError LogLevel = 1
	// LogWarning means that an operation failed, and that the tracker repeats it.
	LogWarning LogLevel = 2
	// LogInfo is an event of normal operation.
	LogInfo LogLevel = 3
)

// String returns the name of the level.
func (level LogLevel) String() string {
	switch level {
	case LogError:
		return "error"
	case LogWarning:
		return "warning"
	case LogInfo:
		return "info"
	}
	return fmt.Sprintf("level %d", int(level))
}

var logFunction atomic.Pointer[func(level LogLevel, message string)]

// SetLog sets the function that receives the log messages of all trackers of the process.
//
// nil discards them, as before the first call. A message is one line. Threads of the library call the function, several
// of them possibly simultaneously. The function must not call this package, must not panic, and should return quickly,
// because a tracker waits for it. When SetLog returns, no thread uses the previous function any more.
func SetLog(log func(level LogLevel, message string)) {
	if log == nil {
		C.bridge_set_log(0)
		logFunction.Store(nil)
		return
	}
	logFunction.Store(&log)
	// Also waits for the threads that use the previous function.
	C.bridge_set_log(1)
}

//export boundaryUsageLog
func boundaryUsageLog(level C.int, message *C.char) {
	if log := logFunction.Load(); log != nil {
		(*log)(LogLevel(level), C.GoString(message))
	}
}
