package boundaryusage

// #include "bridge.h"
import "C"

import (
	"encoding/json"
	"fmt"
	"time"
)

// TrackerStatus is the status of a tracker. Counts begin at the tracker's start.
type TrackerStatus struct {
	// Replica is the id of the replica.
	Replica ID `json:"replica"`
	// Activities is the number of accepted activities.
	Activities uint64 `json:"activities"`
	// PendingActivities is the number of accepted activities that may be missing in the database. Restored activity
	// does not count.
	PendingActivities uint64 `json:"pending_activities"`
	// IntakeDepth is the number of activities that wait for the component.
	IntakeDepth uint64 `json:"intake_depth"`
	// IntakeCapacity is the depth at which Track waits and TryTrack fails.
	IntakeCapacity uint64 `json:"intake_capacity"`
	// Flushes is the number of successful flushes that had something to do.
	Flushes uint64 `json:"flushes"`
	// ConfirmedFlushes is the number of those that only confirmed an earlier commit.
	ConfirmedFlushes uint64 `json:"confirmed_flushes"`
	// IdleFlushes is the number of flushes that had nothing to do.
	IdleFlushes uint64 `json:"idle_flushes"`
	// FailedFlushes is the number of failed flushes.
	FailedFlushes uint64 `json:"failed_flushes"`
	// ForgottenFlushes is the number of flushes that the database confirmed and later lost.
	ForgottenFlushes uint64 `json:"forgotten_flushes"`
	// LastSuccess is the time of the last successful flush, or nil.
	LastSuccess *time.Time `json:"last_success"`
	// LastError is the error of the last flush, or empty if it succeeded.
	LastError string `json:"last_error"`
	// Restarts is the number of restarts of the component after a crash.
	Restarts uint64 `json:"restarts"`
	// Stopped is whether the tracker has ended.
	Stopped bool `json:"stopped"`
	// Checkpoint is the status of the checkpoint, or nil without a state directory.
	Checkpoint *CheckpointStatus `json:"checkpoint"`
	// DatabaseConnected is whether the tracker has reached its database since the start.
	DatabaseConnected bool `json:"database_connected"`
	// ConnectionError is the error of the last failed attempt until the first connection, or empty.
	ConnectionError string `json:"connection_error"`
	// JSON is the whole status, as the C library returns it.
	JSON json.RawMessage `json:"-"`
}

// CheckpointStatus is the status of the checkpoint.
type CheckpointStatus struct {
	// Path is the path of the file.
	Path string `json:"path"`
	// Restored is whether the tracker restored activity of an earlier process.
	Restored bool `json:"restored"`
	// Written is the number of checkpoints since the start.
	Written uint64 `json:"written"`
	// Failed is the number of failed writes since the start.
	Failed uint64 `json:"failed"`
	// CompleteAt is the last time at which the checkpoint contained all unflushed activity.
	CompleteAt time.Time `json:"complete_at"`
	// LastError is the error of the last write, or empty if it succeeded.
	LastError string `json:"last_error"`
}

// Status returns the counters of the tracker and the state of its checkpoint. It does not wait for the database.
func (t *Tracker) Status() (TrackerStatus, error) {
	var text *C.char
	if err := t.with(func(tracker C.bridge_tracker) C.bridge_result {
		return C.bridge_status(tracker, &text)
	}); err != nil {
		return TrackerStatus{}, err
	}
	defer C.boundary_usage_string_free(text)
	status := TrackerStatus{JSON: json.RawMessage(C.GoString(text))}
	if err := json.Unmarshal(status.JSON, &status); err != nil {
		return TrackerStatus{}, &Error{Status: ErrInternal, Message: fmt.Sprintf("cannot read the status: %v", err)}
	}
	return status, nil
}
