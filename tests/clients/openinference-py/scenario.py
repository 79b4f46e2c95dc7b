"""OpenInference: its own tracer and context attributes."""

import base64
import os

from openinference.instrumentation import OITracer, TraceConfig, using_attributes
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import NonRecordingSpan, Status, StatusCode, set_span_in_context

credentials = f"{os.environ['LANGFUSE_PUBLIC_KEY']}:{os.environ['LANGFUSE_SECRET_KEY']}"
headers = {"authorization": "Basic " + base64.b64encode(credentials.encode()).decode()}
exporter = OTLPSpanExporter(endpoint=os.environ["LANGFUSE_HOST"] + "/v1/traces", headers=headers)
provider = TracerProvider(resource=Resource.create({"service.name": "agent", "deployment.environment.name": "e2e"}))
provider.add_span_processor(BatchSpanProcessor(exporter))
tracer = OITracer(provider.get_tracer("scenario"), config=TraceConfig())


def start(name, kind="CHAIN", **more):
    return tracer.start_as_current_span(name, attributes={"openinference.span.kind": kind, **more})


def llm(name, **more):
    return start(name, "LLM", **{"llm.model_name": "gpt-4o-mini", **more})


def counts(prompt, completion):
    return {
        "llm.token_count.prompt": prompt,
        "llm.token_count.completion": completion,
        "llm.token_count.total": prompt + completion,
    }


def about(**more):
    return using_attributes(user_id="user-42", session_id="session-openinference", **more)


with about(tags=["a", "b"], metadata={"tenant": "acme"}):
    with start("agent-run", "AGENT") as root:
        with start("plan"):
            with llm("plan-llm", **counts(120, 45), **{"llm.token_count.prompt_details.cache_read": 100}):
                pass
        with llm("priced-llm", **{"llm.cost.total": 0.0031}):
            pass
        with llm("stream-llm", **counts(10, 5)) as stream:
            stream.add_event("First Token Stream Event")
        with llm("broken-llm") as broken:
            broken.set_status(Status(StatusCode.ERROR, "429"))
provider.force_flush()

# Later, in a request of its own.
below = set_span_in_context(NonRecordingSpan(root.get_span_context()))
with about(tags=["late"]):
    with tracer.start_as_current_span("late", context=below, attributes={"openinference.span.kind": "CHAIN"}):
        pass
provider.shutdown()
print(format(root.get_span_context().trace_id, "032x"))
