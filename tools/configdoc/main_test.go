package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

// fieldOf makes a field with a comment, as the plugin gets it.
func fieldOf(t *testing.T, kind descriptorpb.FieldDescriptorProto_Type, comment string) *protogen.Field {
	t.Helper()
	plugin, err := protogen.Options{}.New(&pluginpb.CodeGeneratorRequest{
		FileToGenerate: []string{"a.proto"},
		ProtoFile: []*descriptorpb.FileDescriptorProto{{
			Name:    new("a.proto"),
			Syntax:  new("proto3"),
			Options: &descriptorpb.FileOptions{GoPackage: new("example.com/a")},
			MessageType: []*descriptorpb.DescriptorProto{{
				Name: new("Config"),
				Field: []*descriptorpb.FieldDescriptorProto{{
					Name: new("size"), Number: new(int32(1)),
					Type: kind.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
				}},
			}},
			// Message 0, field 0.
			SourceCodeInfo: &descriptorpb.SourceCodeInfo{Location: []*descriptorpb.SourceCodeInfo_Location{
				{Path: []int32{4, 0, 2, 0}, Span: []int32{0, 0, 0}, LeadingComments: new(comment)},
			}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return plugin.Files[0].Messages[0].Fields[0]
}

func TestACommentIsTakenApart(t *testing.T) {
	const number, text, boolean = descriptorpb.FieldDescriptorProto_TYPE_UINT32,
		descriptorpb.FieldDescriptorProto_TYPE_STRING, descriptorpb.FieldDescriptorProto_TYPE_BOOL
	for name, test := range map[string]struct {
		kind    descriptorpb.FieldDescriptorProto_Type
		comment string
		want    field
	}{
		"default and range": {
			number, " How large it is.\n Default: 5. Range: 1 to 9.\n",
			field{Name: "size", Kind: "number", Default: "`5`", Range: "1 to 9", Comment: "How large it is."},
		},
		"a default with a point in it": {
			text, " How long.\n Default: 1.5s. Range: 0.5s to 2.5s.\n",
			field{Name: "size", Kind: "text", Default: "`1.5s`", Range: "0.5s to 2.5s", Comment: "How long."},
		},
		"needed, in the same line": {
			text, " Where. Port 0 is any.\n One is chosen. Needed.\n",
			field{Name: "size", Kind: "text", Default: "needed", Comment: "Where. Port 0 is any. One is chosen."},
		},
		"something else in its place": {
			text, " A file.\n Without it, what the system has.\n",
			field{Name: "size", Kind: "text", Default: "what the system has", Comment: "A file."},
		},
		"words about a default are no default": {
			boolean, " The default also has room.\n Default: false.\n",
			field{Name: "size", Kind: "`true` or `false`", Default: "`false`", Comment: "The default also has room."},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := fieldOf(t, test.kind, test.comment)
			got, err := valueOf(f, lines(f.Comments.Leading))
			if err != nil || got != test.want {
				t.Errorf("got %+v, %v\nwant %+v", got, err, test.want)
			}
		})
	}
}

func TestACommentThatLeavesTheDefaultOpenIsRefused(t *testing.T) {
	for name, comment := range map[string]string{
		"nothing said": " How large it is.\n",
		"both said":    " How large it is. Needed.\n Default: 5.\n",
	} {
		t.Run(name, func(t *testing.T) {
			f := fieldOf(t, descriptorpb.FieldDescriptorProto_TYPE_UINT32, comment)
			if got, err := valueOf(f, lines(f.Comments.Leading)); err == nil {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestARefusalIsTheLineAndTheMessage(t *testing.T) {
	folder := t.TempDir()
	for name, text := range map[string]string{
		"a-bad-size.yaml": "cache:\n  size: many\n",
		"a-bad-size.txt":  "a-bad-size.yaml:2:9: cache.size: many is no number; write 1: or more\nand another\n",
		"no-place.yaml":   "x\n",
		"no-place.txt":    "no-place.yaml: cannot be read\n",
		"too-far.yaml":    "x\n",
		"too-far.txt":     "too-far.yaml:9:1: is wrong\n",
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := refusal{"a bad size", "size: many", "cache.size: many is no number; write 1: or more"}
	if got, err := readRefusal(folder, "a-bad-size"); err != nil || got != want {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	for _, name := range []string{"no-place", "too-far", "not-there"} {
		if got, err := readRefusal(folder, name); err == nil {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func TestTextKeepsItsCharactersInATable(t *testing.T) {
	if got, want := plain("a | b\n without \" and \\. <x> * `y`"), "a \\| b without \" and \\\\. \\<x> \\* \\`y\\`"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, err := code(`a|b \`); err != nil || got != "`a\\|b \\`" {
		t.Errorf("got %s, %v", got, err)
	}
	if got, err := code("a`b"); err == nil {
		t.Errorf("got %s", got)
	}
}

func TestTheFirstSentenceGoesAndTheRestStays(t *testing.T) {
	for comment, want := range map[string]string{
		"Cache is what is kept.":                            "",
		"Cache is what is kept, e.g\n300s. It ends.\nSoon.": "It ends.\nSoon.",
		"Config is all. The smallest:\n\n    a: 1.\n\nEnd.": "The smallest:\n\n    a: 1.\n\nEnd.",
	} {
		if got := withoutFirstSentence(comment); got != want {
			t.Errorf("%q: got %q", strings.TrimSpace(comment), got)
		}
	}
}
