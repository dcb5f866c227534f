// Package nft is a thin layer over github.com/google/nftables: one lasting socket, transactions that
// are all or nothing, and a vocabulary of rule parts that reads like nft(8)'s own:
//
//	nft.Rule(nft.IIfName(bridges), nft.Saddr4(), ... nft.Drop())
package nft

import (
	"errors"
	"fmt"
	"sync"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
)

// Conn carries out transactions, one at a time.
type Conn struct {
	mu   sync.Mutex
	conn *nftables.Conn
}

// sendBuffer holds a transaction of some 50,000 elements.
const sendBuffer = 16 << 20

// Open opens a socket to the current thread's network namespace.
func Open() (*Conn, error) {
	conn, err := dial()
	if err != nil {
		return nil, err
	}
	return &Conn{conn: conn}, nil
}

func dial() (*nftables.Conn, error) {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(
		func(c *netlink.Conn) error { return c.SetWriteBuffer(sendBuffer) },
		func(c *netlink.Conn) error { return c.SetReadBuffer(sendBuffer) },
	))
	if err != nil {
		return nil, fmt.Errorf("open nftables socket: %w", err)
	}
	return conn, nil
}

// Close closes the socket.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn.CloseLasting()
}

// Do lets f write commands and commits them as one transaction. After an error nothing of it is in
// the kernel.
func (c *Conn) Do(f func(*nftables.Conn) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := f(c.conn)
	if err == nil {
		err = c.conn.Flush()
	}
	if err == nil {
		return nil
	}
	// Answers to what was sent may be unread, and commands unsent: only a new socket is clean.
	fresh, again := dial()
	if again != nil {
		return errors.Join(err, again)
	}
	return errors.Join(err, c.replace(fresh))
}

func (c *Conn) replace(fresh *nftables.Conn) error {
	old := c.conn
	c.conn = fresh
	return old.CloseLasting()
}

// maxElements of one message: its nested attribute is counted by 16 bits.
const maxElements = 200

// AddElements adds elements to a set, in as many messages as they need.
func AddElements(c *nftables.Conn, set *nftables.Set, elements []nftables.SetElement) error {
	return chunks(elements, func(part []nftables.SetElement) error { return c.SetAddElements(set, part) })
}

// DeleteElements removes elements from a set. An element that is not there fails the transaction.
func DeleteElements(c *nftables.Conn, set *nftables.Set, elements []nftables.SetElement) error {
	return chunks(elements, func(part []nftables.SetElement) error { return c.SetDeleteElements(set, part) })
}

func chunks(elements []nftables.SetElement, f func([]nftables.SetElement) error) error {
	for len(elements) > 0 {
		n := min(len(elements), maxElements)
		if err := f(elements[:n]); err != nil {
			return err
		}
		elements = elements[n:]
	}
	return nil
}
