package boundaryusage

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// statusObserver is a response writer that remembers the status of the response.
type statusObserver struct {
	http.ResponseWriter
	// status is 0 until the response begins.
	status int
}

// Unwrap returns the writer of the server, for http.ResponseController.
func (o *statusObserver) Unwrap() http.ResponseWriter {
	return o.ResponseWriter
}

// WriteHeader sends the status. An informational status is not the status of the response, except for an upgrade.
func (o *statusObserver) WriteHeader(status int) {
	if status >= http.StatusOK || status == http.StatusSwitchingProtocols {
		o.begin(status)
	}
	o.ResponseWriter.WriteHeader(status)
}

func (o *statusObserver) Write(body []byte) (int, error) {
	o.begin(http.StatusOK)
	return o.ResponseWriter.Write(body)
}

// ReadFrom keeps the server's way to send a file without a copy.
func (o *statusObserver) ReadFrom(source io.Reader) (int64, error) {
	o.begin(http.StatusOK)
	return io.Copy(o.ResponseWriter, source)
}

// begin remembers the first status, which is the one that the client gets.
func (o *statusObserver) begin(status int) {
	if o.status == 0 {
		o.status = status
	}
}

// The optional interfaces of the server's writer. Each is a type of its own, because handlers look for them.
type (
	flusher  struct{ o *statusObserver }
	hijacker struct{ o *statusObserver }
	pusher   struct{ o *statusObserver }
)

func (f flusher) Flush() {
	f.o.begin(http.StatusOK)
	f.o.ResponseWriter.(http.Flusher).Flush()
}

func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.o.ResponseWriter.(http.Hijacker).Hijack()
}

func (p pusher) Push(target string, options *http.PushOptions) error {
	return p.o.ResponseWriter.(http.Pusher).Push(target, options)
}

// withInterfaces returns the writer with exactly those optional interfaces that the server's writer has.
func (o *statusObserver) withInterfaces() http.ResponseWriter {
	_, flushes := o.ResponseWriter.(http.Flusher)
	_, hijacks := o.ResponseWriter.(http.Hijacker)
	_, pushes := o.ResponseWriter.(http.Pusher)
	switch {
	case flushes && hijacks && pushes:
		return struct {
			*statusObserver
			flusher
			hijacker
			pusher
		}{o, flusher{o}, hijacker{o}, pusher{o}}
	case flushes && hijacks:
		return struct {
			*statusObserver
			flusher
			hijacker
		}{o, flusher{o}, hijacker{o}}
	case flushes && pushes:
		return struct {
			*statusObserver
			flusher
			pusher
		}{o, flusher{o}, pusher{o}}
	case hijacks && pushes:
		return struct {
			*statusObserver
			hijacker
			pusher
		}{o, hijacker{o}, pusher{o}}
	case flushes:
		return struct {
			*statusObserver
			flusher
		}{o, flusher{o}}
	case hijacks:
		return struct {
			*statusObserver
			hijacker
		}{o, hijacker{o}}
	case pushes:
		return struct {
			*statusObserver
			pusher
		}{o, pusher{o}}
	}
	return o
}
