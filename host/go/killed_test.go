package boundaryusage_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"

	usage "example.com/boundary-usage/host/go"
)

func TestAKilledProcessLosesAtMostTheActivityOfTheCheckpointInterval(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, url string) {
		directory := newStateDir(t)
		command := exec.Command(os.Args[0])
		command.Env = append(
			os.Environ(), "BOUNDARY_USAGE_TEST_URL="+url, "BOUNDARY_USAGE_TEST_STATE_DIR="+directory)
		command.Stderr = os.Stderr
		output, err := command.StdoutPipe()
		must(t, err)
		must(t, command.Start())
		var tracked []int64
		var complete int64
		isKilled := false
		// After the kill, the loop reads the rest of the pipe.
		for lines := bufio.NewScanner(output); lines.Scan(); {
			var at int64
			if _, err := fmt.Sscan(lines.Text(), &at, &complete); err != nil {
				t.Fatal(lines.Text())
			}
			tracked = append(tracked, at)
			if complete > tracked[0]+2*checkpointInterval.Nanoseconds() && !isKilled {
				must(t, command.Process.Kill())
				isKilled = true
			}
		}
		_ = command.Wait()
		interval := checkpointInterval.Nanoseconds()
		age := tracked[len(tracked)-1] - complete
		t.Logf("the checkpoint had an age of %d ms", age/1e6)
		// A busy machine may write a checkpoint late.
		if age > 4*interval {
			t.Errorf("the checkpoint had an age of %d ms", age/1e6)
		}

		tracker := start(t, usage.Options{Database: url, StateDir: directory})
		equal(t, statusOf(t, tracker).Checkpoint.Restored, true)
		must(t, tracker.Track(id("w2"), id("u1"), 0, 1))
		must(t, tracker.Shutdown(context.Background()))
		collected := program{url}.collect(t)
		equal(t, collected, totals{2, 1, collected.Allowed, 1})
		sure := uint64(0)
		for _, at := range tracked {
			// A complete checkpoint lacks activity that still waits for the component.
			if at < complete-interval {
				sure++
			}
		}
		// The process may have been killed between an activity and its line.
		if collected.Allowed < sure || collected.Allowed > uint64(len(tracked))+1 {
			t.Fatalf("counted %d, expected %d to %d", collected.Allowed, sure, len(tracked)+1)
		}
	})
}
