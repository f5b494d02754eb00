package measure

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// Cores are some of the machine's cores, side by side.
type Cores struct{ First, Count int }

// AllCores are all of the machine's.
func AllCores() Cores { return Cores{0, allCores()} }

// allCores is how many there were at the start: later this process is on some alone.
var allCores = sync.OnceValue(runtime.NumCPU)

// ServerCores are what a server gets where nothing else is said: half of them.
func ServerCores() Cores { return Cores{0, max(1, allCores()/2)} }

// Others are all cores but these; all there are, if these are all.
func (c Cores) Others() Cores {
	if first := c.First + c.Count; first < allCores() {
		return Cores{first, allCores() - first}
	}
	return AllCores()
}

// PinLoad keeps this process, which sends the load, on the cores that the servers do
// not have.
func PinLoad() error { return ServerCores().Others().Take() }

// Take keeps this process on the cores.
func (c Cores) Take() error {
	allCores()
	runtime.GOMAXPROCS(c.Count)
	return c.pin(os.Getpid())
}

// pin keeps a process, all its threads that are to come included, on the cores. On a
// machine with one core there is nothing to choose.
func (c Cores) pin(pid int) error {
	if allCores() < 2 {
		return nil
	}
	var set unix.CPUSet
	for core := c.First; core < c.First+c.Count; core++ {
		set.Set(core)
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(id, &set); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("pin process %d: %w", pid, err)
		}
	}
	return nil
}
