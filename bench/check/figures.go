package main

import (
	"fmt"
	"time"
)

// How figures are written.

func times(ratio float64) string { return fmt.Sprintf("x%.2f", ratio) }

func microseconds(ns float64) string { return fmt.Sprintf("%.1f µs", ns/1e3) }

func milliseconds(ns float64) string {
	return fmt.Sprintf("%.2f ms", ns/float64(time.Millisecond))
}

func perSecond(rate float64) string {
	if rate >= 10_000 {
		return fmt.Sprintf("%.1fk", rate/1000)
	}
	return fmt.Sprintf("%.0f", rate)
}

// count writes a number with a space between thousands.
func count(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + " " + text[i:]
	}
	return text
}
