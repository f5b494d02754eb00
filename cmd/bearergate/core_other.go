//go:build !linux

package main

// keepMemoryPrivate is for Linux alone.
func keepMemoryPrivate() error { return nil }
