// Package boundaryusage counts the usage of an egress boundary: unique workspaces, unique users, allowed and denied
// requests, per period and over all replicas of a proxy.
//
// The tracker is a sandboxed WebAssembly component, which all hosts share. This package runs it through the C library
// boundary_usage, which pkg-config must find. Replicas of all hosts can share a database.
//
// [Start] starts a tracker. [Tracker.Track] records activity from any goroutine and never waits for the database. The
// tracker flushes every minute by itself, and [Tracker.Shutdown] flushes for the last time. [Middleware] tracks the
// requests of servers of net/http.
package boundaryusage

// #cgo pkg-config: boundary_usage
// #cgo CFLAGS: -Wall
// #include "bridge.h"
import "C"

// Version returns the version of the C library, such as "0.1.0".
func Version() string {
	return C.GoString(C.boundary_usage_version())
}
