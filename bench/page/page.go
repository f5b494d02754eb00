// Package page writes what was measured into a page of the documentation, and leaves
// what people wrote around it as it is.
//
// A part that is written stands between two lines of its own:
//
//	<!-- costs:begin -->
//	<!-- costs:end -->
package page

import (
	"fmt"
	"os"
	"strings"
)

// Write writes parts into a file, each into its place. It writes all of them or none.
func Write(file string, parts map[string]string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	page := string(text)
	for name, part := range parts {
		if page, err = put(page, name, part); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return os.WriteFile(file, []byte(page), 0o644) //nolint:gosec // documentation is for all
}

func put(page, name, part string) (string, error) {
	begin, end := "<!-- "+name+":begin -->\n", "<!-- "+name+":end -->\n"
	before, rest, ok := strings.Cut(page, begin)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed || strings.Contains(after, begin) {
		return "", fmt.Errorf("there is not one place for %q; write the lines %q and %q", name, strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	return before + begin + "\n" + strings.Trim(part, "\n") + "\n\n" + end + after, nil
}

// Table makes a table in Markdown. The first column is text, the others are numbers.
func Table(head []string, rows [][]string) string {
	var b strings.Builder
	line := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	line(head)
	rule := make([]string, len(head))
	for i := range rule {
		rule[i] = "---:"
	}
	rule[0] = "---"
	fmt.Fprintf(&b, "|%s|\n", strings.Join(rule, "|"))
	for _, row := range rows {
		line(row)
	}
	return b.String()
}
