package policy

import (
	"errors"
	"net/netip"
	"strings"
	"unsafe"
)

// maxHost is the longest host that is looked at: that of a name (RFC 1035 §2.3.4)
// with its final dot.
const maxHost = 254

var (
	errHostMissing = because(ErrHost, "there is none")
	errLongHost    = because(ErrHost, "it is longer than a name can be")
	errHostForm    = because(ErrHost, "it is neither a name nor an IP address, with or without a port")
	errMethodForm  = because(ErrMethod, "it has other characters than capital letters, digits, - and _")
)

// checkHost returns the host of an authority in the form in which hosts are
// compared: lower case, without its port and without the final dot of a name. The
// result may lie in buf, which has room for maxHost.
func checkHost(authority string, buf []byte) (string, error) {
	host, port, bracketed := authority, "", false
	if strings.HasPrefix(host, "[") {
		end := strings.IndexByte(host, ']')
		if end < 0 {
			return "", errHostForm
		}
		host, port, bracketed = host[1:end], host[end+1:], true
	} else if colon := strings.IndexByte(host, ':'); colon >= 0 {
		host, port = host[:colon], host[colon:]
	}
	if port != "" && (port[0] != ':' || !isPort(port[1:])) {
		return "", errHostForm
	}
	if !bracketed {
		host = strings.TrimSuffix(host, ".")
	}
	switch {
	case host == "" && !bracketed:
		return "", errHostMissing
	case len(host) > maxHost:
		return "", errLongHost
	}
	lower := true
	for i := range len(host) {
		switch c := host[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '.':
		case c == '-' || c == '_':
			if bracketed {
				return "", errHostForm
			}
		case 'A' <= c && c <= 'Z':
			lower = false
		case c == ':' && bracketed:
		default:
			return "", errHostForm
		}
	}
	if bracketed {
		// One address has many spellings.
		a, err := netip.ParseAddr(host)
		if err != nil || !a.Is6() {
			return "", errHostForm
		}
		buf = a.AppendTo(buf[:0])
		return unsafe.String(unsafe.SliceData(buf), len(buf)), nil
	}
	if host[0] == '.' || host[len(host)-1] == '.' || strings.Contains(host, "..") {
		return "", errHostForm
	}
	if lower {
		return host, nil
	}
	buf = buf[:0]
	for i := range len(host) {
		c := host[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		buf = append(buf, c)
	}
	return unsafe.String(unsafe.SliceData(buf), len(buf)), nil
}

// isPort reports whether a text is a port. An empty one is the scheme's own (RFC
// 3986 §3.2.3).
func isPort(text string) bool {
	if len(text) > 5 {
		return false
	}
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' {
			return false
		}
	}
	return true
}

// hostPattern is a host of a route: a name, or all names below one.
type hostPattern struct {
	text   string // api.example.com, or .example.com with its dot
	suffix bool
}

func parseHost(text string) (hostPattern, error) {
	name, wild := strings.CutPrefix(text, "*.")
	host, err := checkHost(name, make([]byte, 0, maxHost))
	switch {
	case text == "":
		return hostPattern{}, errors.New("is empty; write a host name, or *. and a name for all names below it")
	case strings.Contains(name, "*"):
		return hostPattern{}, errors.New("has a * in a place where none can be; write *. in front of a name, for all names below it")
	case err != nil:
		return hostPattern{}, errors.New("is no host; write a name of ASCII letters, digits, - and dots (xn-- for others), or an IP address")
	case !strings.HasPrefix(name, "[") && strings.Contains(name, ":"), strings.HasPrefix(name, "[") && !strings.HasSuffix(name, "]"):
		return hostPattern{}, errors.New("has a port; write the host alone, a route is for all ports")
	case wild && strings.HasPrefix(name, "["):
		return hostPattern{}, errors.New("has a * in front of an IP address; write the address alone")
	case wild:
		return hostPattern{"." + host, true}, nil
	default:
		return hostPattern{host, false}, nil
	}
}

func (p hostPattern) String() string {
	if p.suffix {
		return "*" + p.text
	}
	return p.text
}

func (p hostPattern) matches(host string) bool {
	if p.suffix {
		return len(host) > len(p.text) && strings.HasSuffix(host, p.text)
	}
	return host == p.text
}

// checkMethod refuses methods that an API may take for another: they are case
// sensitive (RFC 9110 §9.1), but not everybody knows.
func checkMethod(method string) error {
	if method == "" {
		return errMethodForm
	}
	for i := range len(method) {
		if c := method[i]; (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return errMethodForm
		}
	}
	return nil
}
