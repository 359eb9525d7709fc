package boundaryusage_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	boundaryusage "example.com/boundary-usage/host/go"
)

func Example() {
	directory, err := os.MkdirTemp("", "usage")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(directory)

	tracker, err := boundaryusage.Start(boundaryusage.Options{
		Database: "sqlite:" + filepath.Join(directory, "usage.db"), // or postgres://USER:PASSWORD@HOST/DATABASE
	})
	if err != nil {
		log.Fatal(err)
	}
	workspace := boundaryusage.MustParseID("0193a1b2-0000-7000-8000-000000000001")
	owner := boundaryusage.MustParseID("0193a1b2-0000-7000-8000-0000000000aa")
	if err := tracker.Track(workspace, owner, 5, 2); err != nil { // from any goroutine
		log.Fatal(err)
	}
	if err := tracker.Flush(context.Background()); err != nil { // also runs every minute by itself
		log.Fatal(err)
	}
	status, err := tracker.Status()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("activities:", status.Activities, "pending:", status.PendingActivities)
	if err := tracker.Shutdown(context.Background()); err != nil { // the last flush
		log.Fatal(err)
	}
	// Output: activities: 1 pending: 0
}

func ExampleError() {
	_, err := boundaryusage.Start(boundaryusage.Options{Database: "mysql://localhost/usage"})
	switch {
	case errors.Is(err, boundaryusage.ErrInvalidArgument):
		fmt.Println("correct the options")
	case errors.Is(err, boundaryusage.ErrUnavailable):
		fmt.Println("try again later")
	}
	// Output: correct the options
}

func ExampleMiddleware() {
	directory, err := os.MkdirTemp("", "usage")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(directory)
	tracker, err := boundaryusage.Start(boundaryusage.Options{Database: "sqlite:" + filepath.Join(directory, "usage.db")})
	if err != nil {
		log.Fatal(err)
	}

	usage := boundaryusage.NewMiddleware(
		tracker, boundaryusage.IdentifyByHeaders("X-Workspace", "X-Owner"), boundaryusage.MiddlewareOptions{})
	proxy := http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		if request.URL.Path == "/private" {
			http.Error(writer, "denied", http.StatusForbidden)
		}
	})
	server := httptest.NewServer(usage.Handler(proxy))
	for _, path := range []string{"/public", "/private", "/public"} {
		request, err := http.NewRequest(http.MethodGet, server.URL+path, nil)
		if err != nil {
			log.Fatal(err)
		}
		request.Header.Set("X-Workspace", "0193a1b2-0000-7000-8000-000000000001")
		request.Header.Set("X-Owner", "0193a1b2-0000-7000-8000-0000000000aa")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			log.Fatal(err)
		}
		response.Body.Close()
	}
	server.Close() // before the tracker, so that the last requests count
	if err := tracker.Shutdown(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%+v\n", usage.Counts())
	// Output: {Allowed:2 Denied:1 Unidentified:0 Refused:0}
}

func ExampleSetLog() {
	boundaryusage.SetLog(func(level boundaryusage.LogLevel, message string) {
		log.Printf("boundary usage: %v: %s", level, message)
	})
	boundaryusage.SetLog(nil) // discards messages again
	// Output:
}
