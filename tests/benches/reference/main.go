// The reference's algorithm in Go: each call takes one mutex and inserts into four maps.
//
// It reads one line per round, `INPUT THREADS ACTIVITIES FIRST`, and prints the nanoseconds that the round took, from
// the first call to the end of the last. The maps are new in every round, as after a flush.
package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"time"
)

type uuid [16]byte

type tracker struct {
	mu                   sync.Mutex
	workspacesDelta      map[uuid]struct{}
	workspacesCumulative map[uuid]struct{}
	usersDelta           map[uuid]struct{}
	usersCumulative      map[uuid]struct{}
	allowed, denied      int64
}

func newTracker() *tracker {
	return &tracker{
		workspacesDelta:      map[uuid]struct{}{},
		workspacesCumulative: map[uuid]struct{}{},
		usersDelta:           map[uuid]struct{}{},
		usersCumulative:      map[uuid]struct{}{},
	}
}

func (t *tracker) track(workspace, owner uuid, allowed, denied int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.workspacesDelta[workspace] = struct{}{}
	t.workspacesCumulative[workspace] = struct{}{}
	t.usersDelta[owner] = struct{}{}
	t.usersCumulative[owner] = struct{}{}
	t.allowed += allowed
	t.denied += denied
}

const users = uint64(1) << 62

func mixed(number uint64) uint64 {
	word := (number + 1) * 0x9e3779b97f4a7c15
	word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9
	word = (word ^ (word >> 27)) * 0x94d049bb133111eb
	return word ^ (word >> 31)
}

func id(number uint64) (id uuid) {
	binary.BigEndian.PutUint64(id[:8], mixed(2*number))
	binary.BigEndian.PutUint64(id[8:], mixed(2*number+1))
	return id
}

func ids(input string, number uint64) (uuid, uuid) {
	switch input {
	case "hot":
		workspace := mixed(number) % 1000
		return id(workspace), id(users + workspace%100)
	case "million":
		workspace := mixed(number) % 1000000
		return id(workspace), id(users + workspace)
	default:
		return id(number), id(users + number)
	}
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var input string
		var threads, activities, first uint64
		if _, err := fmt.Sscan(lines.Text(), &input, &threads, &activities, &first); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		t := newTracker()
		var done sync.WaitGroup
		start := time.Now()
		for thread := uint64(0); thread < threads; thread++ {
			done.Add(1)
			go func(thread uint64) {
				defer done.Done()
				for number := first + thread; number < first+activities; number += threads {
					workspace, owner := ids(input, number)
					t.track(workspace, owner, 1, 0)
				}
			}(thread)
		}
		done.Wait()
		took := time.Since(start)
		if t.allowed != int64(activities) {
			fmt.Fprintln(os.Stderr, "tracked", t.allowed, "of", activities)
			os.Exit(1)
		}
		fmt.Println(took.Nanoseconds())
	}
}
