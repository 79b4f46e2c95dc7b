// Writes a call to a model, and asks what such calls cost and how slow they are.
//
//     npm ci && npm start

import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import * as grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

import type { ProtoGrpcType as IngestTypes } from './generated/ingest.js';
import type { ProtoGrpcType as MetricsTypes } from './generated/metrics.js';
import type { IngestServiceClient } from './generated/tracelake/v1/IngestService.js';
import type { MetricsResponse__Output } from './generated/tracelake/v1/MetricsResponse.js';
import type { MetricsRow__Output } from './generated/tracelake/v1/MetricsRow.js';
import type { MetricsServiceClient } from './generated/tracelake/v1/MetricsService.js';
import type { TimeRange } from './generated/tracelake/v1/TimeRange.js';

const server = process.env.TRACELAKE_SERVER ?? '127.0.0.1:4317';
const key = `${process.env.TRACELAKE_PUBLIC_KEY}:${process.env.TRACELAKE_SECRET_KEY}`;
const protos = process.env.TRACELAKE_PROTOS ?? join(dirname(fileURLToPath(import.meta.url)), '../../..');
const hourMicros = 3_600_000_000n;

async function main(): Promise<void> {
  // 64-bit integers are read as text: a number would round them.
  const definition = loadSync(['tracelake/v1/ingest.proto', 'tracelake/v1/metrics.proto'], {
    includeDirs: [protos],
    longs: String,
    enums: String,
    defaults: true,
    oneofs: true,
  });
  const { v1 } = (grpc.loadPackageDefinition(definition) as unknown as IngestTypes & MetricsTypes).tracelake;
  const services = v1 as IngestTypes['tracelake']['v1'] & MetricsTypes['tracelake']['v1'];
  const credentials = grpc.credentials.createInsecure();
  const ingest = new services.IngestService(server, credentials, { interceptors: [signed] });
  const metrics = new services.MetricsService(server, credentials, { interceptors: [signed] });

  await write(ingest);
  const now = BigInt(Date.now()) * 1_000n;
  const hour = { fromUnixMicros: `${now - hourMicros}`, toUnixMicros: `${now + hourMicros}` };
  await costBreakdown(metrics, hour);
  await latencyPercentiles(metrics, hour);
  await timeSeries(metrics, hour);
  await subscribe(metrics, ingest, hour);
  ingest.close();
  metrics.close();
}

// Attaches the key to every call.
const signed: grpc.Interceptor = (options, nextCall) =>
  new grpc.InterceptingCall(nextCall(options), {
    start(metadata, listener, next) {
      metadata.set('authorization', `Basic ${Buffer.from(key).toString('base64')}`);
      next(metadata, listener);
    },
  });

// When the answer is there, the call is durable and the next question sees it.
async function write(ingest: IngestServiceClient): Promise<void> {
  const end = BigInt(Date.now()) * 1_000_000n;
  const call = {
    traceId: randomUUID(),
    id: randomUUID(),
    name: 'answer',
    startUnixNano: `${end - 800_000_000n}`,
    endUnixNano: `${end}`,
    model: 'gpt-4o-mini',
    inputTokens: 1_000,
    outputTokens: 200,
    input: 'What is a lake?',
    output: 'Standing water, surrounded by land.',
    userId: 'ada',
    tags: ['example'],
  };
  const answer = await answered(ingest.Ingest.bind(ingest), { observations: [call] });
  console.log(`written: ${answer.accepted} accepted, ${answer.rejected.length} rejected`);
}

async function costBreakdown(metrics: MetricsServiceClient, range: TimeRange): Promise<void> {
  const question = { range, dimensions: ['model', 'user_id'] };
  const answer = await answered(metrics.CostBreakdown.bind(metrics), question);
  for (const row of answer.rows) {
    const [model, user] = row.dimensions.map((dimension) => dimension.text);
    const cost = value(answer, row, 'sum_total_cost');
    console.log(`cost: ${model} for ${user}: ${value(answer, row, 'count')} calls, ${cost} USD`);
  }
}

async function latencyPercentiles(metrics: MetricsServiceClient, range: TimeRange): Promise<void> {
  const answer = await answered(metrics.LatencyPercentiles.bind(metrics), { range });
  for (const row of answer.rows) {
    const p95 = Number(value(answer, row, 'p95_latency_ms'));
    console.log(`latency: ${row.dimensions[0].text}: p95 ${p95.toFixed(0)} ms`);
  }
}

async function timeSeries(metrics: MetricsServiceClient, range: TimeRange): Promise<void> {
  const bucket = { unit: 'TIME_UNIT_HOUR', timeZone: 'Europe/Berlin', skipGaps: true } as const;
  const answer = await answered(metrics.TimeSeries.bind(metrics), { range, bucket });
  for (const row of answer.rows) {
    const at = new Date(Number(row.bucketStartUnixMicros) / 1_000).toISOString().slice(11, 16);
    console.log(`series: from ${at} UTC: ${value(answer, row, 'sum_total_tokens')} tokens`);
  }
}

// First the whole answer, then whatever changes in it.
async function subscribe(metrics: MetricsServiceClient, ingest: IngestServiceClient, range: TimeRange): Promise<void> {
  const changes = metrics.Subscribe({
    query: { range, measures: [{ aggregation: 'AGGREGATION_COUNT' }], dimensions: ['model'] },
    intervalMs: 1_000,
  });
  let messages = 0;
  for await (const { changed } of changes) {
    for (const row of changed.rows) {
      console.log(`pushed: ${row.dimensions[0].text}: ${value(changed, row, 'count')} calls`);
    }
    messages += 1;
    if (messages === 2) {
      changes.cancel();
      break;
    }
    await write(ingest);
  }
}

// A measure by its name. Money is decimal text: keep it out of numbers.
function value(answer: MetricsResponse__Output, row: MetricsRow__Output, name: string): string | number | null {
  const place = answer.measures.findIndex((measure) => measure.name === name);
  const measure = row.measures[place];
  return measure?.decimal ?? measure?.integer ?? measure?.number ?? null;
}

type Answered<Answer> = (error: grpc.ServiceError | null, answer?: Answer) => void;

// Tried again where the server asks for it, as it does when it is full.
async function answered<Question, Answer>(
  call: (question: Question, answered: Answered<Answer>) => unknown,
  question: Question,
): Promise<Answer> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await new Promise((resolve, reject) => {
        call(question, (error, answer) => (error ? reject(error) : resolve(answer as Answer)));
      });
    } catch (error) {
      if ((error as grpc.ServiceError).code !== grpc.status.UNAVAILABLE || attempt === 5) {
        throw error;
      }
      await pause(100 * 2 ** attempt);
    }
  }
}

await main();
