-- Every table and column a tenant sees. Written from src/model/tables/ by `TRACELAKE_BLESS=1 cargo test schema`;
-- a test holds the two equal. Times are UTC with microseconds, money is USD with 12 digits after the point.

-- Prompts, answers and whatever else was sent. A trace's own input and output stand under an empty id.
CREATE TABLE observation_io (
    trace_id                VARCHAR,                    -- The trace, as sent.
    id                      VARCHAR,                    -- The observation; empty for the trace's own input and output.
    start_time              TIMESTAMP WITH TIME ZONE,   -- Start of the observation, UTC.
    input                   VARCHAR,                    -- Text as sent; structures are JSON.
    output                  VARCHAR,                    -- Text as sent; structures are JSON.
    exception_stacktrace    VARCHAR,                    -- Of the exception event.
    attributes              MAP(VARCHAR, VARCHAR),      -- Everything sent that has no column of its own; values that are not text are JSON.
    _merge                  BYTEA,                      -- Which event decided which text; null for one event without a time.
    day                     DATE                        -- UTC day of placement (partition); prune by true times, not by it.
);

-- One row per span, generation or event. What is said about a trace (user, session, tags, names) stands on every row.
CREATE TABLE observations (
    trace_id                VARCHAR,                    -- The trace, as sent.
    id                      VARCHAR,                    -- The observation, as sent: unique within its trace.
    parent_id               VARCHAR,                    -- The observation it belongs to; null for a root.
    is_root                 BOOLEAN,                    -- No parent, or marked as root by its sender.
    type                    VARCHAR,                    -- SPAN, GENERATION, EVENT, EMBEDDING, AGENT, TOOL, CHAIN, RETRIEVER, GUARDRAIL or EVALUATOR.
    operation               VARCHAR,                    -- gen_ai.operation.name: chat, embeddings, execute_tool, …
    name                    VARCHAR,                    -- What the sender calls this step.
    trace_name              VARCHAR,                    -- The trace's name; its root's name where none was said.
    account                 VARCHAR,                    -- The tenant's own customer, from metadata.
    project                 VARCHAR,                    -- From metadata.
    flow                    VARCHAR,                    -- From metadata.
    user_id                 VARCHAR,                    -- The end user.
    session_id              VARCHAR,                    -- The conversation.
    agent_id                VARCHAR,                    -- gen_ai.agent.id.
    agent_name              VARCHAR,                    -- gen_ai.agent.name.
    tool_name               VARCHAR,                    -- gen_ai.tool.name.
    environment             VARCHAR,                    -- production, staging, …; `default` where none was said.
    release                 VARCHAR,                    -- The application's release.
    version                 VARCHAR,                    -- The version of this step, else of the service.
    tags                    VARCHAR[],                  -- The trace's tags, sorted, each once.
    level                   VARCHAR,                    -- DEBUG, DEFAULT, WARNING or ERROR.
    status                  VARCHAR,                    -- ok, error or unset.
    error_type              VARCHAR,                    -- error.type, or the type of the exception.
    status_message          VARCHAR,                    -- What went wrong, as sent.
    finish_reasons          VARCHAR[],                  -- Why the model stopped: stop, length, tool_calls, …
    truncated               BOOLEAN,                    -- A finish reason says that the answer was cut (length, max_tokens).
    response_id             VARCHAR,                    -- gen_ai.response.id.
    start_time              TIMESTAMP WITH TIME ZONE,   -- Start, UTC, microseconds.
    start_ns                BIGINT,                     -- Start as sent: nanoseconds since 1970; null where none was sent.
    end_time                TIMESTAMP WITH TIME ZONE,   -- End, UTC, microseconds; null while open.
    completion_start_time   TIMESTAMP WITH TIME ZONE,   -- When the first token came.
    latency_ms              DOUBLE,                     -- End − start, milliseconds.
    ttft_ms                 DOUBLE,                     -- First token − start, milliseconds.
    model                   VARCHAR,                    -- The model as the sender names it.
    model_id                VARCHAR,                    -- The price book's name for it; null when unpriced.
    provider                VARCHAR,                    -- openai, anthropic, aws.bedrock, …
    model_parameters        MAP(VARCHAR, VARCHAR),      -- temperature, max_tokens, …
    prompt_name             VARCHAR,                    -- The managed prompt used.
    prompt_version          BIGINT,                     -- Its version.
    usage                   MAP(VARCHAR, BIGINT),       -- Counts by kind, as reported.
    input_tokens            BIGINT,                     -- All input tokens, cached ones included.
    cached_input_tokens     BIGINT,                     -- Read from a cache; a part of input_tokens.
    cache_write_tokens      BIGINT,                     -- Written to a cache; a part of input_tokens.
    uncached_input_tokens   BIGINT,                     -- input_tokens − cached_input_tokens − cache_write_tokens, never below 0.
    output_tokens           BIGINT,                     -- All output tokens, reasoning included.
    reasoning_tokens        BIGINT,                     -- Spent on reasoning; a part of output_tokens.
    answer_tokens           BIGINT,                     -- output_tokens − reasoning_tokens, never below 0.
    total_tokens            BIGINT,                     -- As sent, else input + output.
    usage_source            VARCHAR,                    -- provided, counted from the texts, none, or repeated (a span that sums up others, or a second report of one call: not counted).
    cost                    MAP(VARCHAR, DECIMAL(18,12)),-- USD by kind; of a repeated report as its sender says it, which counts nowhere.
    input_cost              DECIMAL(18,12),             -- USD for input, caches included.
    output_cost             DECIMAL(18,12),             -- USD for output, reasoning included.
    total_cost              DECIMAL(18,12),             -- USD.
    cost_source             VARCHAR,                    -- provided by the client, computed by price, or none.
    price_id                VARCHAR,                    -- The price used: book/model/valid-from/tier.
    metadata                MAP(VARCHAR, VARCHAR),      -- The sender's own keys; values that are not text are JSON.
    service_name            VARCHAR,                    -- Resource service.name.
    scope_name              VARCHAR,                    -- The instrumentation.
    scope_version           VARCHAR,                    -- Its version.
    sdk_name                VARCHAR,                    -- telemetry.sdk.* or the Langfuse SDK.
    sdk_version             VARCHAR,                    -- Its version.
    source                  VARCHAR,                    -- The protocol it came by: otlp, langfuse-batch, tracelake.
    ingested_at             TIMESTAMP WITH TIME ZONE,   -- The stamp of the log object that first held it.
    _merge                  BYTEA,                      -- Which event decided which field; null for a row of one event whose time is the row's own.
    service_tier            VARCHAR,                    -- priority, flex, batch, …: what the price depends on beside the model.
    _own                    BIGINT,                     -- Bit set: which values the row says itself; its trace's facts may replace the others.
    sensitive_kinds         VARCHAR[],                  -- Kinds of sensitive text that the tenant's masking rules found in it: email, phone, cpf, … (sorted, each once).
    tools_offered           VARCHAR[],                  -- Names of the tools that a call of a model could ask for, each once.
    tools_called            VARCHAR[],                  -- Names of the tools that the answer of a call asks for, in order; called twice, it stands twice.
    day                     DATE                        -- UTC day of placement (partition); prune by true times, not by it.
);

-- One row per trace: what is said about the trace rather than about one of its spans.
CREATE TABLE trace_facts (
    trace_id                VARCHAR,                    -- The trace, as sent.
    timestamp               TIMESTAMP WITH TIME ZONE,   -- When the trace began, UTC.
    name                    VARCHAR,                    -- As said; else the root's name.
    user_id                 VARCHAR,                    -- The end user.
    session_id              VARCHAR,                    -- The conversation.
    tags                    VARCHAR[],                  -- Sorted, each once.
    release                 VARCHAR,                    -- The application's release.
    version                 VARCHAR,                    -- The trace's version.
    environment             VARCHAR,                    -- `default` where none was said.
    public                  BOOLEAN,                    -- Shared by its sender.
    metadata                MAP(VARCHAR, VARCHAR),      -- The sender's own keys; values that are not text are JSON.
    root_id                 VARCHAR,                    -- The observation that is the root.
    ingested_at             TIMESTAMP WITH TIME ZONE,   -- The stamp of the log object that first held it.
    _merge                  BYTEA,                      -- Which event decided which field; null for a row of one event whose time is the row's own.
    root_name               VARCHAR,                    -- The name of the root.
    sensitive_kinds         VARCHAR[],                  -- Kinds of sensitive text that the tenant's masking rules found in what is said of the trace itself.
    day                     DATE                        -- UTC day of placement (partition); prune by true times, not by it.
);

-- One row per score of a trace, an observation, a session or a run over a dataset.
CREATE TABLE scores (
    id                      VARCHAR,                    -- The score, as sent: unique in the tenant.
    trace_id                VARCHAR,                    -- The trace judged.
    observation_id          VARCHAR,                    -- The observation judged.
    session_id              VARCHAR,                    -- The session judged.
    timestamp               TIMESTAMP WITH TIME ZONE,   -- When it was given, UTC.
    name                    VARCHAR,                    -- What is judged: helpfulness, user_rating, …
    data_type               VARCHAR,                    -- NUMERIC, BOOLEAN, CATEGORICAL, TEXT or CORRECTION.
    value                   DOUBLE,                     -- Numeric value; 0 or 1 for boolean scores; a category's number, from its configuration.
    string_value            VARCHAR,                    -- Category, text or corrected output; True or False for boolean scores.
    source                  VARCHAR,                    -- API, EVAL or ANNOTATION.
    comment                 VARCHAR,                    -- The judge's words.
    config_id               VARCHAR,                    -- The score's configuration.
    environment             VARCHAR,                    -- `default` where none was said.
    metadata                MAP(VARCHAR, VARCHAR),      -- The sender's own keys.
    ingested_at             TIMESTAMP WITH TIME ZONE,   -- The stamp of the log object that first held it.
    _merge                  BYTEA,                      -- Which event decided which field; null for a row of one event whose time is the row's own.
    dataset_run_id          VARCHAR,                    -- The run over a dataset that is judged.
    queue_id                VARCHAR,                    -- The queue in which a person gave it.
    execution_trace_id      VARCHAR,                    -- The trace of the evaluation that gave it.
    sensitive_kinds         VARCHAR[],                  -- Kinds of sensitive text that the tenant's masking rules found in it.
    day                     DATE                        -- UTC day of placement (partition); prune by true times, not by it.
);

-- The books: sum(count) by day, door and outcome. received = stored + merged + rejected + erased, once all is flushed.
CREATE TABLE ledger (
    ingested_at             TIMESTAMP WITH TIME ZONE,   -- The stamp of the log object that held the requests counted.
    door                    VARCHAR,                    -- otlp-grpc, otlp-http, tracelake-grpc, langfuse-http; media, by whichever door.
    outcome                 VARCHAR,                    -- received, stored, merged, rejected, or erased before it was stored.
    reason                  VARCHAR,                    -- Why it was rejected.
    count                   BIGINT,                     -- Observations and scores; media of the door media.
    day                     DATE                        -- UTC day of placement (partition); prune by true times, not by it.
);
