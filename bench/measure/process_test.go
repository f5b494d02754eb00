package measure

import (
	"testing"
	"time"
)

func TestProcessorTimeIsThatOfChildrenToo(t *testing.T) {
	const work = `i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done`
	tests := []struct{ name, script string }{
		{"the process itself works", work + `; echo worked; exec sleep 60`},
		{"a child works, as nginx's workers do", `trap 'kill $child' TERM; (` + work + `; echo worked; exec sleep 60) & child=$!; wait`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, out, err := Start(t.Context(), "sh", "-c", tt.script)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if line, err := out.ReadString('\n'); err != nil || line != "worked\n" {
				t.Fatalf("it wrote %q: %v", line, err)
			}
			used, err := p.CPU()
			if err != nil {
				t.Fatal(err)
			}
			if used < 10*time.Millisecond {
				t.Errorf("it used %v, which cannot be", used)
			}
		})
	}
}
