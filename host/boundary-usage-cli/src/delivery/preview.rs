//! The requests that a delivery would send.

use anyhow::{Result, anyhow};
use boundary_usage::{Database, KeyFingerprint};
use serde::Serialize;
use serde_json::value::RawValue;

use super::Endpoint;
use super::request::Composed;

/// A request that has not been sent. It contains neither the token nor the path of the URL, which are secrets.
#[derive(Serialize)]
pub struct Preview {
    /// The period.
    pub period_id: i64,
    /// The receiver's scheme, host and port.
    pub server: String,
    /// The headers that depend on the summary, with lower-case names.
    pub headers: Vec<(&'static str, String)>,
    /// The body, byte for byte.
    pub body: Box<RawValue>,
}

/// Returns the requests for all undelivered summaries, oldest first. Changes nothing.
///
/// # Errors
///
/// Returns an error if the database or the file with the secrets cannot be read.
pub async fn preview(database: &Database, endpoint: &Endpoint) -> Result<Vec<Preview>> {
    let deployment: KeyFingerprint = database.key_fingerprint().await?;
    let status = database.full_status().await?;
    let undelivered = status.periods.iter().rev().filter(|period| period.delivered_at.is_none());
    let compose = |period: &boundary_usage::PeriodStatus| {
        let Composed { headers, body } =
            endpoint.compose(&deployment, &period.summary).map_err(|error| anyhow!(error))?;
        let period_id = period.summary.period_id;
        Ok(Preview { period_id, server: endpoint.server(), headers, body: RawValue::from_string(body)? })
    };
    undelivered.map(compose).collect()
}
