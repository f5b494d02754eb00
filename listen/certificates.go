package listen

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// maxFileBytes is the size of the largest PEM file that is read.
const maxFileBytes = 1 << 20

// TLSOptions say what a listener shows of itself, and whom it lets in.
type TLSOptions struct {
	// CertFile and KeyFile are PEM files with the certificate, its chain behind it,
	// and with its private key.
	CertFile, KeyFile string
	// ClientCAFile is a PEM file of the authorities whose clients may connect; ""
	// asks for no client certificate.
	ClientCAFile string
	// ClientNames are the names of which a client's certificate must have one; none
	// means that each certificate of ClientCAFile will do.
	ClientNames []string
	// MinVersion is the lowest version that is spoken; 0 means TLS 1.2.
	MinVersion uint16
	// Protocols are those that are spoken above TLS, by their names in ALPN (RFC 7301),
	// the ones that are liked best first.
	Protocols []string
	// NeedProtocol refuses clients that name none of them.
	NeedProtocol bool
}

// Files returns the files that are read, for who watches them.
func (o *TLSOptions) Files() []string {
	files := []string{o.CertFile, o.KeyFile}
	if o.ClientCAFile != "" {
		files = append(files, o.ClientCAFile)
	}
	return files
}

// The fields of a configuration that a [FileError] names.
const (
	CertFile     = "cert_file"
	KeyFile      = "key_file"
	ClientCAFile = "client_ca_file"
)

// FileError says what is wrong with one of the files, and what to do. It holds
// nothing that stands in them.
type FileError struct {
	// Field is the one that names the file: one of the constants above.
	Field string
	// Text begins with a verb.
	Text string
}

// Error implements error.
func (e *FileError) Error() string { return e.Field + " " + e.Text }

// Certificates are the files of a TLS listener as they were when they last could
// be used. Its methods may be called concurrently.
type Certificates struct {
	options TLSOptions
	current atomic.Pointer[identity]

	mu      sync.Mutex
	refused string // what was wrong the last time; "" if nothing was
}

// identity is what was made of the files.
type identity struct {
	config  *tls.Config
	leaf    *x509.Certificate
	digest  [sha256.Size]byte
	exposed bool
}

// LoadCertificates reads the files. An error is a [*FileError].
func LoadCertificates(o TLSOptions) (*Certificates, error) {
	c := &Certificates{options: o}
	read, err := readFiles(&o)
	if err != nil {
		return nil, err
	}
	made, err := read.identity(&o)
	if err != nil {
		return nil, err
	}
	c.current.Store(made)
	return c, nil
}

// Config returns what the next connection is answered with.
func (c *Certificates) Config() *tls.Config { return c.current.Load().config }

// NotBefore and NotAfter are the times between which the certificate is good.
func (c *Certificates) NotBefore() time.Time { return c.current.Load().leaf.NotBefore }

// NotAfter is the other one.
func (c *Certificates) NotAfter() time.Time { return c.current.Load().leaf.NotAfter }

// KeyExposed reports whether every user of the machine may read the private key.
func (c *Certificates) KeyExposed() bool { return c.current.Load().exposed }

// Files returns the files that Reload reads.
func (c *Certificates) Files() []string { return c.options.Files() }

// Reload reads the files again. If they can be used, new connections get what they
// say now; those that are open stay as they are. If not, the error says why, and
// what was in force stays so: a certificate that has ended or has not begun is not
// taken in the place of one that is good now.
//
// News is false if nothing is other than at the last call, a fault included.
func (c *Certificates) Reload() (news bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	current := c.current.Load()
	made, err := c.reread(current)
	if err != nil {
		news = c.refused != err.Error()
		c.refused = err.Error()
		return news, err
	}
	news = made != current || c.refused != ""
	c.refused = ""
	c.current.Store(made)
	return news, nil
}

// reread returns what is to be in force from now on; current if the files are the
// same.
func (c *Certificates) reread(current *identity) (*identity, error) {
	read, err := readFiles(&c.options)
	if err != nil {
		return nil, err
	}
	if read.digest() == current.digest {
		return current, nil
	}
	made, err := read.identity(&c.options)
	if err != nil {
		return nil, err
	}
	if now := time.Now(); isGood(current.leaf, now) && !isGood(made.leaf, now) {
		if now.After(made.leaf.NotAfter) {
			return nil, &FileError{CertFile, "has a certificate that has ended; write a new one there"}
		}
		return nil, &FileError{CertFile, "has a certificate that is not good yet; see its notBefore and this machine's clock"}
	}
	return made, nil
}

func isGood(leaf *x509.Certificate, now time.Time) bool {
	return !now.Before(leaf.NotBefore) && !now.After(leaf.NotAfter)
}

// contents are what stands in the files.
type contents struct {
	certificate, key, authorities []byte
	exposed                       bool
}

func readFiles(o *TLSOptions) (*contents, error) {
	var c contents
	var err error
	if c.certificate, err = readPEM(o.CertFile); err != nil {
		return nil, &FileError{CertFile, err.Error()}
	}
	if c.key, err = readPEM(o.KeyFile); err != nil {
		return nil, &FileError{KeyFile, err.Error()}
	}
	if info, err := os.Stat(o.KeyFile); err == nil {
		if info.Mode().Perm()&0o002 != 0 {
			return nil, &FileError{KeyFile, "can be changed by every user of this machine; take that right away (chmod 0600)"}
		}
		c.exposed = info.Mode().Perm()&0o004 != 0
	}
	if o.ClientCAFile != "" {
		if c.authorities, err = readPEM(o.ClientCAFile); err != nil {
			return nil, &FileError{ClientCAFile, err.Error()}
		}
	}
	return &c, nil
}

func (c *contents) digest() [sha256.Size]byte {
	h := sha256.New()
	for _, text := range [][]byte{c.certificate, c.key, c.authorities} {
		_ = binary.Write(h, binary.BigEndian, uint64(len(text))) // a hash takes everything
		_, _ = h.Write(text)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

func (c *contents) identity(o *TLSOptions) (*identity, error) {
	if _, err := parseCertificates(c.certificate); err != nil {
		return nil, &FileError{CertFile, err.Error()}
	}
	if err := checkKey(c.key); err != nil {
		return nil, &FileError{KeyFile, err.Error()}
	}
	pair, err := tls.X509KeyPair(c.certificate, c.key)
	if err != nil {
		// What it cannot be but for what was looked at above. The error's text is not
		// shown: it is about a private key.
		return nil, &FileError{KeyFile, "does not belong to the first certificate in cert_file; write the key that it was made with"}
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{pair},
		MinVersion:   max(o.MinVersion, tls.VersionTLS12),
	}
	config.NextProtos = slices.Clone(o.Protocols)
	if o.ClientCAFile != "" {
		authorities, err := parseCertificates(c.authorities)
		if err != nil {
			return nil, &FileError{ClientCAFile, err.Error()}
		}
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		for _, authority := range authorities {
			config.ClientCAs.AddCert(authority)
		}
	}
	// Not VerifyPeerCertificate, which is not called when a session is resumed.
	names, need := slices.Clone(o.ClientNames), o.NeedProtocol
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if need && state.NegotiatedProtocol == "" {
			return errNoProtocol
		}
		if len(names) > 0 && (len(state.PeerCertificates) == 0 || !HasName(state.PeerCertificates[0], names)) {
			return errWrongName
		}
		return nil
	}
	return &identity{config: config, leaf: pair.Leaf, digest: c.digest(), exposed: c.exposed}, nil
}

// HasName reports whether a certificate has one of the names: a URI, an
// email address or a DNS name. DNS names are the same in upper and lower case (RFC
// 4343); a wildcard matches nothing but itself, and the common name is none.
func HasName(leaf *x509.Certificate, names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		switch KindOfName(name) {
		case URIName:
			for _, uri := range leaf.URIs {
				if uri.String() == name {
					return true
				}
			}
			return false
		case EmailName:
			return slices.Contains(leaf.EmailAddresses, name)
		default:
			return slices.ContainsFunc(leaf.DNSNames, func(dns string) bool { return strings.EqualFold(dns, name) })
		}
	})
}

// NameKind is what kind of a name a client has.
type NameKind int

// The kinds of names.
const (
	DNSName NameKind = iota
	EmailName
	URIName
)

// KindOfName tells by its look what kind of a name one is.
func KindOfName(name string) NameKind {
	switch {
	case strings.Contains(name, "://"):
		return URIName
	case strings.Contains(name, "@"):
		return EmailName
	}
	return DNSName
}

// readPEM reads a whole file. The error says what is wrong and what to do.
func readPEM(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errors.New("is not there; write the path of a PEM file, a relative one starts at the folder of the configuration file")
	case err != nil:
		return nil, errors.New("cannot be read; see that the path is right and that the gateway's user may read it")
	case !info.Mode().IsRegular():
		return nil, errors.New("is no file; write the path of a PEM file")
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, errors.New("cannot be read; see that the gateway's user may read it")
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxFileBytes+1))
	switch {
	case err != nil:
		return nil, errors.New("cannot be read; see that the gateway's user may read it")
	case len(text) > maxFileBytes:
		return nil, errors.New("has more than 1 MiB; name a PEM file with nothing else in it")
	}
	return text, nil
}

// ReadCertificates reads the certificates of a PEM file. The error says what is
// wrong and what to do.
func ReadCertificates(path string) ([]*x509.Certificate, error) {
	text, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	return parseCertificates(text)
}

func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, errors.New("holds a certificate that cannot be read; export it again in PEM format")
		}
		all = append(all, certificate)
	}
	if len(all) == 0 {
		return nil, errors.New("holds no certificate; name a PEM file with at least one BEGIN CERTIFICATE block")
	}
	return all, nil
}

// checkKey finds what operators put in the place of a private key.
func checkKey(text []byte) error {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY", strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
			return errors.New("has a passphrase; write the key without one (openssl pkey), readable for the gateway's user alone")
		case block.Type == "PRIVATE KEY", strings.HasSuffix(block.Type, " PRIVATE KEY"):
			return nil
		}
	}
	if bytes.Contains(text, []byte("BEGIN CERTIFICATE")) {
		return errors.New("holds a certificate and no private key; name the file with the BEGIN PRIVATE KEY block")
	}
	return errors.New("holds no private key; name a PEM file with a BEGIN PRIVATE KEY block")
}
