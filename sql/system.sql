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
    added_at                TIMESTAMP WITH TIME ZONE    -- When that was.
);
