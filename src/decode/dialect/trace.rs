//! Keys that say something about the trace: who, where, which release.

use super::{Row, Slot, row};

#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    row(Slot::TraceName, &["langfuse.trace.name"]),
    row(Slot::TraceInput, &["langfuse.trace.input"]),
    row(Slot::TraceOutput, &["langfuse.trace.output"]),
    row(Slot::TraceMetadata, &["langfuse.trace.metadata"]),
    row(Slot::UserId, &[
        "langfuse.user.id", "user.id", "langfuse.observation.metadata.langfuse_user_id",
        "langfuse.trace.metadata.langfuse_user_id", "ai.telemetry.metadata.userId", "enduser.id",
        "ai.settings.context.userId", "traceloop.association.properties.user_id",
        "traceloop.association.properties.userId", "llm.user", "mlflow.trace.user",
    ]),
    // A conversation id is per agent run with some senders, so it comes after a session id.
    row(Slot::SessionId, &[
        "langfuse.session.id", "session.id", "gen_ai.conversation.id",
        "langfuse.observation.metadata.langfuse_session_id", "langfuse.trace.metadata.langfuse_session_id",
        "ai.telemetry.metadata.sessionId", "ai.settings.context.sessionId",
        "traceloop.association.properties.session_id", "traceloop.association.properties.sessionId",
        "gcp.vertex.agent.session_id", "genkit:sessionId", "mlflow.trace.session",
    ]),
    row(Slot::Tags, &[
        "langfuse.trace.tags", "langfuse.tags", "langfuse.observation.metadata.langfuse_tags",
        "langfuse.trace.metadata.langfuse_tags", "ai.telemetry.metadata.tags", "tag.tags", "ai.settings.context.tags",
        "logfire.tags", "tags",
    ]),
    row(Slot::Environment, &["langfuse.environment", "deployment.environment.name", "deployment.environment"]),
    row(Slot::Release, &["langfuse.release"]),
    row(Slot::Version, &["langfuse.version"]),
    row(Slot::Public, &["langfuse.trace.public", "langfuse.public"]),
    row(Slot::RootMark, &["langfuse.internal.is_app_root", "langfuse.internal.as_root"]),
    row(Slot::ServiceName, &["service.name"]),
    row(Slot::ServiceVersion, &["service.version"]),
];
