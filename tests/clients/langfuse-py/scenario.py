"""langfuse 3 to 5: spans by OpenTelemetry; scores by the batch (3, 4) or as a list (5)."""

import datetime
import sys

from langfuse import Langfuse, propagate_attributes

version = sys.argv[1]
client = Langfuse(release="rel-1", environment="e2e")
assert client.auth_check()
now = lambda: datetime.datetime.now(datetime.timezone.utc)  # noqa: E731


def start(name, as_type="span", **more):
    return client.start_as_current_observation(name=name, as_type=as_type, **more)


def about_trace(**more):
    return propagate_attributes(user_id="user-42", session_id=f"session-py{version}", **more)


with start("agent-run", input={"q": "hi"}) as root:
    trace_id = root.trace_id
    with about_trace(tags=["a", "b"], metadata={"tenant": "acme"}, trace_name="agent-run"):
        with start("plan", input={"picture": "data:image/png;base64,YSBwaWN0dXJl"}) as plan:
            usage = {"input": 20, "output": 45, "input_cached_tokens": 100}
            with start("plan-llm", "generation", model="gpt-4o-mini", input="hi", usage_details=usage) as llm:
                llm.update(output="there", model_parameters={"temperature": 0.2})
        with start("priced-llm", "generation", model="mine", cost_details={"total": 0.0031}):
            pass
        with start("stream-llm", "generation", model="gpt-4o-mini") as llm:
            llm.update(completion_start_time=now(), output="done", usage_details={"input": 10, "output": 5})
        with start("broken-llm", "generation", model="gpt-4o-mini") as llm:
            llm.update(level="ERROR", status_message="429")
    root.update(output={"a": "done"})
    parent = root.id
client.create_score(trace_id=trace_id, name="quality", value=0.9, data_type="NUMERIC")
client.create_score(trace_id=trace_id, name="verdict", value="good", data_type="CATEGORICAL")
client.create_score(trace_id=trace_id, name="helpful", value=1, data_type="BOOLEAN")
client.flush()

# Later, in requests of their own.
with about_trace(tags=["late"]):
    with start("late", trace_context={"trace_id": trace_id, "parent_span_id": parent}):
        pass
client.flush()
client.shutdown()
print(trace_id)
