package policy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// PathKind says how a route's path is meant.
type PathKind uint8

const (
	// AnyPath matches every path.
	AnyPath PathKind = iota
	// ExactPath matches one path.
	ExactPath
	// PrefixPath matches a path, the same with a slash at its end, and all below.
	PrefixPath
	// TemplatePath matches as Envoy's URI templates do: * stands for one segment, **
	// for any number of them, and {name} or {name=…} captures.
	TemplatePath
)

// Path is the path of a route.
type Path struct {
	Kind PathKind
	Text string
}

// pattern is a path in the form in which it is matched: segments that are named or
// free, and how it ends.
type pattern struct {
	// segments are those in front of the end; a free one is a *.
	segments []segment
	end      ending
	// text is the fixed text at the end of a tail or a rest.
	text string
}

type segment struct {
	free bool
	text string
}

// ending is how a pattern ends.
type ending uint8

const (
	endsHere  ending = iota // with its last segment
	endsTail                // with one more segment, which ends with text
	endsRest                // with a slash and anything that ends with text
	endsBelow               // with its last segment, or anything below it
)

func parsePath(p Path) (pattern, error) {
	switch p.Kind {
	case AnyPath:
		return pattern{end: endsBelow}, nil
	case ExactPath, PrefixPath:
		path, err := writtenPath(p.Text)
		if err != nil {
			return pattern{}, err
		}
		if p.Kind == ExactPath {
			return pattern{segments: named(path)}, nil
		}
		if path == "/" {
			return pattern{end: endsBelow}, nil
		}
		if strings.HasSuffix(path, "/") {
			return pattern{}, errors.New("ends with a slash; write it without, it stands for the path with a slash and all below it too")
		}
		return pattern{segments: named(path), end: endsBelow}, nil
	default:
		return parseTemplate(p.Text)
	}
}

// writtenPath checks a path as an operator writes it, which is what a request's
// path is compared with after it was decoded.
func writtenPath(text string) (string, error) {
	path, err := CheckPath(text)
	if err != nil {
		_, why, _ := strings.Cut(err.Error(), ": ")
		return "", fmt.Errorf("could match no request, because %s; write a path that needs no cleaning", why)
	}
	return path, nil
}

func named(path string) []segment {
	var segments []segment
	for text := range strings.SplitSeq(path[1:], "/") {
		segments = append(segments, segment{text: text})
	}
	return segments
}

// Envoy's limits for captures.
const (
	maxCaptures    = 5
	maxCaptureName = 16
)

// parseTemplate reads a URI template. Envoy documents them at
// envoy.extensions.path.match.uri_template.v3; what it refuses is refused here.
func parseTemplate(text string) (pattern, error) {
	if !strings.HasPrefix(text, "/") {
		return pattern{}, errors.New("does not begin with a slash; write one in front")
	}
	plain, err := withoutCaptures(text)
	if err != nil {
		return pattern{}, err
	}
	head, tail, rest := strings.Cut(plain, "**")
	if rest {
		if strings.Contains(tail, "*") {
			return pattern{}, errors.New("has another * after its **; write ** last, or only fixed text behind it")
		}
		if !strings.HasSuffix(head, "/") {
			return pattern{}, errors.New("has text directly in front of **; write a slash there")
		}
		if tail != "" && tail[0] != '/' && strings.Contains(tail, "/") {
			return pattern{}, errors.New("has text directly behind **, and then a slash; write a slash behind **, or no other")
		}
	}
	// What is fixed must be a path that a request could have.
	if _, err := writtenPath(strings.ReplaceAll(strings.ReplaceAll(plain, "**", "x"), "*", "x")); err != nil {
		return pattern{}, err
	}
	if strings.Contains(plain, "%") {
		return pattern{}, errors.New("has a percent-encoding; write the character itself")
	}
	var p pattern
	if rest {
		p.end, p.text = endsRest, tail
		head = strings.TrimSuffix(head, "/")
		if head == "" {
			return p, nil
		}
	}
	texts := strings.Split(head[1:], "/")
	for i, text := range texts {
		star := strings.IndexByte(text, '*')
		switch {
		case star < 0:
			p.segments = append(p.segments, segment{text: text})
		case text == "*":
			p.segments = append(p.segments, segment{free: true})
		case star == 0 && i == len(texts)-1 && !rest && !strings.Contains(text[1:], "*"):
			p.end, p.text = endsTail, text[1:]
		default:
			return pattern{}, errors.New("has a * among other text; write * for a whole segment, or * and an ending in the last one")
		}
	}
	return p, nil
}

// withoutCaptures puts what a capture stands for in its place.
func withoutCaptures(text string) (string, error) {
	var out strings.Builder
	var names []string
	for {
		before, capture, found := strings.Cut(text, "{")
		out.WriteString(before)
		if strings.Contains(before, "}") {
			return "", errors.New("has a } without a {; write captures as {name} or {name=segments}")
		}
		if !found {
			return out.String(), nil
		}
		capture, after, closed := strings.Cut(capture, "}")
		name, match, has := strings.Cut(capture, "=")
		if !has {
			match = "*"
		}
		switch {
		case !closed:
			return "", errors.New("has a { without a }; write captures as {name} or {name=segments}")
		case !strings.HasSuffix(before, "/"):
			return "", errors.New("has a capture that does not begin a segment; write a slash in front of the {")
		case !isCaptureName(name):
			return "", errors.New("has a capture with no good name; write 1 to 16 letters, digits and _, a letter first")
		case slices.Contains(names, name):
			return "", fmt.Errorf("has two captures with the name %s; give each its own", name)
		case len(names) == maxCaptures:
			return "", errors.New("has more than 5 captures, which is the most that Envoy takes; write * for those that have no use")
		case match == "" || match[0] == '/' || strings.HasSuffix(match, "/") || strings.Contains(match, "{"):
			return "", errors.New("has a capture of no good segments; write for example {name=*} or {name=videos/*}")
		}
		names = append(names, name)
		out.WriteString(match)
		text = after
	}
}

func isCaptureName(name string) bool {
	for i := range len(name) {
		c := name[i] | 0x20
		letter := 'a' <= c && c <= 'z'
		if !letter && (i == 0 || name[i] != '_' && (name[i] < '0' || name[i] > '9')) {
			return false
		}
	}
	return name != "" && len(name) <= maxCaptureName
}

// element is what a pattern has at one place: a segment, or how it ends. The order
// is that of their ranks, the most specific first.
type element uint8

const (
	namedElement element = iota
	tailElement
	freeElement
	restElement
	hereElement
	belowElement
)

// at returns the element at a place, and its fixed text.
func (p *pattern) at(place int) (element, string) {
	switch {
	case place < len(p.segments):
		if p.segments[place].free {
			return freeElement, ""
		}
		return namedElement, p.segments[place].text
	case p.end == endsTail:
		return tailElement, p.text
	case p.end == endsRest:
		return restElement, p.text
	case p.end == endsHere:
		return hereElement, ""
	default:
		return belowElement, ""
	}
}

// comparePatterns orders patterns that match one path, the more specific first.
// They are read from the left, and the first place where they differ decides: a
// named segment comes before * with an ending, that before *, that before **, and
// what ends there before what goes on below. Of two endings the longer one comes
// first. It is 0 only if the patterns are the same.
func comparePatterns(a, b *pattern) int {
	for place := 0; ; place++ {
		x, xText := a.at(place)
		y, yText := b.at(place)
		switch {
		case x != y:
			return cmp.Compare(x, y)
		case len(xText) != len(yText):
			return cmp.Compare(len(yText), len(xText))
		case place >= len(a.segments):
			return 0
		}
	}
}

// matches reports whether a checked path matches. The router has a faster way; this
// is the plain one, for explanations.
func (p *pattern) matches(path string) bool {
	rest, more := path[1:], true
	for _, s := range p.segments {
		if !more {
			return false
		}
		var text string
		text, rest, more = strings.Cut(rest, "/")
		if s.free && text == "" || !s.free && text != s.text {
			return false
		}
	}
	switch p.end {
	case endsHere:
		return !more
	case endsTail:
		return more && !strings.Contains(rest, "/") && hasTail(rest, p.text)
	case endsRest:
		return more && strings.HasSuffix(rest, p.text)
	default:
		return true
	}
}

// hasTail reports whether a segment is something and then a text.
func hasTail(segment, text string) bool {
	return len(segment) > len(text) && strings.HasSuffix(segment, text)
}
