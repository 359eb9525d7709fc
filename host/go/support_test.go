package boundaryusage_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	usage "example.com/boundary-usage/host/go"
)

// manual is the interval of trackers that only the test flushes.
const manual = 24 * time.Hour

// longest limits the waits of the tests. It only ends a test that has failed.
const longest = time.Minute

var databases atomic.Int64

// variable returns an environment variable that `make test-go` sets.
func variable(t testing.TB, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s is not set; run `make test-go`", name)
	}
	return value
}

// onEachDatabase runs a test on an empty database of each kind.
func onEachDatabase(t *testing.T, run func(t *testing.T, url string)) {
	t.Run("sqlite", func(t *testing.T) { run(t, newSqlite(t)) })
	t.Run("postgres", func(t *testing.T) { run(t, newPostgres(t)) })
}

// newSqlite returns the URL of a file that does not exist yet.
func newSqlite(t testing.TB) string {
	return "sqlite:" + filepath.Join(t.TempDir(), "usage.db")
}

// newPostgres creates a database, and returns its URL.
func newPostgres(t testing.TB) string {
	t.Helper()
	server := variable(t, "BOUNDARY_USAGE_TEST_POSTGRES")
	name := fmt.Sprintf("go_%d_%d", os.Getpid(), databases.Add(1))
	sql(t, server, "CREATE DATABASE "+name)
	return server[:strings.LastIndex(server, "/")+1] + name
}

// sql runs a statement on PostgreSQL.
func sql(t testing.TB, url, statement string) {
	t.Helper()
	output, err := exec.Command("psql", "--no-psqlrc", "--quiet", "--dbname", url, "--command", statement).CombinedOutput()
	if err != nil {
		t.Fatalf("psql: %v: %s", err, output)
	}
}

// program is the program of the Rust host, on one database.
type program struct{ url string }

// command returns a command of the program with its output in JSON.
func (p program) command(t testing.TB, arguments ...string) *exec.Cmd {
	arguments = append([]string{"--format", "json"}, arguments...)
	command := exec.Command(variable(t, "BOUNDARY_USAGE_TEST_PROGRAM"), arguments...)
	command.Env = append(os.Environ(), "BOUNDARY_USAGE_DATABASE="+p.url)
	command.Stderr = os.Stderr
	return command
}

// run runs a command, and decodes its output.
func (p program) run(t testing.TB, decoded any, arguments ...string) {
	t.Helper()
	output, err := p.command(t, arguments...).Output()
	must(t, err)
	must(t, json.Unmarshal(output, decoded))
}

// totals are the unique workspaces, the unique users, the allowed and the denied requests of a period.
type totals struct {
	Workspaces uint64 `json:"unique_workspaces"`
	Users      uint64 `json:"unique_users"`
	Allowed    uint64 `json:"allowed_requests"`
	Denied     uint64 `json:"denied_requests"`
}

// collect closes the period.
func (p program) collect(t testing.TB) (collected totals) {
	t.Helper()
	p.run(t, &collected, "collect")
	return collected
}

// rows returns the number of rows of the open period.
func (p program) rows(t testing.TB) int {
	t.Helper()
	var status struct{ Rows []json.RawMessage }
	p.run(t, &status, "status")
	return len(status.Rows)
}

// proxy cuts connections to PostgreSQL. tests/src/bin/postgres-proxy.rs lists its commands.
type proxy struct {
	url   string
	t     testing.TB
	input io.Writer
	lines *bufio.Scanner
}

func newProxy(t testing.TB, url string) *proxy {
	t.Helper()
	command := exec.Command(variable(t, "BOUNDARY_USAGE_TEST_POSTGRES_PROXY"), url)
	command.Stderr = os.Stderr
	input, err := command.StdinPipe()
	must(t, err)
	output, err := command.StdoutPipe()
	must(t, err)
	must(t, command.Start())
	t.Cleanup(func() {
		// The proxy ends with its input.
		must(t, input.Close())
		must(t, command.Wait())
	})
	p := &proxy{t: t, input: input, lines: bufio.NewScanner(output)}
	p.url = p.line()
	return p
}

// run runs a command, and returns the line that the proxy prints.
func (p *proxy) run(command string) string {
	p.t.Helper()
	_, err := fmt.Fprintln(p.input, command)
	must(p.t, err)
	return p.line()
}

func (p *proxy) line() string {
	p.t.Helper()
	if !p.lines.Scan() {
		p.t.Fatal("the proxy has ended")
	}
	return p.lines.Text()
}

// newStateDir creates a state directory.
//
// Its compiled component is the one of the user's cache, because a development build of the library takes seconds to
// compile it.
func newStateDir(t testing.TB) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	must(t, err)
	compiled := filepath.Join(cache, "boundary-usage")
	must(t, os.MkdirAll(compiled, 0o700))
	directory := t.TempDir()
	must(t, os.Symlink(compiled, filepath.Join(directory, "compiled")))
	return directory
}

// start starts a tracker that the test shuts down, or else its end does.
func start(t testing.TB, options usage.Options) *usage.Tracker {
	t.Helper()
	if options.FlushInterval == 0 {
		options.FlushInterval = manual
	}
	tracker, err := usage.Start(options)
	must(t, err)
	t.Cleanup(func() { _ = tracker.Shutdown(context.Background()) })
	return tracker
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal(t testing.TB, found, expected any) {
	t.Helper()
	if !reflect.DeepEqual(found, expected) {
		t.Fatalf("found %+v, expected %+v", found, expected)
	}
}

// until waits until a condition is true.
func until(t testing.TB, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(longest); !condition(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("the condition is still false")
		}
	}
}

func statusOf(t testing.TB, tracker *usage.Tracker) usage.TrackerStatus {
	t.Helper()
	status, err := tracker.Status()
	must(t, err)
	return status
}
