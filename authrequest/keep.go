package authrequest

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/bearergate/bearergate/gate"
)

// keeping tells an edge how long it may keep an allow, and for which requests. It
// says nothing unless the gate lets edges keep any.
type keeping struct {
	dependsOn []string
	// By seconds; shared by all replies, so nobody changes them.
	cacheControl, accelExpires [][]string
}

func newKeeping(g *gate.Gate) keeping {
	most := g.EdgeCache()
	if most == 0 {
		return keeping{}
	}
	k := keeping{dependsOn: []string{strings.Join(g.DependsOn(), ", ")}}
	for seconds := range int(most/time.Second) + 1 {
		// RFC 9111 §5.2.2.1: the seconds count from when the reply was made.
		control := "max-age=" + strconv.Itoa(seconds)
		if seconds == 0 {
			control = "no-store"
		}
		k.cacheControl = append(k.cacheControl, []string{control})
		// nginx looks at whole seconds of its clock, and goes on to the end of the last
		// one: up to a second more than it is told.
		k.accelExpires = append(k.accelExpires, []string{strconv.Itoa(max(0, seconds-1))})
	}
	return k
}

// tell adds to the header of an allow how long it may be kept.
func (k *keeping) tell(h http.Header, keep time.Duration) {
	if k.dependsOn == nil {
		return
	}
	seconds := keep / time.Second
	h["Cache-Control"] = k.cacheControl[seconds]
	h["X-Accel-Expires"] = k.accelExpires[seconds]
	h[gate.DependsOnHeader] = k.dependsOn
}
