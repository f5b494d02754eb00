package page

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWrite(t *testing.T) {
	const page = "# Title\n\nwords\n\n<!-- a:begin -->\nold\n<!-- a:end -->\n\nmore words\n\n<!-- b:begin -->\n<!-- b:end -->\nthe end\n"
	tests := []struct {
		name  string
		page  string
		parts map[string]string
		want  string
		err   string
	}{
		{
			"what was measured is exchanged, what people wrote stays",
			page,
			map[string]string{"a": "new\n"},
			strings.Replace(page, "\nold\n", "\n\nnew\n\n", 1), "",
		},
		{
			"written twice it is the same",
			strings.Replace(page, "\nold\n", "\n\nnew\n\n", 1),
			map[string]string{"a": "new\n"},
			strings.Replace(page, "\nold\n", "\n\nnew\n\n", 1), "",
		},
		{"a place that is missing is an error", page, map[string]string{"c": "new"}, page, `place for "c"`},
		{"and nothing is written then", page, map[string]string{"a": "new", "c": "new"}, page, `place for "c"`},
		{"a place that is not closed is an error", "<!-- a:begin -->\n", map[string]string{"a": "new"}, "<!-- a:begin -->\n", `place for "a"`},
		{"two places are an error", page + page, map[string]string{"a": "new"}, page + page, `place for "a"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "page.md")
			if err := os.WriteFile(file, []byte(tt.page), 0o600); err != nil {
				t.Fatal(err)
			}
			err := Write(file, tt.parts)
			if (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got error %v, want %q", err, tt.err)
			}
			got, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func TestTable(t *testing.T) {
	got := Table([]string{"check", "CPU"}, [][]string{{"minimal", "1 µs"}, {"large", "2 µs"}})
	want := "| check | CPU |\n|---|---:|\n| minimal | 1 µs |\n| large | 2 µs |\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
