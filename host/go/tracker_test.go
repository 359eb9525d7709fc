package boundaryusage_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	usage "example.com/boundary-usage/host/go"
)

func TestAShutdownCountsExactlyWhatConcurrentTracksAccepted(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, url string) {
		tracker := start(t, usage.Options{Database: url})
		var accepted atomic.Uint64
		var begun, tracking sync.WaitGroup
		for number := uint64(1); number <= 8; number++ {
			begun.Add(1)
			tracking.Add(1)
			go func(id usage.ID) {
				defer tracking.Done()
				err := tracker.Track(id, id, 1, 2)
				for begun.Done(); err == nil; err = tracker.Track(id, id, 1, 2) {
					accepted.Add(1)
				}
				if !errors.Is(err, usage.ErrStopped) {
					t.Error(err)
				}
			}(numbered(number))
		}
		begun.Wait()
		must(t, tracker.Flush(context.Background()))
		must(t, tracker.Shutdown(context.Background()))
		tracking.Wait()
		count := accepted.Load()
		equal(t, program{url}.collect(t), totals{8, 8, count, 2 * count})
	})
}

func TestACancelledFlushContinuesAndCountsOnce(t *testing.T) {
	url := newPostgres(t)
	proxy := newProxy(t, url)
	tracker := start(t, usage.Options{Database: proxy.url, FlushTimeout: 2 * time.Second})
	must(t, tracker.Track(id("w1"), id("u1"), 3, 1))
	proxy.run("cut silence")
	ctx, cancel := context.WithCancel(context.Background())
	flushed := make(chan error)
	go func() { flushed <- tracker.Flush(ctx) }()
	proxy.run("committing 1")
	cancel()
	if err := <-flushed; !errors.Is(err, context.Canceled) {
		t.Fatalf("the error is %v", err)
	}
	equal(t, statusOf(t, tracker).FailedFlushes, uint64(0))
	until(t, func() bool { return statusOf(t, tracker).FailedFlushes == 1 })
	if err := tracker.Flush(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("the error is %v", err)
	}
	must(t, tracker.Shutdown(context.Background()))
	equal(t, program{url}.collect(t), totals{1, 1, 3, 1})
}

func TestACancelledShutdownContinuesAndCountsOnce(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, url string) {
		tracker := start(t, usage.Options{Database: url})
		must(t, tracker.Track(id("w1"), id("u1"), 3, 1))
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := tracker.Shutdown(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		until(t, func() bool {
			_, err := tracker.Status()
			return errors.Is(err, usage.ErrStopped)
		})
		equal(t, program{url}.collect(t), totals{1, 1, 3, 1})
	})
}

func TestAFlushThatHangsDelaysNoOtherCallAfterAShutdown(t *testing.T) {
	proxy := newProxy(t, newPostgres(t))
	tracker := start(t, usage.Options{
		Database: proxy.url, FlushTimeout: longest, ShutdownTimeout: 100 * time.Millisecond})
	must(t, tracker.Track(id("w1"), id("u1"), 3, 1))
	proxy.run("cut silence")
	flushed := make(chan error, 1)
	go func() { flushed <- tracker.Flush(context.Background()) }()
	proxy.run("committing 1")
	if err := tracker.Shutdown(context.Background()); !errors.Is(err, usage.ErrTimedOut) {
		t.Fatalf("the error is %v", err)
	}
	for i := 0; i < 1000; i++ {
		if err := tracker.Track(id("w1"), id("u1"), 1, 0); !errors.Is(err, usage.ErrStopped) {
			t.Fatalf("the error is %v", err)
		}
	}
	equal(t, len(flushed), 0)
}

func TestEveryCallAfterAShutdownReturnsErrStopped(t *testing.T) {
	tracker := start(t, usage.Options{Database: newSqlite(t)})
	must(t, tracker.Shutdown(context.Background()))
	_, statusError := tracker.Status()
	for name, err := range map[string]error{
		"Track":    tracker.Track(id("w1"), id("u1"), 1, 0),
		"TryTrack": tracker.TryTrack(id("w1"), id("u1"), 1, 0),
		"Flush":    tracker.Flush(context.Background()),
		"Shutdown": tracker.Shutdown(context.Background()),
		"Status":   statusError,
	} {
		if !errors.Is(err, usage.ErrStopped) {
			t.Errorf("%s returns %v", name, err)
		}
	}
}

// threads returns the number of the library's threads in this process.
func threads(t *testing.T) (count int) {
	tasks, err := os.ReadDir("/proc/self/task")
	must(t, err)
	for _, task := range tasks {
		// A thread may end meanwhile.
		name, err := os.ReadFile("/proc/self/task/" + task.Name() + "/comm")
		if err == nil && strings.HasPrefix(string(name), "boundary-usage") {
			count++
		}
	}
	return count
}

func descriptors(t *testing.T) int {
	open, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(open)
}

func TestAShutdownReleasesThreadsAndDescriptors(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, url string) {
		run := func() {
			tracker := start(t, usage.Options{Database: url, StateDir: newStateDir(t)})
			if threads(t) == 0 {
				t.Fatal("a running tracker has no thread")
			}
			must(t, tracker.Shutdown(context.Background()))
		}
		// Go and the library open a few descriptors once.
		run()
		before := descriptors(t)
		run()
		run()
		until(t, func() bool {
			return threads(t) == 0 && descriptors(t) <= before
		})
	})
}

func TestAProgramThatTheProcessStartsInheritsNoDescriptor(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, url string) {
		inherited := func() string {
			output, err := exec.Command("ls", "/proc/self/fd").Output()
			must(t, err)
			return string(output)
		}
		before := inherited()
		tracker := start(t, usage.Options{Database: url, StateDir: newStateDir(t)})
		must(t, tracker.Track(id("w1"), id("u1"), 1, 0))
		equal(t, inherited(), before)
		must(t, tracker.Shutdown(context.Background()))
		equal(t, program{url}.collect(t), totals{1, 1, 1, 0})
	})
}

func TestLogMessagesReachTheFunctionUntilItIsReplaced(t *testing.T) {
	t.Cleanup(func() { usage.SetLog(nil) })
	type entry struct {
		level   usage.LogLevel
		message string
	}
	messages := make(chan entry, 1000)
	usage.SetLog(func(level usage.LogLevel, message string) {
		select {
		case messages <- entry{level, message}:
		default: // A full channel must not block the tracker.
		}
	})
	proxy := newProxy(t, newPostgres(t))
	tracker := start(t, usage.Options{Database: proxy.url, FlushInterval: time.Millisecond})
	must(t, tracker.Flush(context.Background()))
	proxy.run("refuse")
	proxy.run("cut commit")
	must(t, tracker.Track(id("w1"), id("u1"), 1, 0))
	for message := range messages {
		if message.level == usage.LogWarning && strings.Contains(message.message, "flush failed") {
			break
		}
	}
	usage.SetLog(nil)
	var later atomic.Int64
	usage.SetLog(func(usage.LogLevel, string) { later.Add(1) })
	for len(messages) > 0 {
		<-messages
	}
	// The tracker logs that flushes succeed again.
	proxy.run("accept")
	until(t, func() bool { return later.Load() > 0 })
	if len(messages) != 0 {
		t.Fatalf("the old function received %d messages", len(messages))
	}
	must(t, tracker.Shutdown(context.Background()))
}
