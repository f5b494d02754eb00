package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/bearergate/bearergate/gate"
	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
)

// picture is how a gateway does, drawn into so many columns and lines.
type picture struct {
	*sight

	width, height int // height 0: as many lines as there are
	colour        bool
	window        int // which of those that it is said for who asks most
	stopped       bool
	err           error // why nothing newer is known
}

// text draws the picture.
func (p *picture) text() string {
	var lines []string
	for _, part := range [][]string{p.head(), p.rates(), p.times(), p.verifiers(), p.talkers()} {
		if len(part) > 0 && len(lines) > 0 {
			lines = append(lines, "")
		}
		lines = append(lines, part...)
	}
	if p.height > 1 {
		if room := p.height - 1; len(lines) > room {
			lines = append(lines[:room-1], p.paint(faint, "… more: enlarge the terminal"))
		}
		keys := "q end · p stop · w who asks most: " + p.windowName()
		if p.stopped {
			keys = "stopped; p goes on · q end"
		}
		lines = append(lines, p.paint(faint, keys))
	} else if p.height == 1 {
		lines = lines[:1]
	}
	for i, line := range lines {
		lines[i] = cut(line, p.width)
	}
	return strings.Join(lines, "\n") + "\n"
}

// cut fits a line into so many columns. Of a number there is all or nothing: 1… could
// be 1 or 1,000.
func cut(line string, width int) string {
	if ansi.StringWidth(line) <= width {
		return line
	}
	kept := ansi.Truncate(ansi.Strip(line), width-1, "")
	if word := kept[strings.LastIndexByte(kept, ' ')+1:]; strings.ContainsAny(word, "0123456789") {
		width = ansi.StringWidth(kept) - ansi.StringWidth(word) + 1
	}
	return ansi.Truncate(line, width, "…")
}

func (p *picture) paint(code, text string) string {
	if !p.colour {
		return text
	}
	return code + text + plain
}

const bold = "\x1b[1m"

func (p *picture) head() []string {
	s := p.status
	state := map[bool]string{true: green, false: red}[s.GetState() == "ready"]
	lines := []string{
		fmt.Sprintf("bearergate %s  %s  running for %s  %s", printable(s.GetVersion()), p.paint(state, printable(s.GetState())),
			s.GetUptime().AsDuration().Round(time.Second), p.paint(faint, clock(p.activity.GetUntil().AsTime()))),
	}
	if last := s.GetConfiguration().GetLastReload(); last.GetResult() == "refused" {
		lines = append(lines, p.paint(red, "the configuration cannot be used since "+clock(last.GetAt().AsTime())+"; what was in force stays so"))
	}
	if p.err != nil {
		lines = append(lines, p.paint(red, printable("no answer from the gateway: "+p.err.Error())))
	}
	return lines
}

// rate is a line of the table of rates.
type rate struct {
	name, outcome string
	counts        []uint32
}

// rates are of all decisions, of outcomes and of reasons.
func (p *picture) rates() []string {
	points := int(p.activity.GetPoints())
	all := rate{name: "all", counts: make([]uint32, points)}
	byOutcome := map[string]*rate{}
	var reasons []rate
	for _, r := range p.activity.GetReasons() {
		one := rate{name: "  " + r.GetReason(), outcome: r.GetOutcome(), counts: r.GetCounts()}
		o := byOutcome[one.outcome]
		if o == nil {
			o = &rate{name: one.outcome, outcome: one.outcome, counts: make([]uint32, points)}
			byOutcome[one.outcome] = o
		}
		add(all.counts, one.counts)
		add(o.counts, one.counts)
		reasons = append(reasons, one)
	}
	slices.SortStableFunc(reasons, func(a, b rate) int { return cmp.Compare(sum(b.counts), sum(a.counts)) })
	lines := []string{p.paint(bold, fmt.Sprintf("%s %9s %9s %9s", column("decisions/s", p.names(24)), "5 s", "1 min", "5 min")), p.rateLine(&all)}
	for _, outcome := range outcomes() {
		if o := byOutcome[outcome]; o != nil {
			lines = append(lines, p.rateLine(o))
			for i := range reasons {
				if reasons[i].outcome == outcome {
					lines = append(lines, p.rateLine(&reasons[i]))
				}
			}
		}
	}
	if len(p.activity.GetShadow()) > 0 {
		lines = append(lines, p.rateLine(&rate{name: "let through (shadow)", outcome: "shadow", counts: p.activity.GetShadow()}))
	}
	for _, from := range p.activity.GetSources() {
		lines = append(lines, p.rateLine(&rate{name: "from " + from.GetSource(), counts: from.GetCounts()}))
	}
	return lines
}

func (p *picture) rateLine(r *rate) string {
	code := ""
	switch r.outcome {
	case gate.Allow.String():
		code = green
	case gate.Unavailable.String():
		code = red
	case "":
	default:
		code = yellow
	}
	line := fmt.Sprintf("%s %9s %9s %9s", column(r.name, p.names(24)), average(r.counts, 5), average(r.counts, 60), average(r.counts, 300))
	if room := p.width - ansi.StringWidth(line) - 2; room >= 8 {
		line += "  " + bars(r.counts, min(room, 60))
	}
	if code == "" {
		return line
	}
	return p.paint(code, line)
}

func add(to, counts []uint32) {
	for i := range min(len(to), len(counts)) {
		to[i] += counts[i]
	}
}

func sum(counts []uint32) (all uint64) {
	for _, n := range counts {
		all += uint64(n)
	}
	return all
}

// average is what a second had in the last ones.
func average(counts []uint32, seconds int) string {
	last := counts[max(0, len(counts)-seconds):]
	if len(last) == 0 {
		return "-"
	}
	n := float64(sum(last)) / float64(len(last))
	switch {
	case n == 0:
		return "0"
	case n < 10:
		return strconv.FormatFloat(n, 'f', 2, 64)
	default:
		return thousands(uint64(n + 0.5))
	}
}

// names is how wide a column of names is: in a narrow terminal the first figures come
// before the whole name.
func (p *picture) names(most int) int { return min(most, max(12, p.width-30)) }

// column fits a text into a column of a table.
func column(text string, width int) string {
	text = ansi.Truncate(printable(text), width, "…")
	return text + strings.Repeat(" ", width-ansi.StringWidth(text))
}

func thousands(n uint64) string {
	text := strconv.FormatUint(n, 10)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}

// bars draws counts into so many columns, the newest on the right.
func bars(counts []uint32, columns int) string {
	const heights = "▁▂▃▄▅▆▇█"
	steps := []rune(heights)
	if len(counts) == 0 {
		return ""
	}
	width := max(1, (len(counts)+columns-1)/columns)
	var sums []uint64
	for end := len(counts); end > 0; end -= width {
		sums = append(sums, sum(counts[max(0, end-width):end]))
	}
	slices.Reverse(sums)
	most := max(slices.Max(sums), 1)
	var b strings.Builder
	for _, n := range sums {
		if n == 0 {
			b.WriteRune(' ')
			continue
		}
		b.WriteRune(steps[min(int(float64(n)/float64(most)*float64(len(steps))), len(steps)-1)])
	}
	return b.String()
}

// times are how long decisions and calls took, the slowest first.
func (p *picture) times() []string {
	type took struct {
		name  string
		times *adminv1.Times
	}
	var all []took
	for _, d := range p.activity.GetDecisionTimes() {
		from := "from " + d.GetSource()
		if d.GetSource() == "none" {
			from = "no answer"
		}
		all = append(all, took{from + " (decision)", d.GetTimes()})
	}
	for _, c := range p.activity.GetCallTimes() {
		all = append(all, took{c.GetVerifier() + " " + c.GetOutcome() + " (call)", c.GetTimes()})
	}
	slices.SortStableFunc(all, func(a, b took) int {
		return cmp.Compare(b.times.GetP99().AsDuration(), a.times.GetP99().AsDuration())
	})
	if len(all) == 0 {
		return nil
	}
	lines := []string{p.paint(bold, fmt.Sprintf("%s %9s %9s %9s", column("the last minute, slowest first", p.names(34)), "p50", "p99", "measured"))}
	for _, t := range all {
		lines = append(lines, fmt.Sprintf("%s %9s %9s %9s", column(t.name, p.names(34)), short(t.times.GetP50().AsDuration()), short(t.times.GetP99().AsDuration()), thousands(t.times.GetMeasured())))
	}
	return lines
}

// short writes a duration in three digits or so.
func short(d time.Duration) string {
	for _, unit := range []time.Duration{time.Second, time.Millisecond, time.Microsecond} {
		if d >= unit {
			return d.Round(max(unit/100, 1)).String()
		}
	}
	return d.String()
}

func (p *picture) verifiers() []string {
	all := p.status.GetVerifiers()
	if len(all) == 0 {
		return nil
	}
	longest := len("verifier")
	for _, v := range all {
		longest = max(longest, ansi.StringWidth(printable(v.GetName())))
	}
	names := min(longest, p.names(16))
	lines := []string{p.paint(bold, fmt.Sprintf("%s %-9s %6s %7s %6s  %-18s %s", column("verifier", names), "breaker", "calls", "waiting", "shed", "good", "refused"))}
	for _, v := range all {
		breaker := fmt.Sprintf("%-9s", printable(v.GetBreaker()))
		if v.GetBreaker() != "closed" {
			breaker = p.paint(red, breaker)
		}
		lines = append(lines, fmt.Sprintf("%s %s %6d %7d %6d  %-18s %s", column(v.GetName(), names), breaker, v.GetCalls(), v.GetCallsWaiting(), v.GetCallsShed(),
			thousands(v.GetGood().GetEntries())+" of "+thousands(v.GetGood().GetMost()), thousands(v.GetRefused().GetEntries())+" of "+thousands(v.GetRefused().GetMost())))
	}
	if n := p.status.GetDenied(); n > 0 {
		lines = append(lines, p.paint(yellow, fmt.Sprintf("%d tokens are denied", n)))
	}
	return lines
}

// top is the window that is shown.
func (p *picture) top() *adminv1.TopTalkers {
	all := p.activity.GetTop()
	if len(all) == 0 {
		return nil
	}
	return all[p.window%len(all)]
}

func (p *picture) windowName() string { return minutes(p.top().GetWindow().AsDuration()) }

func minutes(d time.Duration) string {
	return strconv.Itoa(int(d.Round(time.Minute)/time.Minute)) + " min"
}

// shownOfEach is how many are shown of each kind of those who ask most.
const shownOfEach = 5

func (p *picture) talkers() []string {
	top := p.top()
	var lines []string
	for _, part := range []struct {
		name string
		all  []*adminv1.Talker
	}{
		{"token", top.GetRefusedTokens()}, {"client", top.GetRefusedClients()}, {"policy", top.GetRefusedPolicies()},
	} {
		lines = append(lines, p.talkerLines("refused", part.name, part.all)...)
	}
	for _, part := range []struct {
		name string
		all  []*adminv1.Talker
	}{
		{"token", top.GetAllowedTokens()}, {"client", top.GetAllowedClients()}, {"policy", top.GetAllowedPolicies()},
	} {
		lines = append(lines, p.talkerLines("allowed", part.name, part.all)...)
	}
	if len(lines) == 0 {
		return nil
	}
	return append([]string{p.paint(bold, "who asks most, in "+p.windowName())}, lines...)
}

func (p *picture) talkerLines(outcome, kind string, all []*adminv1.Talker) (lines []string) {
	for _, t := range all[:min(len(all), shownOfEach)] {
		line := fmt.Sprintf("%-7s %-6s %s %10s", outcome, kind, column(t.GetName(), p.names(24)), thousands(t.GetRequests()))
		if outcome == "refused" {
			line += "  last " + printable(t.GetReason())
			line = p.paint(yellow, line)
		}
		lines = append(lines, line)
	}
	return lines
}
