package boundaryusage

// #include "bridge.h"
import "C"

import "fmt"

// Status is the kind of an error. Its values are errors for [errors.Is].
type Status int

// The kinds of errors.
const (
	// ErrInvalidArgument means that an argument or an option is invalid.
	ErrInvalidArgument Status = C.BOUNDARY_USAGE_INVALID_ARGUMENT
	// ErrFull means that the intake is full. Only TryTrack returns it.
	ErrFull Status = C.BOUNDARY_USAGE_FULL
	// ErrStopped means that the tracker has been shut down.
	ErrStopped Status = C.BOUNDARY_USAGE_STOPPED
	// ErrUnavailable means that the database is unavailable. Nothing was applied, and a later call can succeed.
	ErrUnavailable Status = C.BOUNDARY_USAGE_UNAVAILABLE
	// ErrConflict means that a race for a lock was lost. Nothing was applied, and a later call can succeed.
	ErrConflict Status = C.BOUNDARY_USAGE_CONFLICT
	// ErrTimedOut means that a time limit has passed. The next flush determines whether this one was applied.
	ErrTimedOut Status = C.BOUNDARY_USAGE_TIMED_OUT
	// ErrCommitUnknown means that a commit had no reply. The next flush determines whether it was applied.
	ErrCommitUnknown Status = C.BOUNDARY_USAGE_COMMIT_UNKNOWN
	// ErrRefused means that the database refuses the operation, for example because the login fails.
	ErrRefused Status = C.BOUNDARY_USAGE_REFUSED
	// ErrComponent means that the component cannot be loaded, crashed, or violated its contract.
	ErrComponent Status = C.BOUNDARY_USAGE_COMPONENT
	// ErrState means that the state directory cannot be used, or that another process uses it for the same replica.
	ErrState Status = C.BOUNDARY_USAGE_STATE
	// ErrForked means that the tracker belongs to the parent of this process.
	ErrForked Status = C.BOUNDARY_USAGE_FORKED
	// ErrInternal means a fault of the library. Please report it.
	ErrInternal Status = C.BOUNDARY_USAGE_INTERNAL
)

var statusTexts = [...]string{
	ErrInvalidArgument: "invalid argument",
	ErrFull:            "the intake is full",
	ErrStopped:         "the tracker is stopped",
	ErrUnavailable:     "the database is unavailable",
	ErrConflict:        "lost a race for a lock",
	ErrTimedOut:        "a time limit has passed",
	ErrCommitUnknown:   "the outcome of a commit is unknown",
	ErrRefused:         "the database refuses the operation",
	ErrComponent:       "the component failed",
	ErrState:           "the state directory cannot be used",
	ErrForked:          "the tracker belongs to the parent process",
	ErrInternal:        "internal error",
}

// Error returns a short description of the kind.
func (status Status) Error() string {
	if status > 0 && int(status) < len(statusTexts) {
		return statusTexts[status]
	}
	return fmt.Sprintf("status %d", int(status))
}

// Error is the error of a call.
type Error struct {
	// Status is the kind of the error.
	Status Status
	// Message describes the failure, with the values that caused it.
	Message string
}

// Error returns the message.
func (err *Error) Error() string {
	return "boundary usage: " + err.Message
}

// Is returns whether the target is the kind of the error.
func (err *Error) Is(target error) bool {
	return target == err.Status
}

// stopped is the error of all calls after a shutdown, also of those that cannot reach the library any more.
var stopped = &Error{Status: ErrStopped, Message: ErrStopped.Error()}
