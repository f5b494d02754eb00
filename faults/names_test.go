package faults_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"

	"golang.org/x/net/dns/dnsmessage"
)

// names is the name server of this process. Every name under .invalid means
// loopback as long as nothing is wrong with it, and no other name is known.
type names struct {
	conn    net.PacketConn
	serving sync.WaitGroup
	before  *net.Resolver
}

// trouble with a name.
type nameTrouble uint8

const (
	fine nameTrouble = iota
	unknownName
	serverFailure
	noReply
)

// namesInTrouble are shared by all tests, as names are.
var namesInTrouble sync.Map // of nameTrouble

// startNames has all names looked up at a name server of ours.
func startNames() (*names, error) {
	conn, err := (&net.ListenConfig{}).ListenPacket(context.Background(), "udp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	n := &names{conn: conn, before: net.DefaultResolver}
	n.serving.Go(n.serve)
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	return n, nil
}

func (n *names) close() {
	net.DefaultResolver = n.before
	n.conn.Close()
	n.serving.Wait()
}

func (n *names) serve() {
	packet := make([]byte, 1500)
	for {
		size, from, err := n.conn.ReadFrom(packet)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		if reply, err := answerName(packet[:size]); err == nil && reply != nil {
			_, _ = n.conn.WriteTo(reply, from)
		}
	}
}

// answerName answers a question; nil means not at all.
func answerName(packet []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(packet); err != nil || len(m.Questions) != 1 {
		return nil, fmt.Errorf("no question: %w", err)
	}
	q := m.Questions[0]
	name := strings.TrimSuffix(strings.ToLower(q.Name.String()), ".")
	reply := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: m.ID, Response: true, RecursionDesired: m.RecursionDesired, RecursionAvailable: true},
		Questions: m.Questions,
	}
	trouble, _ := namesInTrouble.Load(name)
	switch {
	case trouble == noReply:
		return nil, nil
	case trouble == serverFailure:
		reply.RCode = dnsmessage.RCodeServerFailure
	case trouble == unknownName, !strings.HasSuffix(name, ".invalid"):
		reply.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA:
		reply.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET},
			Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
		}}
	}
	return reply.Pack()
}
