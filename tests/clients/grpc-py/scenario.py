"""Asks every method of the server once, by what reflection says of it: no generated code, no proto files.

Prints in its last line, as JSON, what each method answered: the fields of the first message that are filled in.
"""

import base64
import json
import os
import time

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

OURS = "tracelake.v1."
now_us = int(time.time() * 1e6)
range_ = {"fromUnixMicros": str(now_us - 3_600_000_000), "toUnixMicros": str(now_us + 3_600_000_000)}
count = {"aggregation": "AGGREGATION_COUNT"}
query = {"range": range_, "measures": [count], "dimensions": ["model"]}
of_user = {"field": "user_id", "operator": "FILTER_OPERATOR_EQUALS", "values": ["ada"]}
observation = {
    "traceId": "asked", "id": "call", "type": "GENERATION", "name": "llm", "model": "gpt-4o-mini", "userId": "ada",
    "sessionId": "s", "startUnixNano": str(now_us * 1_000), "endUnixNano": str((now_us + 900_000) * 1_000),
    "inputTokens": "1000", "outputTokens": "100", "input": "where is it?", "output": "there",
}
score = {"id": "judged", "traceId": "asked", "name": "helpful", "numeric": 1}
model = {"id": "mine", "pattern": "mine", "prices": [{"tiers": [{"name": "all", "rates": [
    {"kind": "input", "usd": "2", "perMillion": True}]}]}]}

# In the order in which they are asked: what is asked later needs what was made before. Each is a question, or a
# function of the answers so far.
QUESTIONS = {
    "IngestService/Ingest": {"observations": [observation], "scores": [score]},
    "IngestService/IngestStream": {"observations": [dict(observation, id="second")]},
    "AdminService/Flush": {},
    "AdminService/GetStatus": {},
    "AdminService/CreateTenant": {"tenant": "globex"},
    "AdminService/ListTenants": {},
    "AdminService/CreateKey": {"tenant": "globex", "roles": ["KEY_ROLE_READ"]},
    "AdminService/ListKeys": {"tenant": "globex"},
    "AdminService/RevokeKey": lambda said: {
        "tenant": "globex", "publicKey": said["AdminService/CreateKey"]["publicKey"]},
    "AdminService/SetRetention": {"tenant": "globex", "retention": {"days": 30}},
    "AdminService/SetDimensions": {"tenant": "globex", "dimensions": {"account": "customer"}},
    "AdminService/SetMasking": {"tenant": "globex", "rules": [
        {"name": "email", "builtIn": True, "action": "MASKING_ACTION_REDACT"}]},
    "AdminService/GetTenantSettings": {"tenant": "globex"},
    "AdminService/DeleteTenant": {"tenant": "globex"},
    "PriceService/PutPrices": {"models": [model]},
    "PriceService/ListPrices": {"ownOnly": True},
    "PriceService/CheckPrice": {"model": "mine", "usage": {"input": "1000"}},
    "PriceService/DeletePrices": {"modelIds": ["mine"]},
    "MetricsService/Query": query,
    "MetricsService/QueryStream": query,
    "MetricsService/CostBreakdown": {"range": range_},
    "MetricsService/LatencyPercentiles": {"range": range_},
    "MetricsService/TimeSeries": {"range": range_, "bucket": {"unit": "TIME_UNIT_HOUR", "count": 1}},
    "MetricsService/BatchQuery": {"queries": [{"name": "one", "query": query}]},
    "MetricsService/TopUsers": {"range": range_},
    "MetricsService/TopFlows": {"range": range_},
    "MetricsService/Errors": {"range": range_},
    "MetricsService/ToolUsage": {"range": range_},
    "MetricsService/UsageStats": {"range": range_},
    "MetricsService/UserStats": {"range": range_, "userId": "ada"},
    "MetricsService/PlatformStats": {"range": range_},
    "MetricsService/Realtime": {},
    "MetricsService/GetSpend": {"range": range_, "keys": [{"name": "ada", "filters": [of_user]}]},
    "MetricsService/Compare": {
        "range": range_, "cohorts": [{"name": "ada", "filters": [of_user]}, {"name": "all"}],
        "measures": [{"field": "total_cost"}]},
    "MetricsService/Conversations": {"range": range_},
    "MetricsService/Funnel": {"range": range_, "steps": [{"name": "asked", "filters": [of_user]}, {
        "name": "told", "filters": [of_user]}]},
    "MetricsService/Report": {"range": range_},
    "MetricsService/Subscribe": {"query": query},
    "SqlService/Query": {"sql": "SELECT count(*) FROM observations"},
    "TraceService/GetTrace": {"traceId": "asked", "withIo": True},
    "TraceService/ListTraces": {"range": range_},
    "TraceService/SearchTraces": {"range": range_, "text": "WHERE is it"},
    "TraceService/Tail": {"cursor": "0"},
    "ErasureService/Erase": {"kind": "ERASURE_KIND_TRACE", "values": ["asked"]},
    "ErasureService/GetErasure": lambda said: {"id": said["ErasureService/Erase"]["erasure"]["id"]},
    "ErasureService/ListErasures": {},
}

keys = f"{os.environ['LANGFUSE_PUBLIC_KEY']}:{os.environ['LANGFUSE_SECRET_KEY']}"
metadata = [("authorization", "Basic " + base64.b64encode(keys.encode()).decode())]
channel = grpc.insecure_channel(os.environ["TRACELAKE_GRPC"])
database = ProtoReflectionDescriptorDatabase(channel)
pool = descriptor_pool.DescriptorPool(database)


def method_of(name):
    service, method = name.split("/")
    return pool.FindServiceByName(OURS + service).FindMethodByName(method)


def ask(name, question):
    method = method_of(name)
    kind, answer = (message_factory.GetMessageClass(of) for of in (method.input_type, method.output_type))
    message = json_format.ParseDict(question, kind())
    path = f"/{OURS}{name}"
    how = {"request_serializer": kind.SerializeToString, "response_deserializer": answer.FromString}
    if method.client_streaming:
        said = channel.stream_unary(path, **how)(iter([message]), metadata=metadata, timeout=60)
    elif method.server_streaming:
        told = channel.unary_stream(path, **how)(message, metadata=metadata, timeout=60)
        said = next(told)
        told.cancel()
    else:
        said = channel.unary_unary(path, **how)(message, metadata=metadata, timeout=60)
    return json_format.MessageToDict(said)


there = sorted(
    f"{service.removeprefix(OURS)}/{method.name}"
    for service in database.get_services() if service.startswith(OURS)
    for method in pool.FindServiceByName(service).methods
)
assert there == sorted(QUESTIONS), f"asked of none, or not there: {set(there) ^ set(QUESTIONS)}"
answers = {}
for name, question in QUESTIONS.items():
    answers[name] = ask(name, question(answers) if callable(question) else question)
print(json.dumps({name: sorted(answer) for name, answer in answers.items()}))
