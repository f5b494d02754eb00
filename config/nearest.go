package config

import (
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// nearest gives the field of a message whose name looks most like name, if one does: another spelling (validTTL,
// valid-ttl) or up to two letters wrong.
func nearest(name string, fields protoreflect.FieldDescriptors) (string, bool) {
	name = spelling(name)
	best, bestDistance := "", 3
	for i := range fields.Len() {
		candidate := string(fields.Get(i).Name())
		known := spelling(candidate)
		// A short name with two letters wrong could be anything.
		if d := distance(name, known); d < bestDistance && (d == 0 || d*3 <= len(known)) {
			best, bestDistance = candidate, d
		}
	}
	return best, best != ""
}

// home gives the path of the messages that have a field of this name, the uppermost first found, with [] for a list.
func home(name string, message protoreflect.MessageDescriptor, path string) (string, bool) {
	fields := message.Fields()
	if path != "" && fields.ByName(protoreflect.Name(name)) != nil {
		return path, true
	}
	for i := range fields.Len() {
		field := fields.Get(i)
		if field.Message() == nil || field.Message().ParentFile() != message.ParentFile() {
			continue
		}
		below := join(path, string(field.Name()))
		if field.IsList() {
			below += "[]"
		}
		if found, ok := home(name, field.Message(), below); ok {
			return found, true
		}
	}
	return "", false
}

func spelling(name string) string {
	return strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(name))
}

// distance counts the letters to add, drop or change to make b of a (Levenshtein), or gives a large number when the
// lengths alone make it more than two.
func distance(a, b string) int {
	if len(a)-len(b) > 2 || len(b)-len(a) > 2 {
		return len(a) + len(b)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
