package build

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"davit/oci"
)

// Message is one object of the stream that POST /build answers with.
type Message struct {
	Stream string          `json:"stream,omitempty"`
	Aux    *Aux            `json:"aux,omitempty"`
	Raw    json.RawMessage `json:"-"` // in place of all else: a message of the registry
}

// Aux carries the image's ID.
type Aux struct {
	ID oci.Digest `json:"ID"`
}

// MarshalJSON implements json.Marshaler.
func (m Message) MarshalJSON() ([]byte, error) {
	if m.Raw != nil {
		return m.Raw, nil
	}
	type plain Message
	return json.Marshal(plain(m))
}

// Classic turns the events of a build into the text of Docker's classic builder: steps one after
// another, even when they ran at the same time. What a later step has to say waits for its turn.
//
//	Step 2/3 : RUN make
//	 ---> Running in 0123456789ab
//	...
//	 ---> Removed intermediate container 0123456789ab
//	 ---> ba9876543210
type Classic struct {
	send       func(Message)
	turn       int // number of the step whose messages go out at once
	waiting    map[int][]Message
	ended      map[int]bool
	containers map[*Step]string
	removal    Removal
}

// Removal says after which steps a client wants to hear that the step's container is gone. It always is:
// a step's container never outlives it.
type Removal struct {
	Succeeded bool // docker build --rm, the default
	Failed    bool // docker build --force-rm
}

// NewClassic returns a Classic whose messages go to send. Event is a Progress.
func NewClassic(send func(Message), r Removal) *Classic {
	return &Classic{send: send, removal: r, turn: 1, waiting: map[int][]Message{}, ended: map[int]bool{}, containers: map[*Step]string{}}
}

// Event takes an event of the build.
func (c *Classic) Event(e Event) {
	switch e.Kind {
	case StepStarted:
		if e.Step.Trigger {
			c.say(e.Step, "# Executing build trigger: %s\n", e.Step.Text)
			return
		}
		c.say(e.Step, "Step %d/%d : %s\n", e.Step.Number, e.Step.Total, e.Step.Text)
	case StepPull:
		c.put(e.Step, Message{Raw: e.Message})
	case StepRunning:
		c.containers[e.Step] = e.Container[:min(12, len(e.Container))]
		c.say(e.Step, " ---> Running in %s\n", c.containers[e.Step])
	case StepOutput:
		c.put(e.Step, Message{Stream: string(e.Data)})
	case StepWarning:
		c.say(e.Step, "[Warning] %s\n", e.Data)
	case StepDone:
		c.done(e)
	case BuildWarning:
		if e.Line > 0 {
			c.send(Message{Stream: fmt.Sprintf("[Warning] %s (line %d)\n", e.Data, e.Line)})
		} else {
			c.send(Message{Stream: fmt.Sprintf("[Warning] %s\n", e.Data)})
		}
	}
}

// Finish says how the build ended well.
func (c *Classic) Finish(r Result) {
	c.send(Message{Aux: &Aux{ID: r.ID}})
	c.send(Message{Stream: fmt.Sprintf("Successfully built %s\n", r.ID.Short())})
	for _, tag := range r.Tags {
		c.send(Message{Stream: fmt.Sprintf("Successfully tagged %s\n", tag)})
	}
}

func (c *Classic) done(e Event) {
	told := c.removal.Failed || c.removal.Succeeded && e.Err == nil
	if container := c.containers[e.Step]; container != "" && told {
		c.say(e.Step, " ---> Removed intermediate container %s\n", container)
	}
	if e.Cached {
		c.say(e.Step, " ---> Using cache\n")
	}
	if e.Err == nil && (e.Image != "" || e.Step.Base) {
		c.say(e.Step, " ---> %s\n", e.Image.Short())
	}
	if e.Step.Trigger && e.Err == nil {
		return
	}
	c.ended[e.Step.Number] = true
	if e.Err != nil {
		c.endAt(e.Step.Number)
	}
	for c.ended[c.turn] {
		c.turn++
		c.release(c.turn)
	}
}

// endAt lets everything out up to a step that failed.
func (c *Classic) endAt(number int) {
	for _, n := range slices.Sorted(maps.Keys(c.waiting)) {
		if n <= number {
			c.release(n)
		}
	}
	c.turn = max(c.turn, number)
}

func (c *Classic) say(s *Step, format string, args ...any) {
	c.put(s, Message{Stream: fmt.Sprintf(format, args...)})
}

func (c *Classic) put(s *Step, m Message) {
	if s.Number > c.turn {
		c.waiting[s.Number] = append(c.waiting[s.Number], m)
		return
	}
	c.send(m)
}

func (c *Classic) release(number int) {
	for _, m := range c.waiting[number] {
		c.send(m)
	}
	delete(c.waiting, number)
}
