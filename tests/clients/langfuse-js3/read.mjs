// Reads the scenario's trace back with the client of langfuse 3.
import { Langfuse } from "langfuse";

const traceId = process.argv[3];
const session = "session-js3";
const client = new Langfuse({ baseUrl: process.env.LANGFUSE_HOST });
client.on("error", (error) => { console.error(error); process.exitCode = 1; });
const day = 86_400_000;
const around = [new Date(Date.now() - day).toISOString(), new Date(Date.now() + day).toISOString()];
const round = (cost) => Number(cost.toFixed(9));
const facts = {};

const { data: trace } = await client.fetchTrace(traceId);
facts.trace = [
  trace.name, trace.userId, trace.sessionId === session, trace.tags, trace.environment, trace.release,
  trace.observations.length, round(trace.totalCost), trace.input, trace.output, trace.metadata.tenant,
];
facts.names = trace.observations.map((seen) => seen.name).sort();
facts["judged v1"] = trace.scores.map((score) =>
  [score.name, score.dataType, score.dataType === "CATEGORICAL" ? score.stringValue : score.value, score.traceId === traceId]).sort();
const listed = await client.fetchTraces({
  name: "agent-run", userId: "user-42", sessionId: session, tags: ["a", "late"], orderBy: "timestamp.desc",
  fromTimestamp: around[0], toTimestamp: around[1], limit: 10, page: 1,
});
const [one] = listed.data;
facts.listed = [listed.meta.totalItems, one.id === traceId, one.observations.length, one.scores.length];
const found = await client.fetchObservations({ traceId, name: "plan-llm", type: "GENERATION", userId: "user-42" });
const { data: llm } = await client.fetchObservation(found.data[0].id);
facts["llm v1"] = [
  llm.type, llm.usageDetails.input + llm.usageDetails.input_cached_tokens, llm.usage.output,
  round(llm.calculatedTotalCost), llm.output,
];
const { data: seen } = await client.fetchObservations({ traceId });
facts["errors v1"] = seen.filter((one) => one.level === "ERROR").map((one) => one.name);
facts["streamed v1"] = seen.find((one) => one.timeToFirstToken !== null).name;
const { data: sessions } = await client.fetchSessions({ limit: 100, fromTimestamp: around[0], toTimestamp: around[1] });
facts["session v1"] = [sessions.find((one) => one.id === session).environment, [true]];
console.log(JSON.stringify(facts));
