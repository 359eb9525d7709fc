package boundaryusage

import (
	"errors"
	"fmt"
	"log"
	"net/http"
	"sync/atomic"
)

// Middleware tracks the requests of handlers of net/http. Its methods may be called from any goroutine.
//
// It counts each identified request once, when the handler returns or panics. It never waits for the database, and
// changes neither request nor response.
type Middleware struct {
	tracker      *Tracker
	identify     Identify
	isDenied     func(request *http.Request, status int) bool
	log          func(format string, arguments ...any)
	allowed      atomic.Uint64
	denied       atomic.Uint64
	unidentified atomic.Uint64
	refused      atomic.Uint64
}

// Identify returns the sender of a request. If ok is false, the request has no identity.
type Identify func(request *http.Request) (workspace, owner ID, ok bool)

// MiddlewareOptions are the options of a [Middleware]. The zero value of an option means its default.
type MiddlewareOptions struct {
	// IsDenied returns whether a response is a denial. Default: the statuses 403 and 407.
	//
	// The status is 0 if the handler has sent none, because it panicked, took over the connection, or lost its client.
	// A proxy that forwards responses can set this option, because an upstream's own 403 is no denial of the proxy.
	IsDenied func(request *http.Request, status int) bool
	// ErrorLog receives the 1st, 2nd, 4th, 8th … request of each kind that passes untracked. Default: the standard
	// logger of the package log.
	ErrorLog *log.Logger
}

// TrafficCounts are the request counts of a [Middleware].
type TrafficCounts struct {
	// Allowed is the number of allowed requests that the tracker accepted.
	Allowed uint64
	// Denied is the number of denied requests that the tracker accepted.
	Denied uint64
	// Unidentified is the number of requests without a valid identity. They passed untracked.
	Unidentified uint64
	// Refused is the number of requests that the tracker refused. They passed and are in no summary, so this count
	// should stay 0.
	Refused uint64
}

// NewMiddleware creates a middleware for a tracker. The caller remains responsible for the tracker's shutdown, which
// must follow the shutdown of the server.
func NewMiddleware(tracker *Tracker, identify Identify, options MiddlewareOptions) *Middleware {
	m := &Middleware{tracker: tracker, identify: identify, isDenied: options.IsDenied, log: log.Printf}
	if m.isDenied == nil {
		m.isDenied = isDeniedByStatus
	}
	if options.ErrorLog != nil {
		m.log = options.ErrorLog.Printf
	}
	return m
}

func isDeniedByStatus(_ *http.Request, status int) bool {
	return status == http.StatusForbidden || status == http.StatusProxyAuthRequired
}

// IdentifyByHeaders returns a function that reads workspace and owner from two headers, each a UUID.
//
// The proxy must set these headers itself or remove them from the requests of clients. Otherwise a client could claim
// any identity.
func IdentifyByHeaders(workspace, owner string) Identify {
	return func(request *http.Request) (ID, ID, bool) {
		workspaceID, err := ParseID(request.Header.Get(workspace))
		if err != nil {
			return ID{}, ID{}, false
		}
		ownerID, err := ParseID(request.Header.Get(owner))
		return workspaceID, ownerID, err == nil
	}
}

// Handler returns a handler that calls the next handler and tracks the request.
//
// It identifies the sender before the call, because proxies remove headers later.
func (m *Middleware) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		workspace, owner, ok := m.identify(request)
		if !ok {
			m.untracked(&m.unidentified, "without an identity", nil)
			next.ServeHTTP(writer, request)
			return
		}
		observed := &statusObserver{ResponseWriter: writer}
		// A panic of the handler continues after the track.
		defer func() { m.track(workspace, owner, m.isDenied(request, observed.status)) }()
		next.ServeHTTP(observed.withInterfaces(), request)
	})
}

// Counts returns the counts so far.
func (m *Middleware) Counts() TrafficCounts {
	return TrafficCounts{m.allowed.Load(), m.denied.Load(), m.unidentified.Load(), m.refused.Load()}
}

func (m *Middleware) track(workspace, owner ID, isDenied bool) {
	count, allowed, denied := &m.allowed, uint64(1), uint64(0)
	if isDenied {
		count, allowed, denied = &m.denied, 0, 1
	}
	err := m.tracker.TryTrack(workspace, owner, allowed, denied)
	switch {
	case err == nil:
		count.Add(1)
	case errors.Is(err, ErrInvalidArgument):
		m.untracked(&m.unidentified, "without a valid identity", err)
	default:
		m.untracked(&m.refused, "after a failure", err)
	}
}

// untracked counts a request that is not tracked. Many of them cause few messages.
func (m *Middleware) untracked(count *atomic.Uint64, what string, err error) {
	total := count.Add(1)
	if total&(total-1) != 0 {
		return
	}
	cause := ""
	if err != nil {
		cause = fmt.Sprintf("; the last one: %v", err)
	}
	m.log("boundary usage: untracked requests %s so far: %d%s", what, total, cause)
}
