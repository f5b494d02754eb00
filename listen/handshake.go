package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// handshakeTimeout is how long a client may take until its connection is one of
// TLS. Edges are near and keep their connections.
const handshakeTimeout = 5 * time.Second

// Refusal is why a connection did not come through its handshake.
type Refusal string

// The reasons.
const (
	// Plaintext: what came is not TLS.
	Plaintext Refusal = "plaintext"
	// WrongVersion: the client speaks no version that the listener does.
	WrongVersion Refusal = "version"
	// WrongProtocol: the client names no protocol that the listener speaks.
	WrongProtocol Refusal = "protocol"
	// NoCertificate: the client has none to show.
	NoCertificate Refusal = "no_certificate"
	// BadCertificate: the client's certificate has ended, or is of an authority that
	// is not trusted.
	BadCertificate Refusal = "bad_certificate"
	// WrongName: the client's certificate is good and has none of the names.
	WrongName Refusal = "wrong_name"
	// RefusedByClient: the client did not like what it was shown.
	RefusedByClient Refusal = "refused_by_client"
	// Timeout: the client did not come to the end in time.
	Timeout Refusal = "timeout"
	// Left: the client went away in between, as a probe of the port does.
	Left Refusal = "left"
	// Other: anything else.
	Other Refusal = "other"
)

// Refusals are all the reasons there are.
func Refusals() []Refusal {
	return []Refusal{
		Plaintext, WrongVersion, WrongProtocol, NoCertificate, BadCertificate, WrongName, RefusedByClient, Timeout, Left, Other,
	}
}

var (
	errNoProtocol = errors.New("the client names no protocol of its own (ALPN)")
	errWrongName  = errors.New("the client's certificate has none of the names in client_names")
)

// refusalOf finds the reason in the error of a handshake.
func refusalOf(err error) Refusal {
	_, verification := errors.AsType[*tls.CertificateVerificationError](err)
	header, plain := errors.AsType[tls.RecordHeaderError](err)
	_, alert := errors.AsType[tls.AlertError](err)
	timeout, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, errWrongName):
		return WrongName
	case errors.Is(err, errNoProtocol):
		return WrongProtocol
	case verification:
		return BadCertificate
	case plain && header.Conn != nil:
		return Plaintext
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), isNet && timeout.Timeout():
		return Timeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return Left
	case alert, strings.Contains(err.Error(), "remote error: tls: "):
		return RefusedByClient
	}
	// The rest of what crypto/tls says has no types; a test holds its words.
	for _, known := range []struct {
		words  string
		reason Refusal
	}{
		{"client didn't provide a certificate", NoCertificate},
		{"client offered only unsupported versions", WrongVersion},
		{"unsupported application protocols", WrongProtocol},
	} {
		if strings.Contains(err.Error(), known.words) {
			return known.reason
		}
	}
	return Other
}

// Refused is told of a connection that did not come through its handshake.
type Refused func(reason Refusal, peer net.Addr, err error)

// tlsListener gives connections whose handshake is done. So the servers behind it
// see none that is silent, speaks something else, or may not come in, and one
// place counts them all.
type tlsListener struct {
	net.Listener

	certificates *Certificates
	refused      Refused

	start   sync.Once
	ready   chan accepted
	closing context.Context //nolint:containedctx // it is the life of the listener
	close   context.CancelFunc
	running sync.WaitGroup
}

type accepted struct {
	conn net.Conn
	err  error
}

// TLS returns a listener that speaks TLS on what inner accepts. Refused may be nil.
// Close waits until the handshakes under way are cut off.
func TLS(inner net.Listener, c *Certificates, refused Refused) net.Listener {
	if refused == nil {
		refused = func(Refusal, net.Addr, error) {}
	}
	l := &tlsListener{Listener: inner, certificates: c, refused: refused, ready: make(chan accepted)}
	l.closing, l.close = context.WithCancel(context.Background())
	return l
}

// Accept implements [net.Listener].
func (l *tlsListener) Accept() (net.Conn, error) {
	l.start.Do(func() { l.running.Go(l.accept) })
	select {
	case a := <-l.ready:
		return a.conn, a.err
	case <-l.closing.Done():
		return nil, &net.OpError{Op: "accept", Net: l.Addr().Network(), Addr: l.Addr(), Err: net.ErrClosed}
	}
}

// Close implements [net.Listener].
func (l *tlsListener) Close() error {
	err := l.Listener.Close()
	l.close()
	l.start.Do(func() {}) // from here on nothing starts
	l.running.Wait()
	return err
}

func (l *tlsListener) accept() {
	for {
		conn, err := l.Listener.Accept()
		if err == nil {
			l.running.Go(func() { l.handshake(conn) })
			continue
		}
		// A server waits a little before it comes again for a fault that passes, such
		// as too many open files. It tells which ones do.
		if !l.hand(accepted{err: err}) || errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// hand gives something to Accept. It returns false if the listener is closed.
func (l *tlsListener) hand(a accepted) bool {
	select {
	case l.ready <- a:
		return true
	case <-l.closing.Done():
		return false
	}
}

func (l *tlsListener) handshake(raw net.Conn) {
	conn := tls.Server(raw, l.certificates.Config())
	ctx, cancel := context.WithTimeout(l.closing, handshakeTimeout)
	err := conn.HandshakeContext(ctx)
	cancel()
	switch {
	case err == nil:
		if !l.hand(accepted{conn: conn}) {
			_ = raw.Close()
		}
	case l.closing.Err() != nil:
		_ = raw.Close()
	default:
		l.refused(refusalOf(err), raw.RemoteAddr(), err)
		_ = raw.Close()
	}
}
