package boundaryusage_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	usage "example.com/boundary-usage/host/go"
)

// TestScenarios runs the scenarios that all hosts run. tests/src/scenario.rs describes their lines.
//
// This host cannot inject faults into its database. So a scenario with faults runs on a PostgreSQL whose connections a
// proxy cuts.
func TestScenarios(t *testing.T) {
	paths, err := filepath.Glob("../../tests/scenarios/*.txt")
	must(t, err)
	if len(paths) < 17 {
		t.Fatalf("there are only %d scenarios", len(paths))
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		must(t, err)
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			if strings.Contains(string(text), "\nfail ") {
				runScenario(t, newPostgres(t), string(text))
			} else {
				onEachDatabase(t, func(t *testing.T, url string) { runScenario(t, url, string(text)) })
			}
		})
	}
}

// scenario has the replicas of one scenario, on their own database.
type scenario struct {
	program  program
	url      string
	proxy    *proxy
	trackers map[string]*usage.Tracker
}

func runScenario(t *testing.T, url, text string) {
	s := scenario{program: program{url}, url: url, trackers: map[string]*usage.Tracker{}}
	if strings.HasPrefix(url, "postgres") {
		s.proxy = newProxy(t, url)
		s.url = s.proxy.url
	}
	for number, line := range strings.Split(text, "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := s.step(t, strings.Fields(line)); err != nil {
			t.Fatalf("line %d: %s: %v", number+1, line, err)
		}
	}
	if s.proxy != nil {
		equal(t, s.proxy.run("pending"), "0")
	}
}

func (s *scenario) step(t *testing.T, words []string) error {
	arguments := words[1:]
	switch command := words[0]; command {
	case "track":
		return s.tracker(t, arguments[0]).Track(
			id(arguments[1]), id(arguments[2]), number(arguments[3]), number(arguments[4]))
	case "threads":
		threads, times := number(arguments[1]), number(arguments[2])
		return trackFromThreads(s.tracker(t, arguments[0]), threads, times, number(arguments[3]), number(arguments[4]))
	case "beside":
		return trackBesideFlushes(
			s.tracker(t, arguments[0]), number(arguments[1]), number(arguments[2]), number(arguments[3]))
	case "flush":
		outcome, err := s.flush(t, s.tracker(t, arguments[0]))
		if expected := arguments[2]; expected != outcome && expected != "any" {
			return fmt.Errorf("the outcome is %s (%v)", outcome, err)
		}
	case "fail":
		s.fail(t, arguments[0])
	case "restart":
		tracker := s.tracker(t, arguments[0])
		delete(s.trackers, arguments[0])
		return tracker.Shutdown(context.Background())
	case "collect":
		c := s.program.collect(t)
		found := fmt.Sprintf("W%d U%d A%d D%d", c.Workspaces, c.Users, c.Allowed, c.Denied)
		if found != strings.Join(arguments[1:], " ") {
			return fmt.Errorf("the collection returned %s", found)
		}
	case "rows":
		if rows := s.program.rows(t); strconv.Itoa(rows) != arguments[1] {
			return fmt.Errorf("there are %d rows", rows)
		}
	default:
		return fmt.Errorf("unknown line")
	}
	return nil
}

func (s *scenario) tracker(t *testing.T, replica string) *usage.Tracker {
	if s.trackers[replica] == nil {
		s.trackers[replica] = start(t, usage.Options{Database: s.url, Replica: id(replica)})
	}
	return s.trackers[replica]
}

// flush flushes, and returns the outcome as scenarios name it.
func (s *scenario) flush(t *testing.T, tracker *usage.Tracker) (string, error) {
	before := statusOf(t, tracker)
	err := tracker.Flush(context.Background())
	if s.proxy != nil {
		s.proxy.run("accept")
	}
	after := statusOf(t, tracker)
	switch {
	case err != nil:
		return "error", err
	case after.IdleFlushes > before.IdleFlushes:
		return "idle", nil
	case after.ConfirmedFlushes > before.ConfirmedFlushes:
		return "confirmed", nil
	case after.Flushes > before.Flushes:
		return "written", nil
	}
	return "uncounted", nil
}

// fail lets the step of the next flush fail. A flush has six requests: begin, two locks, read, upsert, commit.
func (s *scenario) fail(t *testing.T, step string) {
	cuts := map[string]string{
		"acquire":           "cut request:2",
		"read":              "cut request:4",
		"upsert":            "cut write",
		"commit":            "cut commit",
		"commit-lost":       "cut commit",
		"commit-reply-lost": "cut reply",
	}
	if cut, exists := cuts[step]; exists {
		s.proxy.run(cut)
		return
	}
	if step != "begin" {
		t.Fatalf("unknown step %q", step)
	}
	// The tracker replaces a broken idle connection, so no new one may succeed either.
	s.proxy.run("refuse")
	sql(t, s.program.url, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE datname = current_database() AND pid <> pg_backend_pid()`)
}

// trackFromThreads tracks from several goroutines simultaneously, each with its own ids.
func trackFromThreads(tracker *usage.Tracker, threads, times, allowed, denied uint64) error {
	failures := make(chan error, threads)
	for number := uint64(1); number <= threads; number++ {
		go func(id usage.ID) {
			var err error
			for i := uint64(0); i < times && err == nil; i++ {
				err = tracker.Track(id, id, allowed, denied)
			}
			failures <- err
		}(numbered(number))
	}
	for ; threads > 0; threads-- {
		if err := <-failures; err != nil {
			return err
		}
	}
	return nil
}

// trackBesideFlushes tracks while as many flushes run.
func trackBesideFlushes(tracker *usage.Tracker, count, allowed, denied uint64) error {
	var flushes sync.WaitGroup
	var failed error
	flushes.Add(1)
	go func() {
		defer flushes.Done()
		for i := uint64(0); i < count && failed == nil; i++ {
			failed = tracker.Flush(context.Background())
		}
	}()
	for number := uint64(1); number <= count; number++ {
		if err := tracker.Track(numbered(number), numbered(number), allowed, denied); err != nil {
			return err
		}
	}
	flushes.Wait()
	return failed
}

// id returns the UUID of a name such as w7. Its first byte is the letter, and its last bytes are the number.
func id(name string) usage.ID {
	named := numbered(number(name[1:]))
	named[0] = name[0]
	return named
}

// numbered returns the UUID with this number.
func numbered(number uint64) (numbered usage.ID) {
	binary.BigEndian.PutUint64(numbered[8:], number)
	return numbered
}

func number(text string) uint64 {
	number, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		panic(err)
	}
	return number
}
