"""Reads the scenario's trace back with the typed client of langfuse 2."""

import datetime
import json
import sys

from langfuse import Langfuse

trace_id = sys.argv[2]
client = Langfuse()
api, session = client.client, "session-py2"
now = datetime.datetime.now(datetime.timezone.utc)
ago = datetime.timedelta(days=1)
facts = {}


def judged(scores):
    value = lambda score: score.string_value if score.data_type == "CATEGORICAL" else score.value  # noqa: E731
    return sorted([score.name, score.data_type, value(score), score.trace_id == trace_id] for score in scores)


trace = api.trace.get(trace_id)
facts["trace"] = [
    trace.name, trace.user_id, trace.session_id == session, trace.tags, trace.environment, trace.release,
    len(trace.observations), round(trace.total_cost, 9), trace.input, trace.output, trace.metadata["tenant"],
]
facts["names"] = sorted(seen.name for seen in trace.observations)
facts["judged v1"] = judged(trace.scores)
listed = api.trace.list(
    name="agent-run", user_id="user-42", session_id=session, tags=["a", "late"], environment=["e2e", "x"],
    release="rel-1", from_timestamp=now - ago, to_timestamp=now + ago, order_by="timestamp.desc", limit=10, page=1,
)
[one] = listed.data
facts["listed"] = [listed.meta.total_items, one.id == trace_id, len(one.observations), len(one.scores)]
[one] = [one for one in api.sessions.list(limit=100, environment="e2e").data if one.id == session]
facts["session"] = [one.environment, [trace.id == trace_id for trace in api.sessions.get(session).traces]]
[llm] = api.observations.get_many(trace_id=trace_id, name="plan-llm", type="GENERATION", user_id="user-42").data
llm = api.observations.get(llm.id)
facts["llm v1"] = [
    llm.type, llm.usage_details["input"] + llm.usage_details["input_cached_tokens"], llm.usage.output,
    round(llm.calculated_total_cost, 9), llm.output,
]
seen = api.observations.get_many(trace_id=trace_id).data
facts["errors v1"] = [one.name for one in seen if one.level == "ERROR"]
[plan] = [one for one in seen if one.name == "plan"]
resolved = client.resolve_media_references(obj=plan.input, resolve_with="base64_data_uri")
facts["picture"] = [plan.input["picture"].split("|")[0], resolved["picture"]]
[streamed] = [one for one in seen if one.time_to_first_token is not None]
facts["streamed v1"] = streamed.name
found = [one for one in api.score.get(user_id="user-42", limit=100).data if one.trace_id == trace_id]
facts["judged ids"] = judged(api.score.get_by_id(one.id) for one in found)
good = api.score.get(data_type="NUMERIC", operator=">=", value=0.5, name="quality", limit=100).data
facts["good v1"] = [one.name for one in good if one.trace_id == trace_id]
assert all(one.trace.user_id == "user-42" and "a" in one.trace.tags for one in good)
[day] = api.metrics.daily(trace_name="agent-run", user_id="user-42", tags="a", environment="e2e").data
assert day.count_traces >= 1 and day.count_observations >= 7 and day.total_cost > 0.003, day
assert "gpt-4o-mini" in [used.model for used in day.usage], day
assert api.models.list(limit=1).meta.total_items > 100
assert client.fetch_trace(trace_id).data.id == trace_id
assert api.health.health().status == "OK"
print(json.dumps(facts))
