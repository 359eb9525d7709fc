package boundaryusage

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// ID is the UUID of a workspace, an owner or a replica, in the order of its text (RFC 9562).
//
// UUID types of other packages with 16 bytes convert directly: boundaryusage.ID(id).
type ID [16]byte

// ParseID parses a UUID with hyphens, such as "0193a1b2-0000-7000-8000-000000000001".
//
// Letters may have either case. The nil UUID is valid here, and [Tracker.Track] refuses it.
func ParseID(text string) (ID, error) {
	var id ID
	if len(text) != 36 || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-' {
		return ID{}, invalidID(text)
	}
	digits := [32]byte{}
	rest := digits[:0]
	for _, part := range [5]string{text[:8], text[9:13], text[14:18], text[19:23], text[24:]} {
		rest = append(rest, part...)
	}
	if _, err := hex.Decode(id[:], digits[:]); err != nil {
		return ID{}, invalidID(text)
	}
	return id, nil
}

// MustParseID is like [ParseID], but panics if the text is invalid.
func MustParseID(text string) ID {
	id, err := ParseID(text)
	if err != nil {
		panic(err)
	}
	return id
}

// String returns the text of the UUID, in lower case with hyphens.
func (id ID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// MarshalText returns the text of the UUID.
func (id ID) MarshalText() ([]byte, error) {
	return []byte(id.String()), nil
}

// UnmarshalText parses the text of a UUID, like [ParseID].
func (id *ID) UnmarshalText(text []byte) error {
	parsed, err := ParseID(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}

// halves returns the two numbers that bridge.h makes the same bytes of.
func (id ID) halves() (low, high uint64) {
	return binary.LittleEndian.Uint64(id[:8]), binary.LittleEndian.Uint64(id[8:])
}

func invalidID(text string) error {
	const longest = 64
	if len(text) > longest {
		text = text[:longest] + "…"
	}
	return &Error{Status: ErrInvalidArgument, Message: fmt.Sprintf("%q is not a UUID with hyphens", text)}
}
