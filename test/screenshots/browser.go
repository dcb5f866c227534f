package main

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// browser is a headless Chromium that is spoken to by the DevTools protocol, in JSON texts that end with a
// zero byte on its descriptors 3 and 4 (--remote-debugging-pipe).
type browser struct {
	cmd      *exec.Cmd
	out      io.WriteCloser
	in       io.ReadCloser
	messages chan message
	session  string
	last     int
	problems []string // what the console and the log said since they were last asked for
}

type message struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// patience is how long the browser may take for anything.
const patience = 30 * time.Second

func openBrowser(profile string) (*browser, error) {
	toBrowser, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	in, fromBrowser, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
		"--user-data-dir="+profile, "--remote-debugging-pipe", "about:blank")
	cmd.ExtraFiles = []*os.File{toBrowser, fromBrowser}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start chromium: %w", err)
	}
	if err := errors.Join(toBrowser.Close(), fromBrowser.Close()); err != nil {
		return nil, err
	}
	b := &browser{cmd: cmd, out: out, in: in, messages: make(chan message, 1024)}
	go b.read()
	return b, b.attach()
}

func (b *browser) read() {
	defer close(b.messages)
	for r := bufio.NewReader(b.in); ; {
		text, err := r.ReadBytes(0)
		if err != nil {
			return
		}
		var m message
		if json.Unmarshal(text[:len(text)-1], &m) == nil {
			b.messages <- m
		}
	}
}

// attach opens a tab and listens to it.
func (b *browser) attach() error {
	var target struct{ TargetID string }
	if err := b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target); err != nil {
		return err
	}
	var session struct{ SessionID string }
	if err := b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &session); err != nil {
		return err
	}
	b.session = session.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log"} {
		if err := b.call(domain+".enable", nil, nil); err != nil {
			return err
		}
	}
	return nil
}

func (b *browser) close() error {
	err := errors.Join(b.cmd.Process.Kill(), b.out.Close())
	_ = b.cmd.Wait() // it was killed
	return errors.Join(err, b.in.Close())
}

// call sends a command and waits for its answer.
func (b *browser) call(method string, params, result any) error {
	b.last++
	command := map[string]any{"id": b.last, "method": method}
	if params != nil {
		command["params"] = params
	}
	if b.session != "" {
		command["sessionId"] = b.session
	}
	text, err := json.Marshal(command)
	if err != nil {
		return err
	}
	if _, err := b.out.Write(append(text, 0)); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	answer, err := b.await(func(m message) bool { return m.ID == b.last })
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	if answer.Error != nil {
		return fmt.Errorf("%s: %s", method, answer.Error.Message)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(answer.Result, result)
}

func (b *browser) await(wanted func(message) bool) (message, error) {
	timeout := time.After(patience)
	for {
		select {
		case m, ok := <-b.messages:
			if !ok {
				return m, errors.New("the browser is gone")
			}
			switch m.Method {
			case "Log.entryAdded", "Runtime.exceptionThrown":
				b.problems = append(b.problems, string(m.Params))
			}
			if wanted(m) {
				return m, nil
			}
		case <-timeout:
			return message{}, errors.New("the browser does not answer")
		}
	}
}

// visit opens an address and waits until it is loaded.
func (b *browser) visit(url string) error {
	b.problems = nil
	if err := b.call("Page.navigate", map[string]any{"url": url}, nil); err != nil {
		return err
	}
	return b.loaded()
}

func (b *browser) loaded() error {
	_, err := b.await(func(m message) bool { return m.Method == "Page.loadEventFired" })
	return err
}

// screen sets the size of the window in CSS pixels, and whether the reader likes it dark.
func (b *browser) screen(width, height int, dark bool) error {
	err := b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}, nil)
	scheme := map[bool]string{true: "dark", false: "light"}[dark]
	feature := []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}
	return errors.Join(err, b.call("Emulation.setEmulatedMedia", map[string]any{"features": feature}, nil))
}

// eval runs an expression, which may be a promise, in the page.
func (b *browser) eval(expression string, result any) error {
	var answer struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails json.RawMessage
	}
	params := map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true}
	if err := b.call("Runtime.evaluate", params, &answer); err != nil {
		return err
	}
	if answer.ExceptionDetails != nil {
		return fmt.Errorf("in the page: %s", answer.ExceptionDetails)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(answer.Result.Value, result)
}

// shoot saves the whole page as a picture.
func (b *browser) shoot(path string) error {
	var picture struct{ Data string }
	if err := b.call("Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": true}, &picture); err != nil {
		return err
	}
	content, err := base64.StdEncoding.DecodeString(picture.Data)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o644)
}
