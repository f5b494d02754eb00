package main

import (
	"encoding/json"
	"slices"
	"testing"

	"google.golang.org/protobuf/types/descriptorpb"
)

func TestARuleSaysWhichFieldsAreThere(t *testing.T) {
	for expression, want := range map[string]struct {
		keyword string
		fields  []string
	}{
		"has(this.a) || has(this.b) || this.more.exists(l, has(l.a))": {"anyOf", []string{"a", "b", "more"}},
		"[has(this.a), has(this.b)].filter(is, is).size() == 1":       {"oneOf", []string{"a", "b"}},
		"(this.a != '' ? 1 : 0) + (this.b_c != '' ? 1 : 0) == 1":      {"oneOf", []string{"a", "b_c"}},
		"this.a.size() <= 5":                  {},
		"this.a <= this.b":                    {},
		"this.a == '' || this.b != '' || !ok": {},
	} {
		keyword, fields, err := whichOf(expression)
		if keyword != want.keyword || !slices.Equal(fields, want.fields) || (err == nil) != (want.keyword != "") {
			t.Errorf("%s: got %s %q, %v", expression, keyword, fields, err)
		}
	}
}

func TestTheSchemaOfAFieldHasItsRangeAndDefault(t *testing.T) {
	for name, test := range map[string]struct {
		kind          descriptorpb.FieldDescriptorProto_Type
		comment, want string
	}{
		"a number": {
			descriptorpb.FieldDescriptorProto_TYPE_UINT32, " How many.\n Default: 5. Range: 1 to 9.\n",
			`{"anyOf":[{"maximum":9,"minimum":1,"type":"integer"},{"pattern":"\\$\\{","type":"string"}],"default":5,"description":"How many. Default: 5. Range: 1 to 9."}`,
		},
		"a truth": {
			descriptorpb.FieldDescriptorProto_TYPE_BOOL, " Whether.\n Default: false.\n",
			`{"anyOf":[{"type":"boolean"},{"pattern":"\\$\\{","type":"string"}],"default":false,"description":"Whether. Default: false."}`,
		},
		"a text that is needed": {
			descriptorpb.FieldDescriptorProto_TYPE_STRING, " Where. Needed.\n",
			`{"description":"Where. Needed.","not":{"const":""},"type":["string","number","boolean"]}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := propertyOf(fieldOf(t, test.kind, test.comment))
			if err != nil {
				t.Fatal(err)
			}
			if text, err := json.Marshal(got); err != nil || string(text) != test.want {
				t.Errorf("got %s, %v\nwant %s", text, err, test.want)
			}
		})
	}
}
