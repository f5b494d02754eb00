package verifier_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bearergate/bearergate/verifier"
)

// authority signs certificates.
type authority struct {
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
	pool        *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "an authority for tests"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key, certificate, x509.NewCertPool()}
	a.pool.AddCert(certificate)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// pem returns the authority's own certificate as a file holds it.
func (a *authority) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw}))
}

// leaf is what a server's certificate says: for whom, and from when until when, as
// seen from now. No name means 127.0.0.1, no times mean an hour around now.
type leaf struct {
	name        string
	from, until time.Duration
}

func (a *authority) issue(t *testing.T, l leaf) tls.Certificate {
	t.Helper()
	if l.from == 0 && l.until == 0 {
		l.from, l.until = -time.Hour, time.Hour
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(l.from), NotAfter: time.Now().Add(l.until),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if l.name == "" {
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	} else {
		template.DNSNames = []string{l.name}
	}
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestCertificates(t *testing.T) {
	own, other := newAuthority(t), newAuthority(t)
	for _, c := range []struct {
		name        string
		certificate tls.Certificate
		roots       *x509.CertPool
		problem     string // "" if it is good
	}{
		{"of the own authority", own.issue(t, leaf{}), own.pool, ""},
		{"of another name", own.issue(t, leaf{name: "api.example"}), own.pool, "certificate is not trusted"},
		{"that has ended", own.issue(t, leaf{from: -2 * time.Hour, until: -time.Hour}), own.pool, "certificate is not trusted"},
		{"that has not begun", own.issue(t, leaf{from: time.Hour, until: 2 * time.Hour}), own.pool, "certificate is not trusted"},
		{"of another authority", other.issue(t, leaf{}), own.pool, "certificate is not trusted"},
		{"of an authority that the system does not know", own.issue(t, leaf{}), nil, "certificate is not trusted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := startEndpoint(t, &tls.Config{Certificates: []tls.Certificate{c.certificate}}, replies(http.StatusOK, saysValid))
			v := newVerifytoken(t, verifier.VerifytokenOptions{URL: e.URL, RootCAs: c.roots})
			if c.problem == "" {
				expectVerdict(t, v, true)
				return
			}
			verdict, err := ask(t, v)
			expectNone(t, verdict, err, c.problem)
			if !strings.Contains(err.Error(), "x509: ") {
				t.Errorf("the error does not say what is wrong: %v", err)
			}
			if asked := e.asked(); len(asked) != 0 {
				t.Errorf("a token was sent: %+v", asked)
			}
			if accepted := e.connections(); accepted != 1 {
				t.Errorf("%d connections were made; a second try is of no use", accepted)
			}
		})
	}
}

func TestOldTLSIsNotSpoken(t *testing.T) {
	own := newAuthority(t)
	e := startEndpoint(t, &tls.Config{
		Certificates: []tls.Certificate{own.issue(t, leaf{})}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11,
	}, replies(http.StatusOK, saysValid))
	verdict, err := ask(t, newVerifytoken(t, verifier.VerifytokenOptions{URL: e.URL, RootCAs: own.pool}))
	expectNone(t, verdict, err, "protocol version")
}

func TestPlainServerBehindAnHTTPSURL(t *testing.T) {
	e := startEndpoint(t, nil, replies(http.StatusOK, saysValid))
	verdict, err := ask(t, newVerifytoken(t, verifier.VerifytokenOptions{URL: strings.Replace(e.URL, "http:", "https:", 1)}))
	expectNone(t, verdict, err, "does not speak TLS")
}
