package boundaryusage_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	usage "example.com/boundary-usage/host/go"
)

// closedPort returns an address that no program listens on.
func closedPort(t *testing.T) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	return listener.Addr().String()
}

func TestAStartThatFailsReturnsTheKindAndTheReason(t *testing.T) {
	postgres := variable(t, "BOUNDARY_USAGE_TEST_POSTGRES")
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	sqlite := newSqlite(t)
	for name, test := range map[string]struct {
		options usage.Options
		kind    usage.Status
		part    string
	}{
		"no database":      {usage.Options{}, usage.ErrInvalidArgument, "database"},
		"another database": {usage.Options{Database: "mysql://localhost/usage"}, usage.ErrInvalidArgument, "mysql"},
		"a negative time": {
			usage.Options{Database: sqlite, FlushInterval: -time.Second}, usage.ErrInvalidArgument, "flush-interval"},
		"a time beyond a day": {
			usage.Options{Database: sqlite, FlushTimeout: 25 * time.Hour}, usage.ErrInvalidArgument, "flush-timeout"},
		"slots without a directory": {
			usage.Options{Database: sqlite, StateSlots: true}, usage.ErrInvalidArgument, "state-dir"},
		"a NUL in a text": {usage.Options{Database: sqlite + "\x00"}, usage.ErrInvalidArgument, "NUL"},
		"no server": {
			usage.Options{Database: "postgres://u@" + closedPort(t) + "/usage"}, usage.ErrUnavailable, "refused"},
		"a database that does not exist": {
			usage.Options{Database: strings.TrimSuffix(postgres, "postgres") + "missing"}, usage.ErrRefused, "missing"},
		"a component that does not exist": {
			usage.Options{Database: sqlite, Component: "missing.wasm"}, usage.ErrComponent, "missing.wasm"},
		"a file as state directory": {usage.Options{Database: sqlite, StateDir: file}, usage.ErrState, file},
	} {
		tracker, err := usage.Start(test.options)
		if tracker != nil || !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.part) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestASecondTrackerOfOneReplicaCannotUseTheSameStateDirectory(t *testing.T) {
	options := usage.Options{Database: newSqlite(t), StateDir: newStateDir(t)}
	start(t, options)
	if _, err := usage.Start(options); !errors.Is(err, usage.ErrState) {
		t.Fatalf("the error is %v", err)
	}
}

func TestANilIDIsRefusedAndNothingIsRecorded(t *testing.T) {
	tracker := start(t, usage.Options{Database: newSqlite(t)})
	for _, err := range []error{
		tracker.Track(usage.ID{}, id("u1"), 1, 0),
		tracker.TryTrack(id("w1"), usage.ID{}, 1, 0),
	} {
		if !errors.Is(err, usage.ErrInvalidArgument) || errors.Is(err, usage.ErrFull) {
			t.Fatalf("the error is %v", err)
		}
	}
	equal(t, statusOf(t, tracker).Activities, uint64(0))
}

func TestFailedFlushesReturnTheirKind(t *testing.T) {
	url := newPostgres(t)
	proxy := newProxy(t, url)
	tracker := start(t, usage.Options{Database: proxy.url})
	for cut, kind := range map[string]usage.Status{
		"cut write": usage.ErrUnavailable,
		"cut reply": usage.ErrCommitUnknown,
	} {
		must(t, tracker.Track(id("w1"), id("u1"), 1, 0))
		proxy.run(cut)
		err := tracker.Flush(context.Background())
		var failed *usage.Error
		if !errors.Is(err, kind) || !errors.As(err, &failed) || failed.Message == "" {
			t.Errorf("%s: %v", cut, err)
		}
		must(t, tracker.Flush(context.Background()))
	}
	must(t, tracker.Shutdown(context.Background()))
	equal(t, program{url}.collect(t), totals{1, 1, 2, 0})
}

// TestAFullIntakeRefusesActivityAndLosesNoneThatItAccepted fills the intake while the component computes without end,
// until the tracker replaces the component.
func TestAFullIntakeRefusesActivityAndLosesNoneThatItAccepted(t *testing.T) {
	var cues map[string]usage.ID
	must(t, json.Unmarshal([]byte(variable(t, "BOUNDARY_USAGE_TEST_CUES")), &cues))
	url := newSqlite(t)
	tracker := start(t, usage.Options{Database: url, Component: variable(t, "BOUNDARY_USAGE_TEST_MISBEHAVING")})
	must(t, tracker.Track(cues["LoopForever"], id("u1"), 1, 0))
	until(t, func() bool { return statusOf(t, tracker).IntakeDepth == 0 })
	accepted := uint64(1)
	for {
		// Distinct ids, because the intake merges activity of the same ids.
		err := tracker.TryTrack(numbered(accepted), id("u1"), 1, 0)
		if errors.Is(err, usage.ErrFull) {
			break
		}
		must(t, err)
		accepted++
	}
	until(t, func() bool { return statusOf(t, tracker).Restarts > 0 })
	must(t, tracker.Shutdown(context.Background()))
	equal(t, program{url}.collect(t).Allowed, accepted)
}

func TestIDsAreParsedAndPrintedLikeUUIDs(t *testing.T) {
	const text = "0193a1b2-c3d4-7e5f-8071-92a3b4c5d6e7"
	parsed, err := usage.ParseID(strings.ToUpper(text))
	must(t, err)
	equal(t, parsed.String(), text)
	equal(t, parsed, usage.ID{
		0x01, 0x93, 0xa1, 0xb2, 0xc3, 0xd4, 0x7e, 0x5f, 0x80, 0x71, 0x92, 0xa3, 0xb4, 0xc5, 0xd6, 0xe7})
	for _, invalid := range []string{
		"", "7", text[1:], text + "0", strings.ReplaceAll(text, "-", ""), strings.Replace(text, "a", "g", 1),
		"{" + text + "}", strings.Replace(text, "-7", "7-", 1), strings.Repeat(text, 1000),
	} {
		_, err := usage.ParseID(invalid)
		if !errors.Is(err, usage.ErrInvalidArgument) || len(err.Error()) > 150 {
			t.Errorf("%q: %v", invalid, err)
		}
	}
	var decoded usage.ID
	encoded, err := json.Marshal(parsed)
	must(t, err)
	must(t, json.Unmarshal(encoded, &decoded))
	equal(t, decoded, parsed)
}

func TestStatusesHaveDistinctTexts(t *testing.T) {
	texts := map[string]bool{}
	for status := usage.ErrInvalidArgument; status <= usage.ErrInternal; status++ {
		texts[status.Error()] = true
	}
	equal(t, len(texts), int(usage.ErrInternal))
	equal(t, usage.Status(99).Error(), "status 99")
}
