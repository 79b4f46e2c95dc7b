"""Reads the scenario's trace back with langfuse's own typed clients, of each generation that the SDK knows."""

import datetime
import json
import sys

from langfuse import Langfuse

version, trace_id = sys.argv[1:]
client = Langfuse()
api = client.api
session = f"session-py{version}"
now = datetime.datetime.now(datetime.timezone.utc)
ago = datetime.timedelta(days=1)
facts = {}


def picture(observations):
    """What stands where the picture was, and the picture that it leads to."""
    [plan] = [one for one in observations if one.name == "plan"]
    sent = json.loads(plan.input) if isinstance(plan.input, str) else plan.input
    resolved = client.resolve_media_references(obj=sent, resolve_with="base64_data_uri")
    return [sent["picture"].split("|")[0], resolved["picture"]]


def metrics(client):
    query = {
        "view": "observations", "dimensions": [{"field": "providedModelName"}],
        "metrics": [{"measure": "count", "aggregation": "count"}, {"measure": "totalCost", "aggregation": "sum"}],
        "filters": [{"type": "string", "column": "sessionId", "operator": "=", "value": session}],
        "fromTimestamp": (now - ago).isoformat(), "toTimestamp": (now + ago).isoformat(),
        "timeDimension": {"granularity": "month"}, "timezone": "UTC",
    }
    rows = [row for row in client.metrics(query=json.dumps(query)).data if row["count_count"]]
    return sorted([row["providedModelName"] or "", row["count_count"], round(row["sum_totalCost"] or 0, 9)] for row in rows)


def observation(seen):
    usage, cost = seen.usage_details, seen.cost_details["total"]
    return [seen.type, usage["input"] + usage["input_cached_tokens"], usage["output"], round(cost, 9), seen.output]


def judged(scores):
    return sorted([score.name, score.data_type, score.value, score.trace_id == trace_id] for score in scores)


if version in "34":
    trace = api.trace.get(trace_id)
    facts["trace"] = [
        trace.name, trace.user_id, trace.session_id == session, trace.tags, trace.environment, trace.release,
        len(trace.observations), round(trace.total_cost, 9), trace.input, trace.output, trace.metadata["tenant"],
    ]
    facts["names"] = sorted(seen.name for seen in trace.observations)
    facts["judged trace"] = judged(trace.scores)
    listed = api.trace.list(
        name="agent-run", user_id="user-42", session_id=session, tags=["a", "late"], environment=["e2e", "x"],
        release="rel-1", from_timestamp=now - ago, to_timestamp=now + ago, order_by="timestamp.desc", limit=10, page=1,
        fields="core,io,scores,observations,metrics",
    )
    [one] = listed.data
    facts["listed"] = [listed.meta.total_items, one.id == trace_id, len(one.observations), len(one.scores)]
    [one] = [one for one in api.sessions.list(limit=100, environment="e2e").data if one.id == session]
    facts["session"] = [one.environment, [trace.id == trace_id for trace in api.sessions.get(session).traces]]
    v1 = api.observations if version == "3" else api.legacy.observations_v1
    [llm] = v1.get_many(trace_id=trace_id, name="plan-llm", type="GENERATION", user_id="user-42").data
    facts["llm v1"] = observation(v1.get(llm.id))
    facts["errors v1"] = [seen.name for seen in v1.get_many(trace_id=trace_id, level="ERROR", environment="e2e").data]
    [streamed] = [seen for seen in v1.get_many(trace_id=trace_id).data if seen.time_to_first_token is not None]
    facts["streamed v1"] = streamed.name
    facts["picture v1"] = picture(v1.get_many(trace_id=trace_id).data)
    scores = api.score_v_2.get if version == "3" else api.scores.get_many
    found = scores(trace_id=trace_id, user_id="user-42", limit=10).data
    facts["judged v2"] = judged(found)
    facts["good v2"] = [one.name for one in scores(trace_id=trace_id, data_type="NUMERIC", operator=">=", value=0.5).data]
    by_id = (api.score_v_2 if version == "3" else api.scores).get_by_id
    facts["judged ids"] = judged(by_id(one.id) for one in found)
    facts["models v1"] = metrics(api.metrics if version == "3" else api.legacy.metrics_v1)

v2 = api.observations_v_2 if version == "3" else api.observations
if version != "3":
    seen, cursor = [], None
    while True:
        page = v2.get_many(trace_id=trace_id, limit=3, cursor=cursor, fields="core,basic,usage,metrics,io")
        seen, cursor = seen + page.data, page.meta.cursor
        if cursor is None:
            break
    facts["names v2"] = sorted(one.name for one in seen)
    facts["llm v2"] = observation(next(one for one in seen if one.name == "plan-llm"))
    facts["picture v2"] = picture(seen)
    facts["errors v2"] = [one.name for one in v2.get_many(trace_id=trace_id, level="ERROR").data]
    facts["streamed v2"] = [one.name for one in seen if one.time_to_first_token is not None][0]
    scores = api.scores_v3.get_many_v3 if version == "4" else api.scores.get_many
    found = scores(trace_id=trace_id, fields="core,details,subject").data
    facts["judged v3"] = sorted([one.name, one.data_type, one.value, one.subject.id == trace_id] for one in found)
    facts["good v3"] = [one.name for one in scores(trace_id=trace_id, data_type="NUMERIC", value_min=0.5).data]
else:
    page = v2.get_many(trace_id=trace_id, fields="core,basic,usage", limit=10)
    facts["names v2"] = sorted((one if isinstance(one, dict) else one.dict())["name"] for one in page.data)
facts["models v2"] = metrics(api.metrics_v_2 if version == "3" else api.metrics)
assert api.models.list(limit=1).meta.total_items > 100
assert api.health.health().status == "OK"
print(json.dumps(facts))
