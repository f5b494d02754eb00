package main

import (
	"strings"
	"testing"
	"time"

	"github.com/bearergate/bearergate/bench/measure"
)

// turn is a turn with a processor time in microseconds and a rate.
func turn(cpu, rate float64) measure.Turn {
	return measure.Turn{CPU: time.Duration(cpu * 1000), PerSecond: rate}
}

func rounds(turns ...measure.Turn) []measure.Turn { return turns }

func TestGuard(t *testing.T) {
	noop := rounds(turn(100, 1000), turn(100, 1000), turn(100, 1000), turn(100, 1000))
	recorded := []comparison{{Name: "typical", Reference: noop, Gateway: rounds(turn(50, 2000), turn(50, 2000), turn(50, 2000), turn(50, 2000))}}
	quiet := rounds(turn(100, 1000), turn(101, 990), turn(99, 1010), turn(100, 1000))
	noisy := rounds(turn(110, 900), turn(90, 1110), turn(112, 890), turn(100, 1000))
	tests := []struct {
		name    string
		gateway []measure.Turn
		again   []measure.Turn
		want    []string // parts of the error; none if all is well
	}{
		{"as on record", rounds(turn(50, 2000), turn(50, 2000), turn(50, 2000), turn(50, 2000)), quiet, nil},
		{"better than on record", rounds(turn(30, 3000), turn(30, 3000), turn(30, 3000), turn(30, 3000)), quiet, nil},
		{
			"a tenth worse on a quiet machine",
			rounds(turn(55, 1800), turn(55, 1800), turn(55, 1800), turn(55, 1800)), quiet,
			[]string{"CPU per check: x0.55 of the no-op's, and x0.50 on record", "checks/s: x1.80"},
		},
		{"a tenth worse where the reference itself differs by more", rounds(turn(55, 1800), turn(55, 1800), turn(55, 1800), turn(55, 1800)), noisy, nil},
		{
			"a half worse where the reference differs by a tenth",
			rounds(turn(75, 1300), turn(75, 1300), turn(75, 1300), turn(75, 1300)), noisy,
			[]string{"CPU per check: x0.75", "checks/s: x1.30"},
		},
		{"processor time alone is worse", rounds(turn(55, 2000), turn(55, 2000), turn(55, 2000), turn(55, 2000)), quiet, []string{"CPU per check: x0.55"}},
		{"one round alone is worse", rounds(turn(50, 2000), turn(90, 1100), turn(50, 2000), turn(50, 2000)), quiet, nil},
		{
			"the machine is twice as slow as on record, and the ratio the same",
			rounds(turn(50, 2000), turn(50, 2000), turn(50, 2000), turn(50, 2000)), quiet, nil,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			all, err := hold([]comparison{{Name: "typical", Reference: noop, Gateway: tt.gateway, Again: tt.again}}, recorded)
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			err = judge(&out, all)
			if (err != nil) != (len(tt.want) > 0) {
				t.Fatalf("got error %v, want %q", err, tt.want)
			}
			if got := strings.Count(out.String(), "WORSE"); got != len(tt.want) {
				t.Errorf("%d are called worse, want %d:\n%s", got, len(tt.want), out.String())
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("got error %v, want %q", err, part)
				}
			}
		})
	}
}

func TestGuardOfWhatIsNotOnRecord(t *testing.T) {
	_, err := hold([]comparison{{Name: "typical"}}, []comparison{{Name: "minimal"}})
	if err == nil || !strings.Contains(err.Error(), "typical is not in docs/performance.json") {
		t.Errorf("got error %v", err)
	}
}

func TestWhatIsOnRecordIsWhatIsGuarded(t *testing.T) {
	all, _, err := subjects()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range guarded() {
		found := false
		for i := range all {
			found = found || all[i].name == name
		}
		if !found {
			t.Errorf("%s is guarded and never measured", name)
		}
	}
}
