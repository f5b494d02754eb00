package deploy

import "syscall"

// endWithParent tells the child to stop when the thread that started it ends,
// which is when this process ends. SIGTERM and not SIGKILL: nginx's workers live
// on when their master is killed.
func endWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
}
