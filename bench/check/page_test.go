package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bearergate/bearergate/bench/measure"
	"github.com/bearergate/bearergate/bench/page"
)

// inRoot makes the root of the project the working directory.
func inRoot(t *testing.T) { t.Chdir(filepath.Join("..", "..")) }

func TestPageSaysWhatIsOnRecord(t *testing.T) {
	inRoot(t)
	r, err := readRecord()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(pageFile)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(copied, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := page.Write(copied, sections(r)); err != nil {
		t.Fatal(err)
	}
	fresh, err := os.ReadFile(copied)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(fresh), string(text)); diff != "" {
		t.Errorf("%s does not say what is in %s; run go run ./bench/check -page\n%s", pageFile, recordFile, diff)
	}
	for _, p := range parts() {
		for _, picture := range p.pictures(r) {
			if _, err := os.Stat(filepath.Join(plotFolder, picture.file())); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestRecordKeepsWhatWasNotMeasuredThisTime(t *testing.T) {
	old := &record{
		Costs: &costs{taken: taken{Commit: "old"}, Comparisons: []comparison{{Name: "typical", Gateway: []measure.Turn{{Requests: 1}}}}},
		Open:  &open{taken: taken{Commit: "old"}, Limit: 1},
	}
	now := &record{Costs: &costs{taken: taken{Commit: "new"}}}
	now.fill(old)
	if now.Costs.Commit != "new" || now.Open.Commit != "old" {
		t.Errorf("costs of %s, open of %s", now.Costs.Commit, now.Open.Commit)
	}
	text, err := json.Marshal(old)
	if err != nil {
		t.Fatal(err)
	}
	var read record
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(old, &read, cmp.AllowUnexported(costs{}, open{}, openRate{})); diff != "" {
		t.Errorf("what is read is not what was written:\n%s", diff)
	}
}

func TestChoose(t *testing.T) {
	tests := []struct{ only, want, err string }{
		{"", strings.Join(partNames(), ","), ""},
		{"costs", "costs", ""},
		{"edges,costs", "edges,costs", ""},
		{"cost", "", "there is no such part"},
	}
	for _, tt := range tests {
		t.Run(tt.only, func(t *testing.T) {
			chosen, err := choose(tt.only)
			if (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got error %v, want %q", err, tt.err)
			}
			var names []string
			for _, p := range chosen {
				names = append(names, p.name)
			}
			if got := strings.Join(names, ","); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int]string{7: "7", 100: "100", 1000: "1 000", 1_000_000: "1 000 000"} {
		if got := count(n); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
