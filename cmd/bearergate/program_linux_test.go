package main

import "syscall"

// endWithTests kills a program when the tests end before it, because they took too
// long for example: then nothing else does.
func endWithTests() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
