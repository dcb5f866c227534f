package nft

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
)

// Numbers of linux/netfilter/nfnetlink.h and linux/netfilter/nf_tables.h.
const (
	subsystem  = 10
	batchBegin = 16
	batchEnd   = 17
	eventGroup = 7 // NFNLGRP_NFTABLES

	msgNewTable   = 0
	msgDelTable   = 2
	msgNewChain   = 3
	msgGetChain   = 4
	msgNewRule    = 6
	msgGetRule    = 7
	msgNewSet     = 9
	msgGetSet     = 10
	msgNewElement = 12
	msgGetElement = 13
	msgNewGen     = 15

	attrTable = 1 // of messages of every kind

	headerLen = 4 // struct nfgenmsg
)

// attribute numbers by message.
const (
	chainName, chainHook, chainPolicy, chainType      = 3, 4, 5, 7
	hookNumber, hookPriority                          = 1, 2
	ruleChain, ruleExpressions, ruleCompat            = 2, 4, 5
	compatProto, compatFlags                          = 1, 2
	setName, setFlags, setID                          = 2, 3, 10
	elementsSet, elementsList                         = 2, 3
	elementData                                       = 2
	listElement                                       = 1
	exprName, exprData                                = 1, 2
	immediateRegister, immediateData                  = 1, 2
	dataVerdict                                       = 2
	verdictCode, verdictChain                         = 1, 2
	lookupSet, dynsetSet                              = 1, 1
	metaKey, metaKeyL4Proto, cmpOp, cmpData, cmpEqual = 2, 16, 2, 3, 0
)

// verdicts as 32 bits.
const (
	verdictDrop   = 0
	verdictAccept = 1
	verdictJump   = 1<<32 - 3
	verdictGoto   = 1<<32 - 4
)

func message(kind uint16, flags netlink.HeaderFlags, family byte, resource uint16, attrs ...netlink.Attribute) (netlink.Message, error) {
	data := binary.BigEndian.AppendUint16([]byte{family, 0}, resource)
	body, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		return netlink.Message{}, fmt.Errorf("encode nft message: %w", err)
	}
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | flags},
		Data:   append(data, body...),
	}, nil
}

func text(kind uint16, s string) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: append([]byte(s), 0)}
}

func number(kind uint16, n uint32) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: binary.BigEndian.AppendUint32(nil, n)}
}

func nested(kind uint16, attrs ...netlink.Attribute) netlink.Attribute {
	body, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		panic(err) // an attribute longer than 64 KiB: none is made here from more than the kernel sent
	}
	return netlink.Attribute{Type: kind | netlink.Nested, Data: body}
}

// attributes by number, the flag "nested" taken off.
type attributes map[uint16]netlink.Attribute

func parse(data []byte) (attributes, error) {
	list, err := netlink.UnmarshalAttributes(data)
	if err != nil {
		return nil, fmt.Errorf("decode nft message: %w", err)
	}
	all := attributes{}
	for _, a := range list {
		all[a.Type&^(netlink.Nested|netlink.NetByteOrder)] = a
	}
	return all, nil
}

func (a attributes) text(kind uint16) string {
	data := a[kind].Data
	for i, b := range data {
		if b == 0 {
			return string(data[:i])
		}
	}
	return string(data)
}

func (a attributes) number(kind uint16) uint32 {
	if data := a[kind].Data; len(data) == 4 {
		return binary.BigEndian.Uint32(data)
	}
	return 0
}

// dump asks for all objects of a kind, narrowed down by attributes.
func dump(conn *netlink.Conn, kind uint16, family byte, attrs ...netlink.Attribute) ([]attributes, error) {
	m, err := message(subsystem<<8|kind, netlink.Dump, family, 0, attrs...)
	if err != nil {
		return nil, err
	}
	answers, err := conn.Execute(m)
	if err != nil {
		return nil, fmt.Errorf("list nft objects: %w", err)
	}
	var all []attributes
	for _, answer := range answers {
		if len(answer.Data) < headerLen {
			continue
		}
		one, err := parse(answer.Data[headerLen:])
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}
