package config

import (
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// maxSocketPath is the longest path of a unix socket, in bytes: sun_path holds 108 on Linux, the last one a zero
// (unix(7)).
const maxSocketPath = 107

// maxSocketName is the longest name of a socket that systemd passes (systemd.socket(5)).
const maxSocketName = 255

// ParseAddress splits the address of a listener into the two arguments of [net.Listen]: "tcp" with host:port, or
// "unix" with the cleaned path of the socket; or "systemd" with the name of a socket that is passed. The error says what
// to write instead, without the address itself.
func ParseAddress(address string) (network, where string, err error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		where, err = parseSocketPath(path)
		return "unix", where, err
	}
	if name, ok := strings.CutPrefix(address, "systemd:"); ok {
		if name == "" || len(name) > maxSocketName || strings.ContainsFunc(name, func(r rune) bool { return r <= 0x20 || r >= 0x7f || r == ':' }) {
			return "", "", errors.New("has no good name; write systemd:NAME with the FileDescriptorName of the socket unit")
		}
		return "systemd", name, nil
	}
	if strings.Contains(address, "://") {
		return "", "", errors.New("is a URL; write host:port or unix:/path/to/socket")
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		switch _, ipErr := netip.ParseAddr(address); {
		case ipErr == nil && strings.Contains(address, ":"):
			return "", "", errors.New("has no port; write [address]:port, for example [::1]:9191")
		case strings.Count(address, ":") > 1 && !strings.Contains(address, "["):
			return "", "", errors.New("has several colons; write an IPv6 address in brackets, for example [::1]:9191")
		case isDigits(address):
			return "", "", errors.New("is a port alone; write the host too, for example 127.0.0.1:9191, or :9191 for all addresses")
		case !strings.Contains(address, ":") || strings.HasSuffix(address, "]"):
			return "", "", errors.New("has no port; write host:port, for example 127.0.0.1:9191")
		}
		return "", "", errors.New("is no address; write host:port, for example 127.0.0.1:9191, or unix:/path/to/socket")
	}
	if host != "" && !isHost(host) {
		return "", "", errors.New("has no good host; write an IP address or a host name before the port")
	}
	if port == "" {
		return "", "", errors.New("has no port; write it after the colon, or 0 for any free one")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		return "", "", errors.New("has no good port; write a number from 0 to 65535 after the colon")
	}
	return "tcp", address, nil
}

func parseSocketPath(path string) (string, error) {
	switch {
	case path == "":
		return "", errors.New("has no path; write unix:/path/to/socket")
	case !strings.HasPrefix(path, "/"), strings.HasPrefix(path, "//") && !strings.HasPrefix(path, "///"):
		return "", errors.New("has no absolute path; write unix:/path/to/socket, with one slash first")
	case strings.HasSuffix(path, "/"):
		return "", errors.New("names a folder; write the socket itself, for example unix:/run/bearergate/ext_authz.sock")
	case strings.ContainsFunc(path, isControl):
		return "", errors.New("has control characters in its path; write a path without them")
	}
	path = filepath.Clean(path)
	if len(path) > maxSocketPath {
		return "", errors.New("has a path that is too long for a socket; write one of at most 107 bytes")
	}
	return path, nil
}

// isHost reports whether s is an IP address or looks like a host name (RFC 1123 section 2.1, and _ as some networks
// use it).
func isHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	s = strings.TrimSuffix(s, ".")
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		if strings.ContainsFunc(label, func(r rune) bool {
			return !isWord(r) && r != '-'
		}) {
			return false
		}
	}
	return true
}

// sameDoor reports whether two good addresses cannot both be listened on.
func sameDoor(a, b string) bool {
	aNetwork, a, _ := ParseAddress(a)
	bNetwork, b, _ := ParseAddress(b)
	if aNetwork != bNetwork {
		return false
	}
	if aNetwork != "tcp" {
		return a == b
	}
	aHost, aPort, _ := net.SplitHostPort(a)
	bHost, bPort, _ := net.SplitHostPort(b)
	return aPort == bPort && aPort != "0" && sameHost(aHost, bHost)
}

// sameHost reports whether two hosts share an address of this machine. Wildcards are told apart as the kernel does:
// 0.0.0.0 takes all of IPv4, :: takes both families.
func sameHost(a, b string) bool {
	if strings.EqualFold(a, b) || isAll(a) || isAll(b) {
		return true
	}
	if strings.EqualFold(a, "localhost") {
		return sameHost("127.0.0.1", b) || sameHost("::1", b)
	}
	if strings.EqualFold(b, "localhost") {
		return sameHost(b, a)
	}
	aIP, aErr := netip.ParseAddr(a)
	bIP, bErr := netip.ParseAddr(b)
	if aErr != nil || bErr != nil {
		// A name may be any address; 0.0.0.0 has its IPv4 ones.
		return aErr == nil && aIP == netip.IPv4Unspecified() || bErr == nil && bIP == netip.IPv4Unspecified()
	}
	aIP, bIP = aIP.Unmap(), bIP.Unmap()
	return aIP == bIP || aIP == netip.IPv4Unspecified() && bIP.Is4() || bIP == netip.IPv4Unspecified() && aIP.Is4()
}

// isAll reports whether listening on host takes every address of both families.
func isAll(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.Is6() && !ip.Is4In6() && ip.IsUnspecified()
}

// isWord reports whether r is an ASCII letter, a digit or _.
func isWord(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_'
}

func isControl(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 }
