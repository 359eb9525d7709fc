// The Go replica of the test: replica URL REPLICA FLUSH_EVERY.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"os"
	"strconv"
	"time"

	boundaryusage "example.com/boundary-usage/host/go"
)

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		log.Fatal("Go: ", err)
	}
}

func run(url, replica, flushEvery string) error {
	every, err := strconv.Atoi(flushEvery)
	if err != nil {
		return err
	}
	id, err := boundaryusage.ParseID(replica)
	if err != nil {
		return err
	}
	tracker, err := boundaryusage.Start(
		boundaryusage.Options{Database: url, Replica: id, FlushInterval: 24 * time.Hour})
	if err != nil {
		return err
	}
	activities := json.NewDecoder(os.Stdin)
	for tracked := 1; ; tracked++ {
		var activity struct {
			Workspace, Owner boundaryusage.ID
			Allowed, Denied  uint64
		}
		err := activities.Decode(&activity)
		if errors.Is(err, io.EOF) {
			return tracker.Shutdown(context.Background())
		}
		if err != nil {
			return err
		}
		if err := tracker.Track(activity.Workspace, activity.Owner, activity.Allowed, activity.Denied); err != nil {
			return err
		}
		if tracked%every == 0 {
			if err := tracker.Flush(context.Background()); err != nil {
				return err
			}
		}
	}
}
