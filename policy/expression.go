package policy

import (
	"errors"
	"fmt"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/interpreter"

	"github.com/bearergate/bearergate/verifier"
)

const (
	// maxExpression is the longest expression, in characters.
	maxExpression = 4096
	// maxCost bounds what an expression may do on one request, in CEL's units: a
	// look-up or a comparison is one of them. It is about a millisecond.
	maxCost = 20_000
)

// expression is a CEL program.
type expression struct {
	program cel.Program
	needs   Needs
	claims  bool
	now     bool
}

// The names of the variables.
const (
	methodVariable = "request.method"
	hostVariable   = "request.host"
	pathVariable   = "request.path"
	claimsVariable = "claims"
	nowVariable    = "now"
)

func compileExpression(text string) (*expression, error) {
	env, err := cel.NewEnv(
		cel.Variable(methodVariable, cel.StringType),
		cel.Variable(hostVariable, cel.StringType),
		cel.Variable(pathVariable, cel.StringType),
		cel.Variable(claimsVariable, cel.MapType(cel.StringType, cel.DynType)),
		cel.Variable(nowVariable, cel.TimestampType),
		cel.CrossTypeNumericComparisons(true), // a claim's number is a double, 5 is an int
		cel.DefaultUTCTimeZone(true),
		cel.ParserExpressionSizeLimit(maxExpression),
	)
	if err != nil {
		return nil, fmt.Errorf("cannot be compiled: %w", err)
	}
	ast, issues := env.Compile(text)
	if issues != nil && issues.Err() != nil {
		first := issues.Errors()[0]
		return nil, fmt.Errorf("is no expression: at line %d, column %d: %s", first.Location.Line(), first.Location.Column()+1, first.Message)
	}
	if !ast.OutputType().IsExactType(cel.BoolType) {
		return nil, fmt.Errorf("is of type %s; write one that is true or false (a claim alone may be of any type: compare it)", ast.OutputType())
	}
	if estimate, err := env.EstimateCost(ast, sizes{}); err != nil || estimate.Min > maxCost {
		return nil, errors.New("costs too much for each request; write a simpler one")
	}
	e := &expression{}
	e.program, err = env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxCost))
	if err != nil {
		return nil, fmt.Errorf("cannot be compiled: %w", err)
	}
	for _, reference := range ast.NativeRep().ReferenceMap() {
		switch reference.Name {
		case methodVariable:
			e.needs.Method = true
		case hostVariable:
			e.needs.Host = true
		case pathVariable:
			e.needs.Path = true
		case claimsVariable:
			e.claims = true
		case nowVariable:
			e.now = true
		}
	}
	return e, nil
}

// sizes leaves it to CEL how large things are.
type sizes struct{}

// EstimateSize implements [cost.Estimator].
func (sizes) EstimateSize(cost.AstNode) *cost.SizeEstimate { return nil }

// EstimateCallCost implements [cost.Estimator].
func (sizes) EstimateCallCost(_, _ string, _ *cost.AstNode, _ []cost.AstNode) *cost.CallEstimate { //nolint:gocritic // cel-go's signature
	return nil
}

// judge evaluates the expression. Whatever is not true is not met.
func (e *expression) judge(f *Facts, claims *verifier.Claims, now time.Time) error {
	value, _, err := e.program.Eval(&variables{facts: *f, claims: claims, now: now}) // a copy, so that f needs not escape
	if err != nil {
		return errEvaluation // CEL's own words may hold a claim's value
	}
	if met, _ := value.Value().(bool); !met {
		return errExpression
	}
	return nil
}

// variables are what an expression sees of a request. A value is made when it is
// asked for.
type variables struct {
	facts  Facts
	claims *verifier.Claims
	now    time.Time
}

// ResolveName implements [interpreter.Activation]. A fact that cannot be read is
// not there, and the expression fails.
func (v *variables) ResolveName(name string) (any, bool) {
	switch name {
	case methodVariable:
		return v.facts.Method, checkMethod(v.facts.Method) == nil
	case hostVariable:
		host, err := checkHost(v.facts.Host, make([]byte, 0, maxHost))
		return host, err == nil
	case pathVariable:
		path, err := CheckPath(v.facts.Path)
		return path, err == nil
	case claimsVariable:
		root, _ := v.claims.Root().Value().(map[string]any)
		return root, true
	case nowVariable:
		return v.now, true
	default:
		return nil, false
	}
}

// Parent implements [interpreter.Activation].
func (v *variables) Parent() interpreter.Activation { return nil }
