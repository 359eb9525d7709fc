package boundaryusage_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	usage "example.com/boundary-usage/host/go"
)

const activities = 2_000

// recording writes the activity of the Rust replica: 700 workspaces and 300 users.
//
// The Go replica also has 200 of these workspaces and 100 of these users.
func recording(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "activity.jsonl")
	file, err := os.Create(path)
	must(t, err)
	for n := uint64(0); n < activities; n++ {
		_, err := fmt.Fprintf(file, `{"workspace":"%v","owner":"%v","allowed":2,"denied":1}`+"\n",
			numbered(1+n%700), numbered(1+n%300))
		must(t, err)
	}
	must(t, file.Close())
	return path
}

func TestGoAndRustReplicasHaveExactTotalsOnOneDatabase(t *testing.T) {
	url := newPostgres(t)
	rust := program{url}.command(t, "replay", recording(t), "--flush-every", "100")
	must(t, rust.Start())
	tracker := start(t, usage.Options{Database: url})
	for n := uint64(0); n < activities; n++ {
		// 500 workspaces and 200 users, from 501 and 201.
		must(t, tracker.Track(numbered(501+n%500), numbered(201+n%200), 3, 1))
		if n%100 == 0 {
			must(t, tracker.Flush(context.Background()))
		}
	}
	must(t, tracker.Shutdown(context.Background()))
	must(t, rust.Wait())
	equal(t, program{url}.rows(t), 2)
	equal(t, program{url}.collect(t), totals{1_000, 400, 5 * activities, 2 * activities})
}

func TestCollectionsDuringFlushesCountEveryRequestOnce(t *testing.T) {
	url := newPostgres(t)
	rust := program{url}.command(t, "replay", recording(t), "--flush-every", "20")
	must(t, rust.Start())
	tracker := start(t, usage.Options{Database: url, FlushInterval: time.Millisecond})
	done := make(chan error, 1)
	go func() {
		done <- func() error {
			for n := uint64(0); n < activities; n++ {
				if err := tracker.Track(numbered(1+n%50), numbered(1), 3, 1); err != nil {
					return err
				}
				if n%20 == 0 {
					if err := tracker.Flush(context.Background()); err != nil {
						return err
					}
				}
			}
			if err := tracker.Shutdown(context.Background()); err != nil {
				return err
			}
			return rust.Wait()
		}()
	}()
	sum := totals{}
	collect := func() {
		collected := program{url}.collect(t)
		sum.Allowed += collected.Allowed
		sum.Denied += collected.Denied
	}
	for isDone := false; !isDone; {
		collect()
		select {
		case err := <-done:
			must(t, err)
			isDone = true
		default:
		}
	}
	collect()
	equal(t, sum, totals{Allowed: 5 * activities, Denied: 2 * activities})
}

func TestAReplicaCanMoveBetweenHosts(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, url string) {
		replica, database := id("r1"), program{url}
		track := func(workspace string) {
			tracker := start(t, usage.Options{Database: url, Replica: replica})
			must(t, tracker.Track(id(workspace), id("u1"), 1, 0))
			must(t, tracker.Shutdown(context.Background()))
		}
		track("w1")
		var replayed struct{ Flushes int }
		database.run(t, &replayed, "replay", recording(t), "--replica", replica.String())
		track("w2")
		var status struct {
			Replicas []struct {
				LastFlush int `json:"last_flush"`
			}
		}
		database.run(t, &status, "status")
		equal(t, len(status.Replicas), 1)
		equal(t, status.Replicas[0].LastFlush, replayed.Flushes+2)
		equal(t, database.collect(t), totals{702, 301, 2*activities + 2, activities})
	})
}
