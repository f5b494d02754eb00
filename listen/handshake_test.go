package listen_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bearergate/bearergate/listen"
	"github.com/bearergate/bearergate/listen/listentest"
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// refusals keeps why connections were refused.
type refusals struct {
	all chan refusal
}

type refusal struct {
	reason listen.Refusal
	err    error
}

func newRefusals() *refusals { return &refusals{make(chan refusal, 1000)} }

func (r *refusals) note(reason listen.Refusal, _ net.Addr, err error) { r.all <- refusal{reason, err} }

func (r *refusals) next(t *testing.T) refusal {
	t.Helper()
	select {
	case one := <-r.all:
		return one
	case <-time.After(patience):
		t.Fatal("nothing was refused")
		return refusal{}
	}
}

// echo answers on a listener with what it gets, until the test ends.
func echo(t *testing.T, l net.Listener) {
	t.Helper()
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("Accept: %v", err)
				}
				return
			}
			all.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		all.Wait()
	})
}

func tcp(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func load(t *testing.T, o listen.TLSOptions) *listen.Certificates {
	t.Helper()
	c, err := listen.LoadCertificates(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// talk says one word over TLS and wants it back.
func talk(t *testing.T, address string, config *tls.Config) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	return converse(conn)
}

func converse(conn net.Conn) error {
	if _, err := conn.Write([]byte("word")); err != nil {
		return err
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if string(got) != "word" {
		return errors.New("another word comes back")
	}
	return nil
}

func TestWhoMayComeThroughTheHandshake(t *testing.T) {
	own, foreign := listentest.NewAuthority(t), listentest.NewAuthority(t)
	dir := t.TempDir()
	options := listen.TLSOptions{}
	options.CertFile, options.KeyFile = own.Issue(t, listentest.Leaf{}).Files(t, dir)
	mutual := options
	mutual.ClientCAFile = own.File(t, dir)
	named := mutual
	named.ClientNames = []string{"Edge.internal", "edge@example.com", "spiffe://example.com/edge"}
	newest := options
	newest.MinVersion = tls.VersionTLS13
	h2 := options
	h2.Protocols, h2.NeedProtocol = []string{"h2"}, true

	trusting := func(change func(*tls.Config)) *tls.Config {
		c := &tls.Config{RootCAs: own.Pool(), MinVersion: tls.VersionTLS10} // what is refused, too
		if change != nil {
			change(c)
		}
		return c
	}
	showing := func(p listentest.Pair) *tls.Config {
		return trusting(func(c *tls.Config) { c.Certificates = []tls.Certificate{p.TLS(t)} })
	}
	leaf := func(l listentest.Leaf) *tls.Config { return showing(own.Issue(t, l)) }

	for name, test := range map[string]struct {
		options listen.TLSOptions
		client  *tls.Config
		want    listen.Refusal // "" if it may
	}{
		"a client of TLS 1.3":                       {options, trusting(nil), ""},
		"a client of TLS 1.2":                       {options, trusting(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), ""},
		"a client of TLS 1.1":                       {options, trusting(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS11 }), listen.WrongVersion},
		"a client of TLS 1.2 where 1.3 is least":    {newest, trusting(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), listen.WrongVersion},
		"a client that does not trust the listener": {options, &tls.Config{RootCAs: foreign.Pool(), MinVersion: tls.VersionTLS12}, listen.RefusedByClient},
		"a client that names the protocol":          {h2, trusting(func(c *tls.Config) { c.NextProtos = []string{"http/1.1", "h2"} }), ""},
		"a client that names another protocol":      {h2, trusting(func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }), listen.WrongProtocol},
		"a client that names no protocol":           {h2, trusting(nil), listen.WrongProtocol},

		"a client with a certificate":                {mutual, leaf(listentest.Leaf{DNS: []string{"any.internal"}}), ""},
		"a client without a certificate":             {mutual, trusting(nil), listen.NoCertificate},
		"a client without a certificate, by TLS 1.2": {mutual, trusting(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), listen.NoCertificate},
		"a client with one of another authority":     {mutual, showing(foreign.Issue(t, listentest.Leaf{})), listen.NoCertificate}, // Go's client shows none then
		"a client with one that has ended":           {mutual, leaf(listentest.Leaf{From: -2 * time.Hour, Until: -time.Minute}), listen.BadCertificate},
		"a client with one that has not begun":       {mutual, leaf(listentest.Leaf{From: time.Hour, Until: 2 * time.Hour}), listen.BadCertificate},
		"a client with one that is for servers":      {mutual, leaf(listentest.Leaf{ServerOnly: true}), listen.BadCertificate},
		"a DNS name, in other letters":               {named, leaf(listentest.Leaf{DNS: []string{"x.internal", "edge.INTERNAL"}}), ""},
		"an email address":                           {named, leaf(listentest.Leaf{Emails: []string{"edge@example.com"}}), ""},
		"a URI":                                      {named, leaf(listentest.Leaf{URIs: []string{"spiffe://example.com/edge"}}), ""},
		"a URI, by TLS 1.2": {named, func() *tls.Config {
			c := leaf(listentest.Leaf{URIs: []string{"spiffe://example.com/edge"}})
			c.MaxVersion = tls.VersionTLS12
			return c
		}(), ""},
		"another DNS name":                          {named, leaf(listentest.Leaf{DNS: []string{"edge.internal.example.com"}}), listen.WrongName},
		"a wildcard that would match":               {named, leaf(listentest.Leaf{DNS: []string{"*.internal"}}), listen.WrongName},
		"a URI below the one":                       {named, leaf(listentest.Leaf{URIs: []string{"spiffe://example.com/edge/x"}}), listen.WrongName},
		"an email address in other letters":         {named, leaf(listentest.Leaf{Emails: []string{"Edge@example.com"}}), listen.WrongName},
		"the name as the common name alone":         {named, leaf(listentest.Leaf{CommonName: "edge.internal"}), listen.WrongName},
		"the DNS name as an email address":          {named, leaf(listentest.Leaf{Emails: []string{"edge.internal"}}), listen.WrongName},
		"a good name in one of a foreign authority": {named, showing(foreign.Issue(t, listentest.Leaf{DNS: []string{"edge.internal"}})), listen.NoCertificate},
		"a good name and an end that is over":       {named, leaf(listentest.Leaf{DNS: []string{"edge.internal"}, From: -time.Hour, Until: -time.Minute}), listen.BadCertificate},
		"another name, by TLS 1.2": {named, func() *tls.Config {
			c := leaf(listentest.Leaf{DNS: []string{"other.internal"}})
			c.MaxVersion = tls.VersionTLS12
			return c
		}(), listen.WrongName},
		"one of a foreign authority, shown all the same":   {mutual, insist(t, foreign.Issue(t, listentest.Leaf{}), own), listen.BadCertificate},
		"a good name of a foreign authority, shown anyway": {named, insist(t, foreign.Issue(t, listentest.Leaf{DNS: []string{"edge.internal"}}), own), listen.BadCertificate},
	} {
		t.Run(name, func(t *testing.T) {
			refused := newRefusals()
			l := listen.TLS(tcp(t), load(t, test.options), refused.note)
			echo(t, l)
			err := talk(t, l.Addr().String(), test.client)
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil {
				t.Error("it came in")
			}
			if got := refused.next(t); got.reason != test.want {
				t.Errorf("refused for %s: %v; want %s", got.reason, got.err, test.want)
			}
		})
	}
}

// insist shows a certificate whether the listener asked for such a one or not.
func insist(t *testing.T, p listentest.Pair, trusted *listentest.Authority) *tls.Config {
	t.Helper()
	pair := p.TLS(t)
	return &tls.Config{
		RootCAs:    trusted.Pool(),
		MinVersion: tls.VersionTLS12,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &pair, nil
		},
	}
}

// A session is resumed only as long as its client may connect.
func TestAResumedSessionIsNoWayAroundTheNames(t *testing.T) {
	own := listentest.NewAuthority(t)
	dir := t.TempDir()
	options := listen.TLSOptions{ClientCAFile: own.File(t, dir)}
	options.CertFile, options.KeyFile = own.Issue(t, listentest.Leaf{}).Files(t, dir)
	certificates := load(t, options)
	refused := newRefusals()
	l := listen.TLS(tcp(t), certificates, refused.note)
	echo(t, l)

	client := &tls.Config{
		RootCAs: own.Pool(), MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(4),
		Certificates: []tls.Certificate{own.Issue(t, listentest.Leaf{}).TLS(t)},
	}
	for range 2 { // the second time it has a ticket
		if err := talk(t, l.Addr().String(), client); err != nil {
			t.Fatal(err)
		}
	}
	// The authority is exchanged. The ticket is worth nothing.
	listentest.NewAuthority(t).File(t, dir)
	if news, err := certificates.Reload(); !news || err != nil {
		t.Fatal(news, err)
	}
	if err := talk(t, l.Addr().String(), client); err == nil {
		t.Error("a session of a client that may not connect was resumed")
	}
	refused.next(t)
}

func TestWhatIsNotTLSIsRefused(t *testing.T) {
	own := listentest.NewAuthority(t)
	options := listen.TLSOptions{}
	options.CertFile, options.KeyFile = own.Issue(t, listentest.Leaf{}).Files(t, t.TempDir())
	for name, test := range map[string]struct {
		sent string
		want listen.Refusal
	}{
		"HTTP":                      {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", listen.Plaintext},
		"HTTP/2":                    {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", listen.Plaintext},
		"nothing, and an end":       {"", listen.Left},
		"half a record, and an end": {"\x16\x03\x01\x02", listen.Left},
		"no handshake in it":        {"\x17\x03\x03\x00\x01x", listen.Plaintext},
	} {
		t.Run(name, func(t *testing.T) {
			refused := newRefusals()
			l := listen.TLS(tcp(t), load(t, options), refused.note)
			echo(t, l)
			conn, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, test.sent); err != nil {
				t.Fatal(err)
			}
			if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got := refused.next(t); got.reason != test.want {
				t.Errorf("refused for %s: %v; want %s", got.reason, got.err, test.want)
			}
			if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, net.ErrClosed) {
				t.Logf("the connection ends with %v", err) // a reset is an end, too
			}
		})
	}
}

// pipes is a listener on which connections are made in memory, for synctest.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	p.conns <- theirs
	return ours
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// A flood of connections that say nothing, or little by little, holds nobody up,
// and each of them ends in time.
func TestSilentClientsHoldNobodyUpAndEndInTime(t *testing.T) {
	own := listentest.NewAuthority(t)
	options := listen.TLSOptions{}
	options.CertFile, options.KeyFile = own.Issue(t, listentest.Leaf{DNS: []string{"gate.internal"}}).Files(t, t.TempDir())
	certificates := load(t, options)
	synctest.Test(t, func(t *testing.T) {
		const flood = 200
		inner, refused := newPipes(), newRefusals()
		l := listen.TLS(inner, certificates, refused.note)
		echo(t, l)
		begun := time.Now()
		var ended sync.WaitGroup
		for i := range flood {
			conn := inner.dial()
			ended.Go(func() {
				defer conn.Close()
				if i%2 == 0 { // a byte each second of a record that never is whole
					ended.Go(func() {
						for _, b := range []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03") {
							if _, err := conn.Write([]byte{b}); err != nil {
								return
							}
							<-time.After(time.Second)
						}
					})
				}
				_, _ = io.Copy(io.Discard, conn)
				if took := time.Since(begun); took > 5*time.Second {
					t.Errorf("a connection that says nothing is held for %v", took)
				}
			})
		}
		conn := tls.Client(inner.dial(), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}) // the clock stands in another year
		if err := converse(conn); err != nil {
			t.Errorf("a client behind a flood: %v", err)
		}
		if took := time.Since(begun); took > 0 {
			t.Errorf("a client behind a flood waited for %v", took)
		}
		_ = conn.Close()
		ended.Wait()
		for range flood {
			if got := <-refused.all; got.reason != listen.Timeout {
				t.Errorf("refused for %s: %v", got.reason, got.err)
			}
		}
	})
}

func TestCloseCutsHandshakesOff(t *testing.T) {
	own := listentest.NewAuthority(t)
	options := listen.TLSOptions{}
	options.CertFile, options.KeyFile = own.Issue(t, listentest.Leaf{}).Files(t, t.TempDir())
	certificates := load(t, options)
	synctest.Test(t, func(t *testing.T) {
		inner := newPipes()
		l := listen.TLS(inner, certificates, func(reason listen.Refusal, _ net.Addr, err error) { t.Errorf("told of %s: %v", reason, err) })
		accepting := make(chan error)
		go func() {
			_, err := l.Accept()
			accepting <- err
		}()
		conn := inner.dial()
		defer conn.Close()
		synctest.Wait()
		begun := time.Now()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := <-accepting; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept returns %v", err)
		}
		if took := time.Since(begun); took > 0 {
			t.Errorf("Close waited for %v", took)
		}
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("the connection is open")
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept returns %v", err)
		}
	})
}

// failing fails the first times, as a system without free file descriptors does.
type failing struct {
	net.Listener

	mu   sync.Mutex
	left int
}

var errTooMany = errors.New("too many open files")

func (f *failing) Accept() (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left > 0 {
		f.left--
		return nil, errTooMany
	}
	return f.Listener.Accept()
}

func TestAFaultThatPassesReachesTheServerAndPasses(t *testing.T) {
	own := listentest.NewAuthority(t)
	options := listen.TLSOptions{}
	options.CertFile, options.KeyFile = own.Issue(t, listentest.Leaf{}).Files(t, t.TempDir())
	l := listen.TLS(&failing{Listener: tcp(t), left: 2}, load(t, options), nil)
	for range 2 {
		if _, err := l.Accept(); !errors.Is(err, errTooMany) {
			t.Fatalf("Accept returns %v", err)
		}
	}
	echo(t, l)
	if err := talk(t, l.Addr().String(), &tls.Config{RootCAs: own.Pool(), MinVersion: tls.VersionTLS12}); err != nil {
		t.Error(err)
	}
}
