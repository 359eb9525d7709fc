package boundaryusage_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	usage "example.com/boundary-usage/host/go"
)

// checkpointInterval is the interval of the process that is killed.
const checkpointInterval = 500 * time.Millisecond

// TestMain runs the tests, or the process that a test kills.
func TestMain(m *testing.M) {
	url, directory := os.Getenv("BOUNDARY_USAGE_TEST_URL"), os.Getenv("BOUNDARY_USAGE_TEST_STATE_DIR")
	if url == "" {
		os.Exit(m.Run())
	}
	fmt.Println("error", trackForever(url, directory))
	os.Exit(1)
}

// trackForever tracks an activity each millisecond. After each one, it prints the time before the activity, and the
// time at which the checkpoint was last complete.
func trackForever(url, directory string) error {
	tracker, err := usage.Start(usage.Options{
		Database: url, StateDir: directory, FlushInterval: manual, CheckpointInterval: checkpointInterval})
	if err != nil {
		return err
	}
	for range time.Tick(time.Millisecond) {
		tracked := time.Now()
		if err := tracker.Track(id("w1"), id("u1"), 1, 0); err != nil {
			return err
		}
		status, err := tracker.Status()
		if err != nil {
			return err
		}
		fmt.Println(tracked.UnixNano(), status.Checkpoint.CompleteAt.UnixNano())
	}
	return nil
}
