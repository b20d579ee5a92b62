//! How a log line is written: for eyes, or as one JSON object.
//!
//! The trace id comes from the call that the line belongs to, so that no code has to name it.

use std::fmt::{self, Write as _};

use serde_json::{Map, Value};
use time::format_description::well_known::Rfc3339;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use crate::{clock, ctx::Ctx};

/// `2026-01-31T12:00:00Z INFO orders: message key=value trace=…`
#[derive(Clone, Copy, Debug)]
pub(super) struct Pretty;

/// One JSON object a line, with `time`, `level`, `service`, `target`, `message`, `trace_id`.
#[derive(Clone, Debug)]
pub(super) struct Json {
    /// The name of the process.
    pub(super) service: Box<str>,
}

/// The fields of an event, the message apart.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

// === impl Pretty ===

impl<S, N> FormatEvent<S, N> for Pretty
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let fields = Fields::of(event);
        let (level, target) = (event.metadata().level(), event.metadata().target());
        write!(writer, "{} {level:>5} {target}: {}", now(), fields.message)?;
        for (name, value) in &fields.others {
            write!(writer, " {name}={value}")?;
        }
        if let Some(ctx) = Ctx::current() {
            write!(writer, " trace={}", ctx.trace_id())?;
        }
        writeln!(writer)
    }
}

// === impl Json ===

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Fields { message, others } = Fields::of(event);
        let mut line = Map::new();
        line.insert("time".to_owned(), now().into());
        line.insert("level".to_owned(), event.metadata().level().as_str().into());
        line.insert("service".to_owned(), (*self.service).into());
        line.insert("target".to_owned(), event.metadata().target().into());
        line.insert("message".to_owned(), message.into());
        if let Some(ctx) = Ctx::current() {
            line.insert("trace_id".to_owned(), ctx.trace_id().into());
            line.insert("span_id".to_owned(), ctx.trace().span_id().into());
        }
        line.extend(others);
        writeln!(writer, "{}", Value::Object(line))
    }
}

// === impl Fields ===

impl Fields {
    fn of(event: &Event<'_>) -> Self {
        let mut fields = Self::default();
        event.record(&mut fields);
        fields
    }

    fn keep(&mut self, field: &Field, value: Value) {
        self.others.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing into a string cannot fail.
            let _written = write!(self.message, "{value:?}").is_ok();
        } else {
            self.keep(field, format!("{value:?}").into());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.keep(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.keep(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.keep(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.keep(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.keep(field, value.into());
    }
}

fn now() -> String {
    clock::now().format(&Rfc3339).unwrap_or_default()
}
