package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"

	"buf.build/go/protovalidate"

	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/listen"
	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
	"github.com/bearergate/bearergate/verifier"
)

// finding is what a rule says about a field.
type finding struct {
	path string
	// text begins with a verb: the value is put in front of it, unless bare is set.
	text string
	bare bool
	// unless names fields whose own fault, if one was found before, explains this one.
	unless []string
}

// check gives all that is wrong with a filled-in configuration: what the rules in config.proto find, and here what they
// cannot say. With it come the policies, made ready as far as they can be.
func check(config *configv1.Config, around surroundings) (*Policies, []finding) {
	var found []finding
	err := protovalidate.Validate(config)
	if invalid, ok := errors.AsType[*protovalidate.ValidationError](err); ok {
		for _, violation := range invalid.Violations {
			found = append(found, finding{
				path: protovalidate.FieldPathString(violation.Proto.GetField()),
				text: violation.Proto.GetMessage(),
			})
		}
	} else if err != nil {
		// A rule that does not compile. A test would have seen it.
		found = append(found, finding{text: "cannot be checked: " + err.Error(), bare: true})
	}

	found = append(found, checkListeners(config, around.folder)...)
	found = append(found, checkAdmin(config, around)...)
	found = append(found, checkVerifiers(config, around)...)
	found = append(found, checkHealth(config)...)
	found = append(found, checkFingerprint(config, around)...)
	policies, wrong := checkPolicies(config, around)
	return policies, append(found, wrong...)
}

// checkPolicy sees that a policy's answers can be kept and its headers sent.
func checkPolicy(path string, policy *configv1.Policy, cache *configv1.Cache) []finding {
	var found []finding
	if longest := cache.GetValidTtl().AsDuration(); policy.GetEdgeCache().AsDuration() > longest {
		found = append(found, finding{
			path: path + ".edge_cache", text: "is longer than cache.valid_ttl, and no edge may use an answer longer than the gateway itself; write at most " + longest.String(),
			unless: []string{path + ".edge_cache", "cache.valid_ttl"},
		})
	}
	seen := map[string]string{}
	for i, header := range policy.GetIdentity() {
		at := item(path+".identity", i)
		if err := gate.CheckIdentityName(header.GetName()); err != nil {
			found = append(found, finding{path: at + ".name", text: err.Error()})
		} else if first, ok := seen[strings.ToLower(header.GetName())]; ok {
			found = append(found, finding{path: at + ".name", text: "is also the name of " + first + ", and letter case makes no difference; write another name, or keep one of them"})
		} else {
			seen[strings.ToLower(header.GetName())] = at
		}
		found = append(found, checkClaim(at+".claim", header.GetClaim())...)
		if header.GetConstant() != "" {
			if err := gate.CheckIdentityConstant(header.GetConstant()); err != nil {
				found = append(found, finding{path: at + ".constant", text: err.Error()})
			}
		}
	}
	found = append(found, checkRefusal(path, policy)...)
	return append(found, checkMetadata(path, policy.GetMetadata())...)
}

// headerRoom is what a request's header holds besides the token, at least.
const headerRoom = 4096

func checkListeners(config *configv1.Config, folder string) []finding {
	var found []finding
	listeners := config.GetListeners()
	type door struct{ path, address string }
	var good []door
	for _, e := range entries(listeners) {
		d := door{e.path + ".address", e.GetAddress()}
		if tls := e.GetTls(); tls != nil {
			found = append(found, checkTLS(e.path+".tls", tls, folder)...)
		}
		if e.GetSocket() != nil && !strings.HasPrefix(d.address, "unix:") {
			found = append(found, finding{
				path: e.path + ".socket", text: "is for an address that begins with unix: alone; take it out, or write such an address", bare: true,
				unless: []string{d.path},
			})
		}
		if d.address == "" {
			continue // The rule in config.proto reports it.
		}
		if _, _, err := ParseAddress(d.address); err != nil {
			found = append(found, finding{path: d.path, text: err.Error()})
			continue
		}
		for _, other := range good {
			if sameDoor(d.address, other.address) {
				found = append(found, finding{path: d.path, text: "cannot be listened on together with " + other.path + "; write another port or path"})
				break
			}
		}
		good = append(good, d)
	}

	needed := config.GetCredential().GetMaxTokenBytes() + headerRoom
	text := fmt.Sprintf("has no room for a token of credential.max_token_bytes and other headers; write at least %d", needed)
	small := func(path string) {
		found = append(found, finding{path: path, text: text, bare: true, unless: []string{path, "credential.max_token_bytes"}})
	}
	for _, e := range entries(listeners) {
		switch l := e.fields.(type) {
		case *configv1.ExtAuthz:
			if l.GetMaxMessageBytes() < needed {
				small(e.path + ".max_message_bytes")
			}
		case *configv1.AuthRequest:
			if l.GetMaxHeaderBytes() < needed {
				small(e.path + ".max_header_bytes")
			}
		}
	}
	return found
}

func checkVerifytoken(path string, endpoint *configv1.Verifytoken, folder string) []finding {
	return checkEndpoint(path, endpoint.GetUrl(), endpoint.GetAllowPlaintext(), endpoint.GetCaFile(), folder)
}

// parseEndpoint reads the URL of an endpoint. It returns a URL or an error that says what to write instead; the error
// holds no more of the URL than its scheme and host.
func parseEndpoint(text string, plaintext bool) (*url.URL, error) {
	if strings.ContainsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || isControl(r) }) {
		return nil, errors.New("has spaces or control characters; write the URL without them")
	}
	scheme, _, found := strings.Cut(text, "://")
	if !found {
		return nil, errors.New("is not a whole URL; write https:// and the host in front")
	}
	if scheme = strings.ToLower(scheme); scheme != "https" && scheme != "http" {
		return nil, errors.New("has an unknown scheme; write https")
	}
	endpoint, err := url.Parse(text)
	if err != nil {
		// The error of net/url holds the URL, password and all.
		return nil, errors.New("is not a URL; write https://host/path, with a number for a port and %-codes in hexadecimal")
	}
	host := endpoint.Hostname()
	switch port, err := strconv.ParseUint(endpoint.Port(), 10, 16); {
	case endpoint.User != nil:
		return nil, errors.New("has a user name or password; take it out, the endpoint needs none to verify a token")
	case host == "":
		return nil, errors.New("has no host; write https://host/path")
	case !isHost(host):
		return nil, errors.New("has no good host; write an IP address or a host name after https://")
	case strings.HasSuffix(endpoint.Host, ":"), endpoint.Port() != "" && (err != nil || port == 0):
		return nil, errors.New("has no good port; write a number from 1 to 65535 after the colon, or take the colon out")
	case strings.Contains(text, "#"):
		return nil, errors.New("has a fragment; take it out from the # on, it is never sent")
	}
	if err := checkQuery(endpoint); err != nil {
		return nil, err
	}
	if scheme == "http" && !plaintext && !verifier.IsLoopback(host) {
		return nil, fmt.Errorf("plain http to %s would send tokens in clear; use https, or set allow_plaintext: true", host)
	}
	return endpoint, nil
}

func checkQuery(endpoint *url.URL) error {
	query, err := url.ParseQuery(endpoint.RawQuery)
	if err != nil {
		return errors.New("has a query that is not well formed; write name=value, joined with &, other characters as %-codes")
	}
	if endpoint.ForceQuery {
		return errors.New("ends with a ? and no query; take it out")
	}
	for name := range query {
		switch strings.ToLower(name) {
		case "verifytoken", "token", "access_token":
			return errors.New("has a token in its query; take it out, the gateway sends each token in the body")
		}
	}
	return nil
}

// checkCAFile sees that a file holds certificates that can be trusted with.
func checkCAFile(path string) error {
	_, err := listen.ReadCertificates(path)
	return err
}

// checkTLS sees that the files can be used together, and that each name can be one of a client.
func checkTLS(path string, tls *configv1.Tls, folder string) []finding {
	var found []finding
	for i, name := range tls.GetClientNames() {
		if text := checkClientName(name); text != "" {
			found = append(found, finding{path: item(path+".client_names", i), text: text})
		}
	}
	if len(tls.GetClientNames()) > 0 && tls.GetClientCaFile() == "" {
		found = append(found, finding{
			path: path + ".client_names", text: "has no use without client_ca_file; add it, no client certificate is asked for else", bare: true,
		})
	}
	if tls.GetCertFile() == "" || tls.GetKeyFile() == "" {
		return found // The rule in config.proto reports it.
	}
	options := tlsOptions(tls)
	for _, file := range []*string{&options.CertFile, &options.KeyFile, &options.ClientCAFile} {
		if *file != "" {
			*file = inFolder(folder, *file)
		}
	}
	_, err := listen.LoadCertificates(options)
	if wrong, ok := errors.AsType[*listen.FileError](err); ok {
		found = append(found, finding{path: path + "." + wrong.Field, text: wrong.Text})
	}
	return found
}

// checkClientName gives what is wrong with a name that no certificate has.
func checkClientName(name string) string {
	switch {
	case name == "":
		return "is empty; write a name, or take the entry out"
	case len(name) > 2048:
		return "is too long; write a name of at most 2048 bytes"
	case strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || isControl(r) }):
		return "has spaces or control characters; write the name as it stands in the certificate"
	case listen.KindOfName(name) == listen.EmailName:
		return ""
	case listen.KindOfName(name) == listen.URIName:
		if uri, err := url.Parse(name); err != nil || uri.String() != name {
			return "is no URI as a certificate holds it; write it as openssl x509 -ext subjectAltName shows it"
		}
		return ""
	case strings.Contains(name, "*"):
		return "is a pattern; write each name out"
	case net.ParseIP(name) != nil:
		return "is an IP address; write a DNS name, an email address or a URI of the client's certificate"
	case !isHost(name):
		return "is no DNS name, email address or URI; write one that stands in the client's certificate"
	}
	return ""
}

// resolveFiles makes the paths in the configuration independent of where its own file lies.
func resolveFiles(config *configv1.Config, file string) {
	for _, e := range entries(config.GetListeners()) {
		if tls := e.GetTls(); tls != nil {
			tls.CertFile = inFolder(filepath.Dir(file), tls.GetCertFile())
			tls.KeyFile = inFolder(filepath.Dir(file), tls.GetKeyFile())
			if tls.GetClientCaFile() != "" {
				tls.ClientCaFile = inFolder(filepath.Dir(file), tls.GetClientCaFile())
			}
		}
		if l, ok := e.fields.(*configv1.AuthRequest); ok && l.GetTrust().GetSecret().GetFile() != "" {
			l.Trust.Secret.File = inFolder(filepath.Dir(file), l.GetTrust().GetSecret().GetFile())
		}
		if l, ok := e.fields.(*configv1.Admin); ok && l.GetApi().GetCredential().GetFile() != "" {
			l.Api.Credential.File = inFolder(filepath.Dir(file), l.GetApi().GetCredential().GetFile())
		}
	}
	if key := config.GetFingerprint().GetKey(); key.GetFile() != "" {
		key.File = inFolder(filepath.Dir(file), key.GetFile())
	}
	resolveVerifierFiles(config, file)
}

func inFolder(folder, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(folder, path)
}
