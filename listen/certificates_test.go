package listen_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bearergate/bearergate/listen"
	"github.com/bearergate/bearergate/listen/listentest"
)

// shown is the first certificate that a listener shows.
func shown(c *listen.Certificates) []byte { return c.Config().Certificates[0].Certificate[0] }

func TestFilesThatCannotBeUsedAreRefused(t *testing.T) {
	own := listentest.NewAuthority(t)
	pair, other := own.Issue(t, listentest.Leaf{}), own.Issue(t, listentest.Leaf{})
	encrypted := []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
	legacy := []byte("-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nMAAA\n-----END EC PRIVATE KEY-----\n")
	broken := []byte("-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n")
	large := bytes.Repeat([]byte(" "), 1<<20+1)
	for name, test := range map[string]struct {
		certificate, key, ca []byte // nil is no such file
		want                 string
	}{
		"no certificate file":               {nil, pair.Key, own.PEM(), "cert_file is not there; "},
		"a certificate file without one":    {pair.Key, pair.Key, own.PEM(), "cert_file holds no certificate; "},
		"a broken certificate":              {broken, pair.Key, own.PEM(), "cert_file holds a certificate that cannot be read; "},
		"a broken certificate in the chain": {append(bytes.Clone(pair.Certificate), broken...), pair.Key, own.PEM(), "cert_file holds a certificate that cannot be read; "},
		"an empty certificate file":         {[]byte{}, pair.Key, own.PEM(), "cert_file holds no certificate; "},
		"a certificate file over 1 MiB":     {large, pair.Key, own.PEM(), "cert_file has more than 1 MiB; "},
		"no key file":                       {pair.Certificate, nil, own.PEM(), "key_file is not there; "},
		"a key file without one":            {pair.Certificate, []byte("nothing"), own.PEM(), "key_file holds no private key; "},
		"a certificate as the key":          {pair.Certificate, pair.Certificate, own.PEM(), "key_file holds a certificate and no private key; "},
		"the key of another":                {pair.Certificate, other.Key, own.PEM(), "key_file does not belong to the first certificate in cert_file; "},
		"the chain the wrong way round":     {append(own.PEM(), pair.Certificate...), pair.Key, own.PEM(), "key_file does not belong to the first certificate in cert_file; "},
		"a key with a passphrase":           {pair.Certificate, encrypted, own.PEM(), "key_file has a passphrase; "},
		"a key with one, as it was before":  {pair.Certificate, legacy, own.PEM(), "key_file has a passphrase; "},
		"a key file over 1 MiB":             {pair.Certificate, large, own.PEM(), "key_file has more than 1 MiB; "},
		"no authorities":                    {pair.Certificate, pair.Key, nil, "client_ca_file is not there; "},
		"authorities without a certificate": {pair.Certificate, pair.Key, pair.Key, "client_ca_file holds no certificate; "},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			o := listen.TLSOptions{
				CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key"), ClientCAFile: filepath.Join(dir, "ca.pem"),
			}
			for path, text := range map[string][]byte{o.CertFile: test.certificate, o.KeyFile: test.key, o.ClientCAFile: test.ca} {
				if text != nil {
					put(t, path, text)
				}
			}
			_, err := listen.LoadCertificates(o)
			wrong, ok := errors.AsType[*listen.FileError](err)
			if !ok || !strings.HasPrefix(wrong.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

func put(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAKeyThatOthersReachIsNamed(t *testing.T) {
	own := listentest.NewAuthority(t)
	dir := t.TempDir()
	var o listen.TLSOptions
	o.CertFile, o.KeyFile = own.Issue(t, listentest.Leaf{}).Files(t, dir)
	for mode, want := range map[os.FileMode]struct{ exposed, refused bool }{
		0o600: {}, 0o640: {}, 0o660: {}, 0o400: {}, 0o644: {exposed: true}, 0o602: {refused: true}, 0o666: {refused: true},
	} {
		if err := os.Chmod(o.KeyFile, mode); err != nil {
			t.Fatal(err)
		}
		c, err := listen.LoadCertificates(o)
		if refused := err != nil; refused != want.refused {
			t.Errorf("%o: %v", mode, err)
		}
		if err == nil && c.KeyExposed() != want.exposed {
			t.Errorf("%o: exposed is %v", mode, c.KeyExposed())
		}
	}
}

func TestAFolderIsNoCertificateFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := listen.LoadCertificates(listen.TLSOptions{CertFile: dir, KeyFile: dir}); err == nil || err.Error() != "cert_file is no file; write the path of a PEM file" {
		t.Errorf("got %v", err)
	}
	if _, err := listen.ReadCertificates(dir + "/x/y"); err == nil {
		t.Error("a file that is not there is read")
	}
}

func TestReloadTakesWhatIsGoodAndKeepsWhatWas(t *testing.T) {
	own := listentest.NewAuthority(t)
	first, second := own.Issue(t, listentest.Leaf{}), own.Issue(t, listentest.Leaf{Until: 2 * time.Hour, From: -time.Hour})
	ended := own.Issue(t, listentest.Leaf{From: -2 * time.Hour, Until: -time.Minute})
	early := own.Issue(t, listentest.Leaf{From: time.Hour, Until: 2 * time.Hour})
	dir := t.TempDir()
	o := listen.TLSOptions{ClientCAFile: own.File(t, dir)}
	o.CertFile, o.KeyFile = first.Files(t, dir)
	c := load(t, o)

	step := func(name string, change func(), wantNews, wantErr bool, inForce listentest.Pair) {
		t.Helper()
		change()
		news, err := c.Reload()
		if news != wantNews || (err != nil) != wantErr {
			t.Errorf("%s: news %v, error %v", name, news, err)
		}
		want := inForce.TLS(t)
		if !bytes.Equal(shown(c), want.Certificate[0]) {
			t.Errorf("%s: another certificate is shown", name)
		}
		if !c.NotAfter().Equal(want.Leaf.NotAfter) || !c.NotBefore().Equal(want.Leaf.NotBefore) {
			t.Errorf("%s: good from %v to %v", name, c.NotBefore(), c.NotAfter())
		}
	}
	nothing := func() {}
	write := func(p listentest.Pair) func() { return func() { p.Files(t, dir) } }

	step("nothing changed", nothing, false, false, first)
	step("the same is written again", write(first), false, false, first)
	step("another pair", write(second), true, false, second)
	step("nothing more", nothing, false, false, second)
	step("a certificate alone", func() { put(t, o.CertFile, first.Certificate) }, true, true, second)
	step("the same fault", nothing, false, true, second)
	step("its key comes", func() { put(t, o.KeyFile, first.Key) }, true, false, first)
	step("a file is gone", func() { _ = os.Remove(o.KeyFile) }, true, true, first)
	step("another fault", func() { put(t, o.KeyFile, []byte("x")) }, true, true, first)
	step("what was is there again", write(first), true, false, first)
	step("one that has ended", write(ended), true, true, first)
	step("one that is not good yet", write(early), true, true, first)
	step("a good one after all", write(second), true, false, second)
	before := c.Config()
	step("other authorities", func() { put(t, o.ClientCAFile, listentest.NewAuthority(t).PEM()) }, true, false, second)
	if c.Config().ClientCAs.Equal(before.ClientCAs) {
		t.Error("the authorities of before are trusted")
	}
	step("no authorities", func() { put(t, o.ClientCAFile, nil) }, true, true, second)
	if c.Config().ClientAuth != tls.RequireAndVerifyClientCert {
		t.Error("nobody is asked for a certificate any more")
	}
}

// A gateway that starts with a certificate that has ended must not hold on to it.
func TestAnEndedCertificateGivesWayToAnother(t *testing.T) {
	own := listentest.NewAuthority(t)
	dir := t.TempDir()
	var o listen.TLSOptions
	o.CertFile, o.KeyFile = own.Issue(t, listentest.Leaf{From: -2 * time.Hour, Until: -time.Hour}).Files(t, dir)
	c := load(t, o)
	early := own.Issue(t, listentest.Leaf{From: time.Hour, Until: 2 * time.Hour})
	early.Files(t, dir)
	if news, err := c.Reload(); !news || err != nil || !bytes.Equal(shown(c), early.TLS(t).Certificate[0]) {
		t.Errorf("news %v, %v", news, err)
	}
}
