package crmnow

import (
	"maps"
	"slices"
)

// AllRefusals are those that have a reply.
func AllRefusals() []Refusal { return slices.Sorted(maps.Keys(refusals)) }
