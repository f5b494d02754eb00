// Package traces tells a collector of OpenTelemetry how requests were decided: a
// span for the decision, one for the wait if there was one, and one for each call to
// a verifier. It is set up by the standard OTEL_* environment alone, and where that
// says nothing it does nothing and costs nothing.
//
// A trace that the edge has begun (W3C traceparent) is gone on with. A span holds
// nothing of a request but the token's fingerprint.
package traces

import (
	"context"
	"fmt"
	"strings"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/verifier"
)

// Tracer makes spans. It may be used concurrently. A nil Tracer makes none, and
// gives nil for whoever asks it for something to trace with.
type Tracer struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
}

// FromEnvironment returns what the environment asks for: nil if it asks for nothing.
// The version stands in each span, and failed is told when spans could not be sent.
// The error says which variable is wrong. Besides, the SDK itself reads the process's
// environment.
func FromEnvironment(ctx context.Context, lookup func(string) (string, bool), version string, failed func(error)) (*Tracer, error) {
	get := func(names ...string) string {
		for _, name := range names {
			if value, _ := lookup(name); value != "" {
				return value
			}
		}
		return ""
	}
	if strings.EqualFold(get("OTEL_SDK_DISABLED"), "true") {
		return nil, nil
	}
	switch exporter := get("OTEL_TRACES_EXPORTER"); exporter {
	case "otlp":
	case "none":
		return nil, nil
	case "":
		if get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT") == "" {
			return nil, nil
		}
	default:
		return nil, fmt.Errorf("OTEL_TRACES_EXPORTER: %q is not known; write otlp or none", exporter)
	}
	var client otlptrace.Client
	switch protocol := get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"); protocol {
	case "", "http/protobuf":
		client = otlptracehttp.NewClient()
	case "grpc":
		client = otlptracegrpc.NewClient()
	default:
		return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL: %q is not known; write http/protobuf or grpc", protocol)
	}
	exporter, err := otlptrace.New(ctx, client)
	if err != nil {
		return nil, fmt.Errorf("the traces' exporter: %w", err)
	}
	// What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say comes last, and counts.
	about, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", "bearergate"), attribute.String("service.version", version),
	), resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(failed)) // the SDK has but one for the process
	// How many of them are kept is OTEL_TRACES_SAMPLER's to say.
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(about))
	return &Tracer{provider: provider, tracer: provider.Tracer("github.com/bearergate/bearergate", trace.WithInstrumentationVersion(version))}, nil
}

// Close sends what was not sent yet, as long as ctx lasts.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// The attributes of spans.
const (
	listenerKey = attribute.Key("bearergate.listener")
	policyKey   = attribute.Key("bearergate.policy")
	reasonKey   = attribute.Key("bearergate.reason")
	sourceKey   = attribute.Key("bearergate.source")
	shadowKey   = attribute.Key("bearergate.shadow")
	tokenKey    = attribute.Key("bearergate.token")
	verifierKey = attribute.Key("bearergate.verifier")
	outcomeKey  = attribute.Key("bearergate.outcome")
)

// Decisions returns what traces the decisions of a listener, whose policies have
// these names.
func (t *Tracer) Decisions(listener string, policies []string) gate.Trace {
	if t == nil {
		return nil
	}
	return func(ctx context.Context, headers gate.Headers) (_ context.Context, id string, end func(*gate.Tally)) {
		if headers != nil {
			ctx = propagation.TraceContext{}.Extract(ctx, carrier{headers})
		}
		ctx, span := t.tracer.Start(ctx, "decide", trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(listenerKey.String(listener)))
		if span.SpanContext().IsSampled() {
			id = span.SpanContext().TraceID().String()
		}
		return ctx, id, func(tally *gate.Tally) {
			defer span.End()
			if !span.IsRecording() {
				return
			}
			span.SetAttributes(policyKey.String(policies[tally.Policy]), reasonKey.String(tally.Reason.String()))
			if tally.Reason.HasVerdict() {
				span.SetAttributes(sourceKey.String(tally.Source.String()))
			}
			if tally.Shadow {
				span.SetAttributes(shadowKey.Bool(true))
			}
			if tally.Fingerprint != "" {
				span.SetAttributes(tokenKey.String(tally.Fingerprint))
			}
			if tally.Reason.Outcome() == gate.Unavailable {
				span.SetStatus(codes.Error, tally.Reason.String())
			}
		}
	}
}

// carrier has the headers of a request read by a propagator.
type carrier struct{ gate.Headers }

// Get implements [propagation.TextMapCarrier].
func (c carrier) Get(name string) string { return c.Header(name) }

// Set implements [propagation.TextMapCarrier].
func (carrier) Set(string, string) {}

// Keys implements [propagation.TextMapCarrier].
func (carrier) Keys() []string { return nil }

// Cache returns what traces who waits for the answers of a verifier.
func (t *Tracer) Cache(name string) *verifier.Trace {
	if t == nil {
		return nil
	}
	return &verifier.Trace{
		Wait: func(ctx context.Context) (context.Context, func(verifier.Verdict, error)) {
			ctx, span := t.tracer.Start(ctx, "wait", trace.WithAttributes(verifierKey.String(name)))
			return ctx, func(v verifier.Verdict, err error) {
				defer span.End()
				if err != nil {
					span.SetStatus(codes.Error, err.Error())
					return
				}
				span.SetAttributes(sourceKey.String(v.Source.String()))
			}
		},
		Carry: func(from, to context.Context) context.Context {
			return trace.ContextWithSpanContext(to, trace.SpanContextFromContext(from))
		},
	}
}

// Calls returns a Verifier whose calls are traced. A call belongs to the trace of the
// request that caused it, and to one of its own if a token is asked for ahead of time.
func (t *Tracer) Calls(name string, next verifier.Verifier) verifier.Verifier {
	if t == nil {
		return next
	}
	return &calls{t.tracer, name, next}
}

type calls struct {
	tracer trace.Tracer
	name   string
	next   verifier.Verifier
}

// Verify implements [verifier.Verifier].
func (c *calls) Verify(ctx context.Context, token bearer.Token) (v verifier.Verdict, err error) {
	ctx, span := c.tracer.Start(ctx, "call", trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(verifierKey.String(c.name), tokenKey.String(token.Fingerprint())))
	outcome := verifier.Unanswered // also if it panics
	defer func() {
		span.SetAttributes(outcomeKey.String(outcome.String()))
		span.End()
	}()
	v, err = c.next.Verify(ctx, token)
	switch {
	case err != nil:
		span.SetStatus(codes.Error, err.Error())
	case v.Valid:
		outcome = verifier.Valid
	default:
		outcome = verifier.Invalid
	}
	return v, err
}
