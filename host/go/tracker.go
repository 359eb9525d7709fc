package boundaryusage

// #include "bridge.h"
import "C"

import (
	"context"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Tracker is a running tracker. Its methods may be called from any goroutine.
type Tracker struct {
	// use is held for reading during each call of the library, and for writing only by the release.
	//
	// So a call that cannot have it does not wait, because the tracker is stopped.
	use sync.RWMutex
	// c is 0 after the release.
	c C.bridge_tracker
	// isShutdown is whether a shutdown has begun. The library allows one.
	isShutdown atomic.Bool
}

// Start starts a tracker. It blocks while it compiles the component and connects to the database.
//
// If PostgreSQL is down, the start succeeds if an earlier start on this StateDir was connected to the same database.
// The tracker then records into its checkpoint and connects later. Otherwise Start returns [ErrUnavailable] after 2 s
// at most. The caller must call [Tracker.Shutdown] in the end, because nothing else releases the tracker.
func Start(options Options) (*Tracker, error) {
	tracker := new(Tracker)
	err := options.withC(func(opts *C.boundary_usage_options) error {
		return failure(C.bridge_start(opts, &tracker.c))
	})
	if err != nil {
		return nil, err
	}
	return tracker, nil
}

// Track records the activity of one batch of requests: marks both ids as active and adds both counts.
//
// Counts of 0 still record the ids. Track never waits for the database. It blocks only while the intake is full, which
// means that activity arrives faster than the component takes it. Track returns [ErrInvalidArgument] for a nil id, and
// [ErrStopped] after a shutdown. If it returns an error, it has recorded nothing.
func (t *Tracker) Track(workspace, owner ID, allowed, denied uint64) error {
	if !t.begin() {
		return stopped
	}
	defer t.use.RUnlock()
	return failure(C.bridge_track(t.c, idOf(workspace), idOf(owner), C.uint64_t(allowed), C.uint64_t(denied)))
}

// TryTrack records activity like [Tracker.Track], but never blocks. It returns [ErrFull] if the intake is full.
func (t *Tracker) TryTrack(workspace, owner ID, allowed, denied uint64) error {
	if !t.begin() {
		return stopped
	}
	defer t.use.RUnlock()
	return failure(C.bridge_try_track(t.c, idOf(workspace), idOf(owner), C.uint64_t(allowed), C.uint64_t(denied)))
}

// Flush writes all activity that was recorded before this call to the database.
//
// The tracker also flushes at every FlushInterval. After any error, the next flush carries the activity. If the context
// ends first, Flush returns the context's error, and the flush itself continues in the background until its own limit.
func (t *Tracker) Flush(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return await(ctx, func() error {
		return t.with(func(tracker C.bridge_tracker) C.bridge_result { return C.bridge_flush(tracker) })
	})
}

// Shutdown refuses later activity, flushes for the last time, stops the tracker and releases it.
//
// It returns the error of the last flush. The database then lacks the activity since the last successful flush, and
// with a StateDir the next start restores it. Later calls of all methods return [ErrStopped], also those of Shutdown.
//
// If the context ends first, Shutdown returns the context's error, and the shutdown continues in the background, at
// most about twice ShutdownTimeout. If the context has ended before the call, the tracker still shuts down. So a
// process that must not lose activity passes a context that lasts longer than ShutdownTimeout.
func (t *Tracker) Shutdown(ctx context.Context) error {
	if t.isShutdown.Swap(true) {
		return stopped
	}
	return await(ctx, func() error {
		err := t.with(func(tracker C.bridge_tracker) C.bridge_result { return C.bridge_shutdown(tracker) })
		if err == nil {
			t.release()
		} else {
			// A flush may still wait for the database.
			go t.release()
		}
		return err
	})
}

// release waits for the end of all calls, and frees the tracker.
func (t *Tracker) release() {
	t.use.Lock()
	defer t.use.Unlock()
	C.bridge_free(t.c)
	t.c = 0
}

// begin begins a call of the library, which must end with use.RUnlock. It returns false if the tracker is stopped.
func (t *Tracker) begin() bool {
	if !t.use.TryRLock() {
		return false
	}
	if t.c == 0 {
		t.use.RUnlock()
		return false
	}
	return true
}

// with calls a function with the tracker of the library, unless it has been released.
func (t *Tracker) with(call func(C.bridge_tracker) C.bridge_result) error {
	if !t.begin() {
		return stopped
	}
	defer t.use.RUnlock()
	return failure(call(t.c))
}

// await calls a function on another goroutine, and returns earlier if the context ends.
//
// The library cannot interrupt a call. The goroutine ends with the call, because its channel has room for the result.
func await(ctx context.Context, call func() error) error {
	done := make(chan error, 1)
	go func() { done <- call() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func idOf(id ID) C.bridge_id {
	low, high := id.halves()
	return C.bridge_id{low: C.uint64_t(low), high: C.uint64_t(high)}
}

// failure returns the error of a result, or nil after a success.
func failure(result C.bridge_result) error {
	if result.status == C.BOUNDARY_USAGE_OK {
		return nil
	}
	defer C.free(unsafe.Pointer(result.message))
	return &Error{Status: Status(result.status), Message: C.GoString(result.message)}
}
