package config

// PanicReport is what a gate tells of a panic.
var PanicReport = panicReport

// BreakListener closes a listener under the server that answers there.
func (g *Gateway) BreakListener(name string) error {
	for _, d := range g.doors {
		if d.name == name {
			return d.listener.Close()
		}
	}
	return nil
}
