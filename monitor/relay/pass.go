package relay

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"davit/kernel/sys"
)

// State is a relay on its way to the program of an upgrade: numbers of descriptors that stay open.
type State struct {
	FD    int            `json:"fd"`
	To    netip.AddrPort `json:"to"`
	Pairs []PairState    `json:"pairs,omitempty"`
}

// PairState is a connection in the midst of it.
type PairState struct {
	Client   int  `json:"client"`
	Server   int  `json:"server"`
	Asked    bool `json:"asked,omitempty"`
	Answered bool `json:"answered,omitempty"`
}

// FDs are the descriptors of a state.
func (s State) FDs() []int {
	all := []int{s.FD}
	for _, p := range s.Pairs {
		all = append(all, p.Client, p.Server)
	}
	return all
}

// patience is how long a pause waits for who does not read what was sent to them. Then they are cut off.
const patience = time.Second

// Pause stops all work between two bytes: what was read is written, and no more is read. New connections
// wait in the socket; datagrams are not held up.
func (r *Relay) Pause() {
	r.mu.Lock()
	r.paused = true
	r.stop()
	r.socket.SetDeadline(past())
	for p := range r.pairs {
		p.interrupt()
	}
	r.mu.Unlock()
	slow := time.AfterFunc(patience, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		for p := range r.pairs {
			if p.busy {
				p.cut = true
				p.deadline(past())
			}
		}
	})
	defer slow.Stop()
	r.work.Wait()
}

// Continue ends a pause.
func (r *Relay) Continue() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.paused = false
	r.socket.SetDeadline(time.Time{})
	for p := range r.pairs {
		p.deadline(time.Time{})
	}
	r.begin()
}

// Pass keeps the sockets of a paused relay open for a program that this process executes.
func (r *Relay) Pass() (State, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fd, err := sys.KeepOnExec(r.socket, true)
	if err != nil {
		return State{}, err
	}
	s := State{FD: fd, To: r.to.Load().address}
	for p := range r.pairs {
		client, err1 := sys.KeepOnExec(p.client, true)
		server, err2 := sys.KeepOnExec(p.server, true)
		if err := errors.Join(err1, err2); err != nil {
			return s, err
		}
		s.Pairs = append(s.Pairs, PairState{client, server, p.asked, p.answered})
	}
	return s, nil
}

// Take goes on with what Pass left. There may be a relay and an error, of connections that are lost.
func Take(s State) (*Relay, error) {
	file := os.NewFile(uintptr(s.FD), "relay")
	defer file.Close()
	r, err := Serve(file, s.To)
	if err != nil {
		for _, fd := range s.FDs()[1:] {
			syscall.Close(fd)
		}
		return nil, err
	}
	var errs []error
	for _, state := range s.Pairs {
		client, err1 := connOf(state.Client)
		server, err2 := connOf(state.Server)
		if err := errors.Join(err1, err2); err != nil {
			errs = append(errs, err)
			continue
		}
		p := &pair{client: client, server: server, asked: state.Asked, answered: state.Answered, busy: true}
		r.mu.Lock()
		r.pairs[p] = struct{}{}
		r.mu.Unlock()
		r.work.Go(func() { r.carry(p) })
	}
	return r, errors.Join(errs...)
}

// connOf makes a connection of an inherited descriptor.
func connOf(fd int) (*net.TCPConn, error) {
	syscall.CloseOnExec(fd)
	file := os.NewFile(uintptr(fd), "relayed")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("take over connection: %w", err)
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("descriptor %d is no connection", fd), conn.Close())
	}
	return tcp, nil
}
