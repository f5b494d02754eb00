package quickstart

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// writeJSON writes the rows for scripts.
func writeJSON(w io.Writer, rows []row, good bool) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(struct {
		Good bool  `json:"good"`
		Rows []row `json:"rows"`
	}{good, rows})
}

// writeText writes the rows as a table for people.
func writeText(w io.Writer, rows []row, good, colour bool) error {
	paint := func(code, text string) string {
		if !colour {
			return text
		}
		return "\x1b[" + code + "m" + text + "\x1b[0m"
	}
	cells := [][]string{{"face", "request", "answer", "reason", "time each", "endpoint calls", ""}}
	for _, r := range rows {
		request, mark := r.Request, "ok"
		if r.Requests > 1 {
			request += " x" + strconv.Itoa(r.Requests)
		}
		if !r.Right {
			mark = "WRONG: " + r.Wrong
		}
		cells = append(cells, []string{
			r.Face, request, answer(r.Status), cmp.Or(r.Reason, "-"),
			fmt.Sprintf("%8.2f ms", r.Took), fmt.Sprintf("%14d", r.Calls), mark,
		})
	}
	widths := make([]int, len(cells[0]))
	for _, line := range cells {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for n, line := range cells {
		if n > 1 && line[0] != cells[n-1][0] {
			b.WriteByte('\n')
		}
		var text strings.Builder
		for i, cell := range line {
			padded := cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			switch {
			case n == 0:
				padded = paint("1", padded)
			case i == len(line)-1 && rows[n-1].Right:
				padded = paint("32", cell)
			case i == len(line)-1:
				padded = paint("31", cell)
			}
			text.WriteString(padded + "  ")
		}
		b.WriteString(strings.TrimRight(text.String(), " ") + "\n")
	}
	if good {
		b.WriteString("\n" + paint("32", "All as it must be.") + "\n")
	} else {
		b.WriteString("\n" + paint("31", "Something is not as it must be.") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func answer(status int) string {
	switch status {
	case 0:
		return "none"
	case 200:
		return "200 allow"
	default:
		return strconv.Itoa(status)
	}
}
