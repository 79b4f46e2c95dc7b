// @langfuse 5: spans as OTLP JSON, scores by the batch.
import { LangfuseClient } from "@langfuse/client";
import { LangfuseSpanProcessor } from "@langfuse/otel";
import { propagateAttributes, startActiveObservation } from "@langfuse/tracing";
import { NodeTracerProvider } from "@opentelemetry/sdk-trace-node";

const baseUrl = process.env.LANGFUSE_HOST;
const processor = new LangfuseSpanProcessor({ baseUrl, environment: "e2e", release: "rel-1" });
const provider = new NodeTracerProvider({ spanProcessors: [processor] });
provider.register();
const client = new LangfuseClient({ baseUrl });
const about = { userId: "user-42", sessionId: "session-js5" };

let traceId, parentSpanContext;
await startActiveObservation("agent-run", async (root) => {
  traceId = root.traceId;
  parentSpanContext = root.otelSpan.spanContext();
  root.update({ input: { q: "hi" } });
  await propagateAttributes({ ...about, tags: ["a", "b"], metadata: { tenant: "acme" }, traceName: "agent-run" }, async () => {
    await startActiveObservation("plan", async (plan) => {
      plan.update({ input: { picture: "data:image/png;base64,YSBwaWN0dXJl" } });
      await startActiveObservation("plan-llm", async (llm) => {
        llm.update({
          model: "gpt-4o-mini", input: "hi", output: "there", modelParameters: { temperature: 0.2 },
          usageDetails: { input: 20, output: 45, input_cached_tokens: 100 },
        });
      }, { asType: "generation" });
    });
    await startActiveObservation("priced-llm", async (llm) => {
      llm.update({ model: "mine", costDetails: { total: 0.0031 } });
    }, { asType: "generation" });
    await startActiveObservation("stream-llm", async (llm) => {
      llm.update({
        model: "gpt-4o-mini", completionStartTime: new Date(), output: "done", usageDetails: { input: 10, output: 5 },
      });
    }, { asType: "generation" });
    await startActiveObservation("broken-llm", async (llm) => {
      llm.update({ model: "gpt-4o-mini", level: "ERROR", statusMessage: "429" });
    }, { asType: "generation" });
  });
});
client.score.create({ traceId, name: "quality", value: 0.9, dataType: "NUMERIC" });
client.score.create({ traceId, name: "verdict", value: "good", dataType: "CATEGORICAL" });
client.score.create({ traceId, name: "helpful", value: 1, dataType: "BOOLEAN" });
await processor.forceFlush();
await client.flush();

// Later, in a request of its own.
await propagateAttributes({ ...about, tags: ["late"] }, async () => {
  await startActiveObservation("late", async () => {}, { parentSpanContext });
});
await provider.shutdown();
console.log(traceId);
