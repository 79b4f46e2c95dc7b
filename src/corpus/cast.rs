//! Who plays: the models, the applications, the tools, the customers and the ways things fail.

/// A model as its provider names it. Prices are picodollars per token, for costs the client says itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Model {
    pub(super) name: &'static str,
    /// As `gen_ai.provider.name` has it.
    pub(super) provider: &'static str,
    /// How many of a hundred traces use it.
    pub(super) weight: u64,
    pub(super) input_price: i64,
    pub(super) cached_input_price: i64,
    pub(super) output_price: i64,
    pub(super) reasons: bool,
    pub(super) first_token_ms: f64,
    pub(super) tokens_per_second: f64,
}

#[rustfmt::skip]
pub(super) const MODELS: &[Model] = &[
    model("gpt-4o-mini", "openai", 26, [150_000, 75_000, 600_000], false, 380.0, 85.0),
    model("gpt-4o", "openai", 13, [2_500_000, 1_250_000, 10_000_000], false, 520.0, 70.0),
    model("claude-sonnet-4-20250514", "anthropic", 13, [3_000_000, 300_000, 15_000_000], false, 900.0, 62.0),
    model("gemini-2.5-flash", "gcp.gemini", 11, [300_000, 75_000, 2_500_000], true, 420.0, 160.0),
    model("gpt-4.1", "openai", 9, [2_000_000, 500_000, 8_000_000], false, 560.0, 78.0),
    model("claude-3-5-haiku-20241022", "anthropic", 7, [800_000, 80_000, 4_000_000], false, 610.0, 60.0),
    model("gemini-2.5-pro", "gcp.gemini", 5, [1_250_000, 310_000, 10_000_000], true, 2_400.0, 110.0),
    model("deepseek-chat", "deepseek", 5, [270_000, 70_000, 1_100_000], false, 1_100.0, 34.0),
    model("llama-3.3-70b-versatile", "groq", 4, [590_000, 590_000, 790_000], false, 190.0, 280.0),
    model("mistral-large-latest", "mistral_ai", 3, [2_000_000, 2_000_000, 6_000_000], false, 640.0, 48.0),
    model("o4-mini", "openai", 2, [1_100_000, 275_000, 4_400_000], true, 3_800.0, 120.0),
    model("qwen3-14b-local", "ollama", 2, [0, 0, 0], false, 260.0, 28.0),
];

pub(super) const EMBEDDING: Model = model("text-embedding-3-small", "openai", 0, [20_000, 20_000, 0], false, 90.0, 0.0);

const fn model(
    name: &'static str,
    provider: &'static str,
    weight: u64,
    [input_price, cached_input_price, output_price]: [i64; 3],
    reasons: bool,
    first_token_ms: f64,
    tokens_per_second: f64,
) -> Model {
    Model {
        name,
        provider,
        weight,
        input_price,
        cached_input_price,
        output_price,
        reasons,
        first_token_ms,
        tokens_per_second,
    }
}

/// How an application's traces are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// One generation and nothing else.
    Single,
    /// A chain of one to three generations.
    Pipeline,
    /// Embed the question, retrieve, answer.
    Retrieval,
    /// Rounds of a generation and its tools, the history growing.
    Agent,
    /// Many embeddings in a row.
    Index,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct App {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) feature: &'static str,
    pub(super) input_tokens: f64,
    pub(super) output_tokens: f64,
}

/// Most used first.
pub(super) const APPS: &[App] = &[
    app("support-chat", Shape::Agent, "support", 900.0, 180.0),
    app("answer-question", Shape::Retrieval, "search", 2_600.0, 260.0),
    app("classify-intent", Shape::Single, "routing", 420.0, 12.0),
    app("summarize-ticket", Shape::Single, "support", 1_900.0, 210.0),
    app("messaging-ai-response", Shape::Pipeline, "messaging", 650.0, 95.0),
    app("code-review", Shape::Agent, "engineering", 5_200.0, 520.0),
    app("extract-invoice", Shape::Pipeline, "finance", 3_100.0, 340.0),
    app("draft-email", Shape::Single, "sales", 780.0, 320.0),
    app("research-agent", Shape::Agent, "research", 3_400.0, 610.0),
    app("index-documents", Shape::Index, "search", 1_100.0, 0.0),
    app("mobile-ai-interaction", Shape::Single, "mobile", 300.0, 110.0),
    app("translate-text", Shape::Single, "localization", 850.0, 800.0),
    app("sql-assistant", Shape::Agent, "analytics", 2_900.0, 150.0),
    app("alert-investigator", Shape::Agent, "operations", 2_200.0, 280.0),
];

const fn app(name: &'static str, shape: Shape, feature: &'static str, input_tokens: f64, output_tokens: f64) -> App {
    App { name, shape, feature, input_tokens, output_tokens }
}

pub(super) const TOOLS: &[&str] = &[
    "search_orders",
    "get_weather",
    "run_sql",
    "fetch_page",
    "read_file",
    "create_ticket",
    "lookup_customer",
    "calculator",
];

pub(super) const ACCOUNTS: &[&str] = &[
    "northwind",
    "globex",
    "initech",
    "umbra",
    "hooli-labs",
    "vandelay",
    "wonka-foods",
    "tyrell",
    "stark-retail",
    "acme",
    "sirius",
    "oceanic",
];
pub(super) const CHANNELS: &[&str] = &["web", "web", "api", "whatsapp", "mobile", "slack"];
pub(super) const PLANS: &[&str] = &["free", "free", "pro", "pro", "enterprise"];
pub(super) const RELEASES: &[&str] = &["2026.11.2", "2026.11.2", "2026.11.1", "2026.10.4"];

#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: &'static str,
    pub(super) message: &'static str,
}

/// The most common first; drawn by zipf.
pub(super) const MODEL_FAILURES: &[Failure] = &[
    Failure { kind: "RateLimitError", message: "rate limit reached: try again in 2 s" },
    Failure { kind: "APITimeoutError", message: "the request timed out after 60 s" },
    Failure { kind: "BadRequestError", message: "the messages are longer than the model's context window" },
    Failure { kind: "InternalServerError", message: "the provider is overloaded" },
    Failure { kind: "ContentFilterError", message: "the answer was withheld by the content policy" },
];
pub(super) const TOOL_FAILURES: &[Failure] = &[
    Failure { kind: "ToolTimeout", message: "the tool did not answer within 10 s" },
    Failure { kind: "HTTPStatusError", message: "503 Service Unavailable" },
    Failure { kind: "ValidationError", message: "1 field is missing: order_id" },
];
