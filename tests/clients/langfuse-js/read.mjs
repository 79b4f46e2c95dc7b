// Reads the scenario's trace back with the typed client of @langfuse 5, in both generations.
import { LangfuseClient } from "@langfuse/client";

const traceId = process.argv[3];
const session = "session-js5";
const client = new LangfuseClient({ baseUrl: process.env.LANGFUSE_HOST });
const { api } = client;
const day = 86_400_000;
const around = [new Date(Date.now() - day).toISOString(), new Date(Date.now() + day).toISOString()];
const round = (cost) => Number((cost ?? 0).toFixed(9));
const facts = {};

const trace = await api.trace.get(traceId);
facts.trace = [
  trace.name, trace.userId, trace.sessionId === session, trace.tags, trace.environment, trace.release,
  trace.observations.length, round(trace.totalCost), trace.input, trace.output, trace.metadata.tenant,
];
const judged = (scores) =>
  scores.map((score) => [score.name, score.dataType, score.dataType === "CATEGORICAL" ? score.stringValue : score.value, score.traceId === traceId]).sort();
facts.names = trace.observations.map((seen) => seen.name).sort();
facts["judged trace"] = judged(trace.scores);
const listed = await api.trace.list({
  name: "agent-run", userId: "user-42", sessionId: session, tags: ["a", "late"], environment: ["e2e", "x"],
  orderBy: "timestamp.desc", fromTimestamp: around[0], toTimestamp: around[1], limit: 10, page: 1,
});
const [one] = listed.data;
facts.listed = [listed.meta.totalItems, one.id === traceId, one.observations.length, one.scores.length];
const sessions = (await api.sessions.list({ limit: 100 })).data;
const traces = (await api.sessions.get(session)).traces;
facts.session = [sessions.find((one) => one.id === session).environment, traces.map((trace) => trace.id === traceId)];

const observation = (seen) => [
  seen.type, seen.usageDetails.input + seen.usageDetails.input_cached_tokens, seen.usageDetails.output,
  round(seen.costDetails.total), seen.output,
];
const v1 = api.legacy.observationsV1;
const { data: [llm] } = await v1.getMany({ traceId, name: "plan-llm", type: "GENERATION" });
facts["llm v1"] = observation(await v1.get(llm.id));
const seen = [];
let cursor;
do {
  const page = await api.observations.getMany({ traceId, limit: 3, cursor, fields: "core,basic,usage,metrics,io" });
  seen.push(...page.data);
  cursor = page.meta.cursor;
} while (cursor);
facts["names v2"] = seen.map((one) => one.name).sort();
const { input: sent } = seen.find((one) => one.name === "plan");
const plan = typeof sent === "string" ? JSON.parse(sent) : sent;
const resolved = await client.media.resolveReferences({ obj: plan, resolveWith: "base64DataUri" });
facts["picture v2"] = [plan.picture.split("|")[0], resolved.picture];
facts["llm v2"] = observation(seen.find((one) => one.name === "plan-llm"));
facts["errors v2"] = seen.filter((one) => one.level === "ERROR").map((one) => one.name);
facts["streamed v2"] = seen.find((one) => one.timeToFirstToken !== null).name;
facts["judged v2"] = judged((await api.scores.getMany({ traceId, limit: 10 })).data);
const third = (await api.scoresV3.getManyV3({ traceId, fields: "core,subject" })).data;
facts["judged v3"] = third.map((score) => [score.name, score.dataType, score.value, score.subject.id === traceId]).sort();
const query = JSON.stringify({
  view: "observations", dimensions: [{ field: "providedModelName" }],
  metrics: [{ measure: "count", aggregation: "count" }, { measure: "totalCost", aggregation: "sum" }],
  filters: [{ type: "string", column: "sessionId", operator: "=", value: session }],
  fromTimestamp: around[0], toTimestamp: around[1],
});
const models = (rows) => rows.map((row) => [row.providedModelName ?? "", row.count_count, round(row.sum_totalCost)]).sort();
facts["models v1"] = models((await api.legacy.metricsV1.metrics({ query })).data);
facts["models v2"] = models((await api.metrics.metrics({ query })).data);
console.log(JSON.stringify(facts));
