// langfuse 3: the classic batch.
import { randomUUID } from "node:crypto";
import { Langfuse } from "langfuse";

const client = new Langfuse({ baseUrl: process.env.LANGFUSE_HOST, release: "rel-1", environment: "e2e" });
client.on("error", (error) => { console.error(error); process.exitCode = 1; });
const traceId = `js3-${randomUUID()}`;
const trace = client.trace({
  id: traceId, name: "agent-run", userId: "user-42", sessionId: "session-js3", tags: ["a", "b"],
  metadata: { tenant: "acme", nested: { a: 1 } }, input: { q: "hi" },
});
const root = trace.span({ name: "agent-run", input: { q: "hi" } });
const plan = root.span({ name: "plan" });
plan.generation({
  name: "plan-llm", model: "gpt-4o-mini", input: "hi", modelParameters: { temperature: 0.2 },
}).end({ output: "there", usageDetails: { input: 20, output: 45, input_cached_tokens: 100 } });
plan.end();
root.generation({ name: "priced-llm", model: "mine", costDetails: { input: 0.001, output: 0.0021, total: 0.0031 } }).end();
const stream = root.generation({ name: "stream-llm", model: "gpt-4o-mini" });
stream.update({ completionStartTime: new Date() });
stream.end({ output: "done", usage: { promptTokens: 10, completionTokens: 5, totalTokens: 15 } });
root.generation({ name: "broken-llm", model: "gpt-4o-mini" }).end({ level: "ERROR", statusMessage: "429" });
root.end({ output: { a: "done" } });
client.score({ traceId, name: "quality", value: 0.9, dataType: "NUMERIC" });
client.score({ traceId, name: "verdict", value: "good", dataType: "CATEGORICAL" });
client.score({ traceId, name: "helpful", value: 1, dataType: "BOOLEAN" });
await client.flushAsync();

// Later, in requests of their own.
plan.update({ level: "WARNING", statusMessage: "updated later" });
trace.update({ tags: ["late"], metadata: { finished: true, nested: { b: 2 } } });
root.span({ name: "late" }).end();
await client.shutdownAsync();
console.log(traceId);
