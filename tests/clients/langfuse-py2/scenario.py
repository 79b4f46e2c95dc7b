"""langfuse 2: the classic batch."""

import datetime
import uuid

from langfuse import Langfuse

client = Langfuse(release="rel-1", environment="e2e")
assert client.auth_check()
now = lambda: datetime.datetime.now(datetime.timezone.utc)  # noqa: E731

trace_id = f"py2-{uuid.uuid4()}"
trace = client.trace(
    id=trace_id, name="agent-run", user_id="user-42", session_id="session-py2", tags=["a", "b"],
    metadata={"tenant": "acme", "nested": {"a": 1}}, input={"q": "hi"},
)
root = trace.span(name="agent-run", input={"q": "hi"})
plan = root.span(name="plan", input={"picture": "data:image/png;base64,YSBwaWN0dXJl"})
plan.generation(
    name="plan-llm", model="gpt-4o-mini", input="hi", output="there", model_parameters={"temperature": 0.2},
    usage_details={"input": 20, "output": 45, "input_cached_tokens": 100},
).end()
plan.end()
root.generation(name="priced-llm", model="mine", cost_details={"input": 0.001, "output": 0.0021, "total": 0.0031}).end()
stream = root.generation(name="stream-llm", model="gpt-4o-mini")
stream.update(completion_start_time=now())
stream.end(output="done", usage={"input": 10, "output": 5, "total": 15, "unit": "TOKENS"})
root.generation(name="broken-llm", model="gpt-4o-mini").end(level="ERROR", status_message="429")
root.end(output={"a": "done"})
client.score(trace_id=trace_id, name="quality", value=0.9, data_type="NUMERIC")
client.score(trace_id=trace_id, name="verdict", value="good", data_type="CATEGORICAL")
client.score(trace_id=trace_id, name="helpful", value=1, data_type="BOOLEAN")
client.flush()

# Later, in requests of their own.
plan.update(level="WARNING", status_message="updated later")
trace.update(tags=["late"], metadata={"finished": True, "nested": {"b": 2}})
root.span(name="late").end()
client.flush()
client.shutdown()
print(trace_id)
