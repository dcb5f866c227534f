package build

import (
	"encoding/json"
	"fmt"
	"time"

	"davit/oci"
)

// EventKind says what an Event tells.
type EventKind int

// The events. Those of one step come in this order, those of different steps mingle.
const (
	StepStarted  EventKind = iota // Time
	StepPull                      // Message: of the registry, while a base image is pulled
	StepRunning                   // Container: the id of a RUN step's container
	StepOutput                    // Data, Stderr
	StepWarning                   // Data: a sentence
	StepDone                      // Image, Cached; or Err
	BuildWarning                  // Data: about the Dockerfile; Line
)

// Event is one piece of news of a build.
type Event struct {
	Kind      EventKind
	Time      time.Time
	Step      *Step
	Line      int // BuildWarning's
	Message   json.RawMessage
	Container string
	Data      []byte
	Stderr    bool
	Image     oci.Digest // what the image would be if it ended with this step
	Cached    bool
	Err       error
}

// Step names a step of the build. Equal pointers mean the same step.
type Step struct {
	Number  int    // from 1, in the order of the Dockerfile, counting what the target needs only
	Total   int    // how many steps there are
	Stage   string // its stage's name, or "stage-N"
	Text    string // the instruction as it is in the Dockerfile, without here-documents
	Line    int    // its first line in the Dockerfile
	Trigger bool   // an ONBUILD trigger of the base image; has the Number of its FROM
	Base    bool   // a FROM
}

// Progress takes the events of a build, one at a time.
type Progress func(Event)

// StepError is a failed step. Its message begins with file and line.
type StepError struct {
	File string
	Line int
	Code int // exit code of a RUN step's process, if that was the failure
	Err  error
}

func (e *StepError) Error() string { return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err) }

// Unwrap returns the failure itself.
func (e *StepError) Unwrap() error { return e.Err }
