package webhook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"davit/oci/errdefs"
	"davit/registry/pattern"
)

// Config is the content of the file of endpoints.
type Config struct {
	Endpoints []Endpoint `json:"endpoints"`
}

// Endpoint is where events go, and which. Durations are written "90s" or "1h30m".
type Endpoint struct {
	Name    string            `json:"name"` // of its queue and in metrics
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers,omitempty"` // such as Authorization

	Secret     string `json:"secret,omitempty"`     // signs bodies
	SecretFile string `json:"secretFile,omitempty"` // in place of a secret

	Events        []string `json:"events,omitempty"`        // actions; absent: push, mount, delete, rollback
	Repositories  []string `json:"repositories,omitempty"`  // with * for any characters; absent: all
	ManifestsOnly bool     `json:"manifestsOnly,omitempty"` // not of blobs

	Timeout    string `json:"timeout,omitempty"`    // of one request; absent: 5s
	Threshold  int    `json:"threshold,omitempty"`  // failures in a row after which waiting doubles; absent: 5
	Backoff    string `json:"backoff,omitempty"`    // wait after a failure; absent: 1s
	BackoffMax string `json:"backoffMax,omitempty"` // absent: 5m

	MaxAge   string `json:"maxAge,omitempty"`   // older events are dropped; absent: 72h
	MaxBytes int64  `json:"maxBytes,omitempty"` // of its queue: the oldest events are dropped; absent: 64 MiB
}

// settings is an Endpoint, understood.
type settings struct {
	Endpoint
	secret                               []byte
	timeout, backoff, backoffMax, maxAge time.Duration
}

var (
	endpointName   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	defaultActions = []string{Push, Mount, Delete, Rollback}
	allActions     = []string{Push, Pull, Mount, Delete, Tag, Rollback}
)

// smallestQueue keeps a queue from being dropped segment by segment as it fills.
const smallestQueue = 64 << 10

// readConfig reads the file and the secrets that it names.
func readConfig(path string) ([]settings, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read webhooks: %w", err)
	}
	var c Config
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields() // a misspelled filter must not send everything
	if err := decoder.Decode(&c); err != nil {
		return nil, fmt.Errorf("read webhooks %s: %w", path, err)
	}
	var all []settings
	for _, endpoint := range c.Endpoints {
		s, err := endpoint.understand()
		if err == nil && slices.ContainsFunc(all, func(other settings) bool { return other.Name == s.Name }) {
			err = errdefs.Invalid("there are two of that name")
		}
		if err != nil {
			return nil, fmt.Errorf("read webhooks %s: endpoint %q: %w", path, endpoint.Name, err)
		}
		all = append(all, s)
	}
	return all, nil
}

func (e Endpoint) understand() (s settings, err error) {
	s.Endpoint = e
	if err := e.check(); err != nil {
		return s, err
	}
	for _, d := range []struct {
		to       *time.Duration
		name     string
		text     string
		fallback time.Duration
	}{
		{&s.timeout, "timeout", e.Timeout, 5 * time.Second},
		{&s.backoff, "backoff", e.Backoff, time.Second},
		{&s.backoffMax, "backoffMax", e.BackoffMax, 5 * time.Minute},
		{&s.maxAge, "maxAge", e.MaxAge, 72 * time.Hour},
	} {
		if *d.to, err = duration(d.text, d.fallback); err != nil {
			return s, errdefs.Invalid("%s: %v", d.name, err)
		}
	}
	if s.Events == nil {
		s.Events = defaultActions
	}
	if s.Threshold == 0 {
		s.Threshold = 5
	}
	if s.MaxBytes == 0 {
		s.MaxBytes = 64 << 20
	}
	s.secret = []byte(e.Secret)
	if e.SecretFile != "" {
		if s.secret, err = os.ReadFile(e.SecretFile); err != nil {
			return s, fmt.Errorf("read secret: %w", err)
		}
		s.secret = bytes.TrimSpace(s.secret)
		if len(s.secret) == 0 {
			return s, errdefs.Invalid("the file %s is empty", e.SecretFile)
		}
	}
	return s, nil
}

func duration(text string, fallback time.Duration) (time.Duration, error) {
	if text == "" {
		return fallback, nil
	}
	d, err := time.ParseDuration(text)
	if err == nil && d <= 0 {
		err = fmt.Errorf("%q is no time to wait", text)
	}
	return d, err
}

func (e Endpoint) check() error {
	if !endpointName.MatchString(e.Name) {
		return errdefs.Invalid("want a name of letters, digits, \".\", \"_\" and \"-\"")
	}
	u, err := url.Parse(e.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return errdefs.Invalid("url %q: want http://HOST/PATH or https://HOST/PATH", e.URL)
	}
	for _, action := range e.Events {
		if !slices.Contains(allActions, action) {
			return errdefs.Invalid("unknown event %q: there are %s", action, strings.Join(allActions, ", "))
		}
	}
	if e.Secret != "" && e.SecretFile != "" {
		return errdefs.Invalid("want secret or secretFile, not both")
	}
	if e.Threshold < 0 || e.MaxBytes < 0 || e.MaxBytes > 0 && e.MaxBytes < smallestQueue {
		return errdefs.Invalid("threshold or maxBytes is too small (a queue has %d bytes at least)", smallestQueue)
	}
	for key := range e.Headers {
		if http.CanonicalHeaderKey(key) == "Content-Type" {
			return errdefs.Invalid("the header Content-Type is %s", MediaType)
		}
	}
	return nil
}

// wants says whether an event is for the endpoint.
func (s settings) wants(e *Event) bool {
	if s.ManifestsOnly && e.Target.MediaType == blobType {
		return false
	}
	return s.covers(e.Action, e.Target.Repository)
}

// blobType is what distribution calls every blob.
const blobType = "application/octet-stream"

func (s settings) covers(action, repository string) bool {
	return slices.Contains(s.Events, action) && (s.Repositories == nil || pattern.Any(s.Repositories, repository))
}

// same says whether nothing changed, the secret in its file included.
func (s settings) same(other settings) bool { return reflect.DeepEqual(s, other) }

// wait is how long to wait after so many failures in a row.
func (s settings) wait(failures int) time.Duration {
	wait := s.backoff
	for n := s.Threshold; n < failures && wait < s.backoffMax; n++ {
		wait *= 2
	}
	return min(wait, s.backoffMax)
}
