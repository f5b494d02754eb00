package config

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
)

// Origin is where a value of a configuration comes from.
type Origin struct {
	// From is file, environment or default.
	From string `json:"from"`
	// Line is where the field stands in the file; 0 for a default.
	Line int `json:"line,omitempty"`
	// Hidden says that the value is not shown as it is in force.
	Hidden bool `json:"hidden,omitempty"`
}

func (o Origin) String() string {
	text := o.From
	if o.Line > 0 {
		text = "line " + strconv.Itoa(o.Line)
	}
	if o.From == "environment" {
		text += ", from the environment"
	}
	if o.Hidden {
		text += ", not shown whole"
	}
	return text
}

// YAML writes the configuration as it is in force, every default filled in, with the
// origin of each value behind it. It is a configuration itself, but for what is
// hidden: the user, the password, the values in the query and the fragment of a URL. A text that
// holds variables stands as it was written, with their names, unless it can only be an
// address, a path, a socket's mode or one of a few words.
func (r *Reading) YAML() ([]byte, error) {
	var text bytes.Buffer
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	if err := encoder.Encode((&shower{reading: r}).message("", r.Config.ProtoReflect())); err != nil {
		return nil, err
	}
	return text.Bytes(), encoder.Close()
}

// JSON writes what [Reading.YAML] writes for scripts: the configuration as config, and
// the origin of each value by its path as origins. Durations are texts, as in the file.
func (r *Reading) JSON() ([]byte, error) {
	s := &shower{reading: r, origins: map[string]Origin{}}
	var whole map[string]any
	if err := s.message("", r.Config.ProtoReflect()).Decode(&whole); err != nil {
		return nil, err
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(struct {
		Config  map[string]any    `json:"config"`
		Origins map[string]Origin `json:"origins"`
	}{whole, s.origins})
	return text.Bytes(), err
}

// shower makes a tree of what is in force.
type shower struct {
	reading *Reading
	origins map[string]Origin // filled if it is not nil
}

// message shows the fields that are there: those of the file, and those with a default.
func (s *shower) message(path string, m protoreflect.Message) *yaml.Node {
	node := &yaml.Node{Kind: yaml.MappingNode}
	fields := m.Descriptor().Fields()
	show := func(name protoreflect.Name) {
		field := fields.ByName(name)
		value, below := m.Get(field), join(path, string(name))
		switch {
		case field.IsList() && value.List().Len() == 0:
			return
		case field.HasPresence() && !m.Has(field):
			return
		case field.Kind() == protoreflect.StringKind && !field.IsList() && value.String() == "":
			return
		case name == "tokens" && s.origin(below).From == "default" && saysForWhom(m):
			return // to write it there is a mistake
		}
		node.Content = append(node.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: string(name)}, s.field(below, field, value))
	}
	// What it is called comes first.
	if fields.ByName("name") != nil {
		show("name")
	}
	for i := range fields.Len() {
		if name := fields.Get(i).Name(); name != "name" {
			show(name)
		}
	}
	return node
}

// saysForWhom reports whether a message is a verifier for the tokens that another field of it names.
func saysForWhom(m protoreflect.Message) bool {
	v, ok := m.Interface().(*configv1.Verifier)
	return ok && (v.GetJwt() != nil || v.GetBehind() != "")
}

func (s *shower) field(path string, field protoreflect.FieldDescriptor, value protoreflect.Value) *yaml.Node {
	if !field.IsList() {
		return s.value(path, field, value)
	}
	node := &yaml.Node{Kind: yaml.SequenceNode}
	list := value.List()
	origin := s.origin(path)
	for i := range list.Len() {
		below := item(path, i)
		entry := s.value(below, field, list.Get(i))
		if field.Message() == nil { // one line says it for all
			entry.LineComment = ""
			here, _ := s.text(below, field, list.Get(i).String())
			if here.From == "environment" {
				origin.From = here.From
			}
			origin.Hidden = origin.Hidden || here.Hidden
		}
		node.Content = append(node.Content, entry)
	}
	if field.Message() == nil {
		node.Style = yaml.FlowStyle
		node.LineComment = origin.String()
		s.note(path, origin)
	}
	return node
}

func (s *shower) value(path string, field protoreflect.FieldDescriptor, value protoreflect.Value) *yaml.Node {
	node := &yaml.Node{Kind: yaml.ScalarNode}
	origin := s.origin(path)
	switch field.Kind() {
	case protoreflect.MessageKind:
		d, ok := value.Message().Interface().(*durationpb.Duration)
		if !ok {
			return s.message(path, value.Message())
		}
		node.Tag, node.Value = "!!str", shortDuration(d.AsDuration())
	case protoreflect.BoolKind:
		node.Tag, node.Value = "!!bool", strconv.FormatBool(value.Bool())
	case protoreflect.Uint32Kind:
		node.Tag, node.Value = "!!int", strconv.FormatUint(value.Uint(), 10)
	default:
		node.Tag = "!!str"
		origin, node.Value = s.text(path, field, value.String())
	}
	node.LineComment = origin.String()
	if !field.IsList() {
		s.note(path, origin)
	}
	return node
}

func (s *shower) note(path string, o Origin) {
	if s.origins != nil {
		s.origins[path] = o
	}
}

func (s *shower) origin(path string) Origin {
	at, there := s.reading.places[path]
	switch {
	case !there:
		return Origin{From: "default"}
	case at.variables:
		return Origin{From: "environment", Line: at.value.Line}
	case at.key != nil:
		return Origin{From: "file", Line: at.key.Line}
	default:
		return Origin{From: "file", Line: at.value.Line}
	}
}

// text shows a text as far as it can be no secret.
func (s *shower) text(path string, field protoreflect.FieldDescriptor, value string) (Origin, string) {
	origin := s.origin(path)
	name := string(field.Name())
	isFile := name == "file" || strings.HasSuffix(name, "_file")
	switch {
	case isFile:
		if whole, err := filepath.Abs(value); err == nil {
			value = whole
		}
	case origin.From == "environment" && name != "address" && name != "mode" && !hasWords(field):
		origin.Hidden = true
		// What is written has no variables put in, so that a URL's secrets are as in the file.
		value = withoutSecrets(s.reading.places[path].written, &origin)
		return origin, value
	}
	value = withoutSecrets(value, &origin)
	return origin, strings.ReplaceAll(value, "${", "$${")
}

// hasWords reports whether the rules of a field let nothing pass but a few words.
func hasWords(field protoreflect.FieldDescriptor) bool {
	rules, ok := proto.GetExtension(field.Options(), validate.E_Field).(*validate.FieldRules)
	if !ok {
		return false
	}
	for _, rule := range rules.GetCel() {
		if strings.HasPrefix(rule.GetExpression(), "this in [") {
			return true
		}
	}
	return false
}

const hidden = "***"

var (
	wholeURL = regexp.MustCompile(`(?s)^[A-Za-z][A-Za-z0-9+.-]*://.*$`)
	urls     = regexp.MustCompile(`[A-Za-z][A-Za-z0-9+.-]*://[^\s"'<>]*`)
	user     = regexp.MustCompile(`(?s)^([^:]*://)[^/?#]*@`)
)

// withoutSecrets takes out of the URLs in a text what may be one: the user and the password, the values in the query,
// and the fragment.
func withoutSecrets(text string, origin *Origin) string {
	find := urls
	if wholeURL.MatchString(text) { // a space does not end it: what stands behind may be a password
		find = wholeURL
	}
	shown := find.ReplaceAllStringFunc(text, func(url string) string {
		url = user.ReplaceAllString(url, "${1}"+hidden+"@")
		url, fragment, marked := strings.Cut(url, "#")
		url, query, asks := strings.Cut(url, "?")
		if asks {
			values := strings.Split(query, "&")
			for i, value := range values {
				// A word without = may be a value as well as a name.
				if name, _, found := strings.Cut(value, "="); found {
					values[i] = name + "=" + hidden
				} else if value != "" {
					values[i] = hidden
				}
			}
			url += "?" + strings.Join(values, "&")
		}
		if marked && fragment != "" {
			url += "#" + hidden
		}
		return url
	})
	origin.Hidden = origin.Hidden || shown != text
	return shown
}

// shortDuration writes a duration without the parts that are 0.
func shortDuration(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}
