package verifier

import "context"

// Trace has questions traced that a Cache cannot answer from memory.
type Trace struct {
	// Wait is called when a question begins to wait. The function that it returns is
	// called when that is over.
	Wait func(ctx context.Context) (context.Context, func(Verdict, error))
	// Carry returns the context "to", in which a call is made, with the trace of the
	// question that caused it.
	Carry func(from, to context.Context) context.Context
}
