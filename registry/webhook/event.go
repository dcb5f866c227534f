// Package webhook tells other programs what happens in a registry, by POST requests in the envelope that
// distribution's notifications have, so that what receives those can receive these:
//
//	Content-Type: application/vnd.docker.distribution.events.v1+json
//	X-Hub-Signature-256: sha256=<HMAC-SHA256 of the body, in hex>     with a secret
//
//	{"events": [{"id", "timestamp", "action", "target": {...}, "request": {...}, "actor": {...}, "source": {...}}]}
//
// What is published is on disk before Publish returns, one short write and no more; deliveries happen apart
// from that, one after another for each endpoint, until the endpoint has answered with 2xx. So every event
// arrives at least once, in order, also after the process was killed; its id tells a second arrival from a
// first.
package webhook

import (
	"crypto/rand"
	"fmt"
	"time"

	"davit/oci"
)

// The actions. Push, Pull, Mount and Delete are distribution's.
const (
	Push     = "push"     // a manifest or a blob came
	Pull     = "pull"     // one was read
	Mount    = "mount"    // a blob came from another repository
	Delete   = "delete"   // a tag, a manifest or a blob of a repository is gone
	Tag      = "tag"      // a tag names something else than before, for whatever reason
	Rollback = "rollback" // somebody let a tag name again what it had named
)

// MediaType is that of a request's body.
const MediaType = "application/vnd.docker.distribution.events.v1+json"

// Envelope is the body of a request: one event.
type Envelope struct {
	Events []Event `json:"events"`
}

// Event is one thing that happened. Publish fills ID, Timestamp and Source.
type Event struct {
	ID        string    `json:"id"`
	Timestamp time.Time `json:"timestamp"`
	Action    string    `json:"action"`
	Target    Target    `json:"target"`
	Request   Request   `json:"request"`
	Actor     Actor     `json:"actor"`
	Source    Source    `json:"source"`
}

// Target is what it happened to.
type Target struct {
	MediaType      string     `json:"mediaType,omitempty"`
	Size           int64      `json:"size,omitempty"` // bytes
	Digest         oci.Digest `json:"digest,omitempty"`
	Length         int64      `json:"length,omitempty"` // Size once more, as distribution has it
	Repository     string     `json:"repository"`
	FromRepository string     `json:"fromRepository,omitempty"` // of a mount
	URL            string     `json:"url,omitempty"`
	Tag            string     `json:"tag,omitempty"`
	Previous       oci.Digest `json:"previous,omitempty"` // what a tag named before; davit's own
}

// Request is the request that made it happen; empty when none did.
type Request struct {
	ID        string `json:"id,omitempty"`
	Addr      string `json:"addr,omitempty"` // of the client
	Host      string `json:"host,omitempty"` // that it asked for
	Method    string `json:"method,omitempty"`
	UserAgent string `json:"useragent,omitempty"`
}

// Actor is the user; empty for one who gave no name.
type Actor struct {
	Name string `json:"name,omitempty"`
}

// Source is the process that tells of it.
type Source struct {
	Addr       string `json:"addr,omitempty"` // host:port
	InstanceID string `json:"instanceID,omitempty"`
}

// NewID returns a random UUID (RFC 9562, version 4).
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
