package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// keepMemoryPrivate has the kernel write no core of this process, and lets no other
// process of its user look into its memory: tokens are in it. That is so whatever
// RLIMIT_CORE and the machine's core_pattern say. Who sets GOTRACEBACK=crash wants a
// core, and gets one.
func keepMemoryPrivate() error {
	if os.Getenv("GOTRACEBACK") == "crash" {
		return nil
	}
	return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}
