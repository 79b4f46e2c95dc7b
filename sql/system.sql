-- What a tenant may know about its own tables. Written from src/query/system_tables.rs by
-- `TRACELAKE_BLESS=1 cargo test schema`; a test holds the two equal.

-- One row per live Parquet file of this tenant's tables. What is acked but not in a file yet is not in it.
CREATE TABLE files (
    table_name              VARCHAR,                    -- The table the file belongs to.
    path                    VARCHAR,                    -- Where it is, below the table's folder.
    day                     DATE,                       -- UTC day of placement (partition).
    rows                    BIGINT,                     -- Rows in it.
    bytes                   BIGINT,                     -- Its size.
    time_min                TIMESTAMP WITH TIME ZONE,   -- The earliest time of a row; null where it is not known.
    time_max                TIMESTAMP WITH TIME ZONE,   -- The latest.
    footer_bytes            BIGINT,                     -- Size of its Parquet footer.
    index_id                VARCHAR,                    -- The _index object that holds its key filter.
    added_version           BIGINT,                     -- The version of the table that made it live; null where it is not known.
    added_at                TIMESTAMP WITH TIME ZONE,   -- When that was.
    rollup_bytes            BIGINT                      -- Size of its roll-ups, which metrics questions are answered by; null where it has none.
);

-- One row per erasure of this tenant's, with its receipt once the last copy is gone.
CREATE TABLE erasures (
    id                      VARCHAR,                    -- The erasure.
    kind                    VARCHAR,                    -- trace, session, user, tenant or score.
    subjects                VARCHAR,                    -- Traces by their ids, sessions and users by digests; joined by commas.
    state                   VARCHAR,                    -- asked, masked (no answer shows it), rewritten (no live file holds it) or done.
    asked_by                VARCHAR,                    -- The public key that asked; tracelake itself for traces that were named as a forgotten user's later.
    asked_at                TIMESTAMP WITH TIME ZONE,   -- When that was.
    refused_until           TIMESTAMP WITH TIME ZONE,   -- What is said about it is refused until then; longer while files hold it.
    rewritten_at            TIMESTAMP WITH TIME ZONE,   -- When no live file held it any more.
    done_at                 TIMESTAMP WITH TIME ZONE,   -- When the last copy was seen to be gone.
    observations            BIGINT,                     -- Rows taken out of observations; some of them may have been in no file yet.
    observation_io          BIGINT,                     -- Rows taken out of observation_io.
    trace_facts             BIGINT,                     -- Rows taken out of trace_facts.
    scores                  BIGINT,                     -- Rows taken out of scores.
    files_rewritten         BIGINT,                     -- Files written again without it.
    copies                  BIGINT                      -- Objects that held it, or may have, after no live one did.
);

-- One row per rate that rows are priced by now: this tenant's own, which come first, and those the server brings along.
CREATE TABLE prices (
    model_id                VARCHAR,                    -- The book's name for the model; observations say it in model_id.
    is_own                  BOOLEAN,                    -- Of the tenant's own book.
    providers               VARCHAR,                    -- Who sells it at this price; joined by commas.
    pattern                 VARCHAR,                    -- Regular expression for the whole of the names it goes by, whatever the case.
    valid_from              TIMESTAMP WITH TIME ZONE,   -- From when on, by the start of the call; null: ever.
    tier                    VARCHAR,                    -- The first tier of a price whose conditions hold is used.
    tier_place              BIGINT,                     -- Its place among the tiers of the price, from 1.
    input_tokens_above      BIGINT,                     -- It holds above so many input tokens; null: for any number.
    service_tiers           VARCHAR,                    -- It holds for these service tiers, joined by commas; null: for all.
    speeds                  VARCHAR,                    -- It holds for these speeds, joined by commas; null: for all.
    kind                    VARCHAR,                    -- What is counted: input, cached_input, output, requests, duration_seconds, …
    usd                     DECIMAL(18,12),             -- US dollars for so many of them as per says.
    per                     BIGINT,                     -- 1000000 for tokens, 1 for most else.
    price_id                VARCHAR                     -- As it stands in observations.price_id: book/model/valid-from/tier.
);

-- Who called for what of this tenant's: one row per key, door, method, query and outcome of a minute (of the way in: an hour). What other nodes answered shows within five minutes (the way in: six hours).
CREATE TABLE audit (
    period_start            TIMESTAMP WITH TIME ZONE,   -- The minute the calls began in; of the way in the hour.
    first_at                TIMESTAMP WITH TIME ZONE,   -- When the first of them began.
    last_at                 TIMESTAMP WITH TIME ZONE,   -- When the last of them began.
    public_key              VARCHAR,                    -- Whose key was shown.
    door                    VARCHAR,                    -- otlp-grpc, sql-grpc, langfuse-http, …: as in ledger.door.
    method                  VARCHAR,                    -- The gRPC service and method, or the HTTP method and the pattern of its path.
    query                   VARCHAR,                    -- What was asked for, without values; null for calls that ask nothing, or were not understood.
    outcome                 VARCHAR,                    -- ok, or the name of the code they were refused with.
    calls                   BIGINT,                     -- How many they were.
    duration_ms             BIGINT                      -- Until their answers began, all together.
);

-- One row per medium of this tenant's: an image, a sound, a document that a client took out of an input, an output or metadata, and left `@@@langfuseMedia:type=…|id=…|source=…@@@` there. GET /api/public/media/{id}/content has its bytes.
CREATE TABLE media (
    id                      VARCHAR,                    -- As in the reference: the beginning of the hash of its bytes.
    content_type            VARCHAR,                    -- Its media type: image/png, application/pdf, …
    bytes                   BIGINT,                     -- How large it is.
    uploaded_at             TIMESTAMP WITH TIME ZONE,   -- When its bytes came.
    traces                  BIGINT                      -- How many traces mention it.
);

-- What the tenant's masking rules found, by day, kind, model and user: a view over sensitive_kinds of observations, trace_facts and scores.
CREATE TABLE sensitive_use (
    day                     DATE,                       -- UTC day the observation began, the trace began, or the score was given.
    kind                    VARCHAR,                    -- The rule that found it: email, phone, cpf, …
    model                   VARCHAR,                    -- The model as its sender names it; null for traces and scores.
    user_id                 VARCHAR,                    -- The end user; null for scores.
    found_in                VARCHAR,                    -- observations, trace_facts or scores.
    rows                    BIGINT                      -- How many of them.
);
