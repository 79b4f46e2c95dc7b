//! What the demo shows: answers of one tenant, the bill of all, and what to try next.

use std::io::Write;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{DemoTarget, DemoTenant, Visit};
use crate::cli::{CliError, numbers, tables};
use crate::wire::{
    CostBreakdownRequest, LatencyPercentilesRequest, MetricsResponse, TimeBucket, TimeSeriesRequest, TimeUnit, View,
};

pub(super) async fn print(
    target: &DemoTarget,
    visits: &[Visit<'_>],
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let Some(visit) = visits.first() else { return Ok(()) };
    answers(visit, out).await?;
    all_counted(visits, out)?;
    next_steps(target, visit.tenant, out)
}

async fn answers(visit: &Visit<'_>, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    let (connection, tenant) = (&visit.connection, &visit.tenant.name);
    let (range, last_day) = (visit.load.range(), visit.load.last_day());

    let asked = Instant::now();
    let costs = connection.cost_breakdown(CostBreakdownRequest { range: Some(range), ..Default::default() }).await?;
    section(out, &format!("{tenant}: what it cost, by model"), asked, &tables::metrics(&costs))?;

    let asked = Instant::now();
    let by_model = LatencyPercentilesRequest { range: Some(range), ..Default::default() };
    let latencies = connection.latency_percentiles(by_model).await?;
    section(out, &format!("{tenant}: how slow the models were"), asked, &tables::metrics(&latencies))?;

    let asked = Instant::now();
    let by_trace = LatencyPercentilesRequest { range: Some(range), view: View::Traces as i32, ..Default::default() };
    let latencies = connection.latency_percentiles(by_trace).await?;
    section(out, &format!("{tenant}: how slow whole traces were, by name"), asked, &tables::metrics(&latencies))?;

    let asked = Instant::now();
    let hourly = TimeBucket { unit: TimeUnit::Hour as i32, ..Default::default() };
    let series = TimeSeriesRequest { range: Some(last_day), bucket: Some(hourly), ..Default::default() };
    let series: MetricsResponse = connection.time_series(series).await?;
    section(out, &format!("{tenant}: the last 24 hours"), asked, tables::sparklines(&series).trim_end())
}

fn section(out: &mut (dyn Write + Send), title: &str, asked: Instant, body: &str) -> Result<(), CliError> {
    let took = numbers::duration(asked.elapsed().as_secs_f64() * 1e3);
    Ok(writeln!(out, "{title}  ({took})\n{body}\n")?)
}

/// Said only after the check found no difference.
fn all_counted(visits: &[Visit<'_>], out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    let mut table = tables::bare();
    table.set_header([
        comfy_table::Cell::new("tenant"),
        tables::right("observations"),
        tables::right("traces"),
        tables::right("errors"),
        tables::right("tokens"),
        comfy_table::Cell::new("counted once"),
    ]);
    for visit in visits {
        let facts = visit.load.facts();
        table.add_row([
            comfy_table::Cell::new(&visit.tenant.name),
            tables::right(numbers::count(facts.observations as i64)),
            tables::right(numbers::count(facts.traces as i64)),
            tables::right(numbers::count(facts.errors as i64)),
            tables::right(numbers::count(facts.model_total().total_tokens())),
            comfy_table::Cell::new("✓ exactly"),
        ]);
    }
    Ok(writeln!(out, "Sent and counted, late and repeated spans included\n{table}\n")?)
}

const QUESTION: &str = "SELECT model, count(*) AS calls, sum(total_cost) AS cost FROM observations WHERE model IS NOT NULL \
     GROUP BY model ORDER BY cost DESC NULLS LAST";
/// Where a server listens that is told nothing else.
const USUAL_GRPC_ADDR: &str = "127.0.0.1:4317";

fn next_steps(target: &DemoTarget, tenant: &DemoTenant, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    let DemoTarget { data, program, .. } = target;
    let DemoTenant { name, public_key, secret_key } = tenant;
    let token = STANDARD.encode(format!("{public_key}:{secret_key}"));
    let range = format!(
        "{{\"range\":{{\"from_unix_micros\":{},\"to_unix_micros\":{}}}}}",
        target.now_us - crate::base::Day::US,
        target.now_us
    );
    let data = data.trim_end_matches('/');
    let files = format!("{data}/tenants/{name}/observations/day=*/*.parquet");
    writeln!(out, "The tables are open Delta/Parquet:\n  {files}\n")?;
    writeln!(out, "Try, without a server")?;
    writeln!(out, "  {program} sql --data {data} --tenant {name} \"{QUESTION}\"")?;
    writeln!(out, "  {program} sql --data {data} --tenant {name}")?;
    writeln!(out, "  duckdb -c \"SELECT model, count(*), sum(total_cost) FROM '{files}' GROUP BY model\"")?;
    let grpc_addr = if target.keeps_serving {
        writeln!(out, "or ask this one")?;
        target.grpc_addr.as_str()
    } else {
        writeln!(out, "or with one\n  {program} serve --data {data}")?;
        USUAL_GRPC_ADDR
    };
    writeln!(out, "  export TRACELAKE_PUBLIC_KEY={public_key} TRACELAKE_SECRET_KEY={secret_key}")?;
    writeln!(out, "  {program} sql --server {grpc_addr} \"{QUESTION}\"")?;
    writeln!(
        out,
        "  grpcurl -plaintext -H 'authorization: Basic {token}' -d '{range}' {grpc_addr} \
         tracelake.v1.MetricsService/CostBreakdown"
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hints(keeps_serving: bool) -> String {
        let tenant = DemoTenant { name: "acme".into(), public_key: "pk-lf-1".into(), secret_key: "sk-lf-2".into() };
        let target = DemoTarget {
            grpc_addr: "127.0.0.1:9999".into(),
            tenants: vec![tenant.clone()],
            data: "./tracelake-demo/".into(),
            observations: 100,
            now_us: 1_795_000_000_000_000,
            program: "tracelake".into(),
            keeps_serving,
        };
        let mut out = Vec::new();
        next_steps(&target, &tenant, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_hints_can_be_pasted_as_they_stand() {
        let text = hints(false);
        assert!(text.contains("\n  ./tracelake-demo/tenants/acme/observations/day=*/*.parquet\n"), "{text}");
        assert!(text.contains("\n  tracelake sql --data ./tracelake-demo --tenant acme \"SELECT model, "), "{text}");
        assert!(text.contains("-H 'authorization: Basic cGstbGYtMTpzay1sZi0y' -d '{\"range\":{\"from_unix_micros\":"));
    }

    #[test]
    fn a_server_that_is_gone_is_not_recommended() {
        assert!(!hints(false).contains("9999") && hints(false).contains("tracelake serve --data ./tracelake-demo\n"));
        assert!(hints(true).contains("tracelake sql --server 127.0.0.1:9999 \"SELECT model, "));
    }
}
