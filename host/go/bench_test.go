package boundaryusage_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	usage "example.com/boundary-usage/host/go"
)

// BenchmarkTrack measures a call of Track from one and from several goroutines, each with its own ids.
func BenchmarkTrack(b *testing.B) {
	tracker := start(b, usage.Options{Database: newSqlite(b)})
	for _, goroutines := range []int{1, 2, 16} {
		b.Run(fmt.Sprintf("goroutines=%d", goroutines), func(b *testing.B) {
			b.ReportAllocs()
			done := make(chan error, goroutines)
			for number := 1; number <= goroutines; number++ {
				go func(id usage.ID) {
					var err error
					for i := 0; i < b.N/goroutines && err == nil; i++ {
						err = tracker.Track(id, id, 1, 0)
					}
					done <- err
				}(numbered(uint64(number)))
			}
			for i := 0; i < goroutines; i++ {
				must(b, <-done)
			}
		})
	}
}

// BenchmarkMiddleware measures a handler without and with the middleware. The difference is the cost of the middleware.
func BenchmarkMiddleware(b *testing.B) {
	handler := http.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200) }))
	middleware := usage.NewMiddleware(
		start(b, usage.Options{Database: newSqlite(b)}), usage.IdentifyByHeaders("X-Workspace", "X-Owner"),
		usage.MiddlewareOptions{})
	request := httptest.NewRequest(http.MethodGet, "/", nil)
	request.Header.Set("X-Workspace", id("w1").String())
	request.Header.Set("X-Owner", id("u1").String())
	for name, handler := range map[string]http.Handler{"without": handler, "with": middleware.Handler(handler)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			writer := httptest.NewRecorder()
			for i := 0; i < b.N; i++ {
				handler.ServeHTTP(writer, request)
			}
		})
	}
}
