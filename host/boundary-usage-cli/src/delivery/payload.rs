//! The payload of a delivery: a summary, the name of its schema, and what the numbers do not include.
//!
//! `docs/summary.schema.json` describes it.

use boundary_usage::{KeyFingerprint, Summary};
use serde::Serialize;
use sha2::{Digest, Sha256};
use uuid::Builder;

/// The name and version of the schema. Later versions only add fields.
const SCHEMA: &str = "boundary-usage/summary/1";

/// The JSON that a receiver gets.
#[derive(Serialize)]
pub(super) struct Payload<'a> {
    schema: &'static str,
    #[serde(flatten)]
    summary: &'a Summary,
    /// The usage that the numbers do not include. Empty if they are complete.
    incomplete: Vec<Incomplete>,
}

/// Usage that the numbers of a summary do not include.
#[derive(Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
enum Incomplete {
    /// Rows that exceeded the staleness limit of the collection.
    StaleRows { rows: u64, allowed_requests: u64, denied_requests: u64 },
    /// Logs that clients dropped.
    ClientDrops { logs: u64 },
}

impl<'a> Payload<'a> {
    pub(super) fn of(summary: &'a Summary) -> Self {
        let stale = (summary.stale_rows > 0).then_some(Incomplete::StaleRows {
            rows: summary.stale_rows,
            allowed_requests: summary.stale_allowed_requests,
            denied_requests: summary.stale_denied_requests,
        });
        let logs = summary.client_dropped_logs;
        let dropped = (logs > 0).then_some(Incomplete::ClientDrops { logs });
        Self { schema: SCHEMA, summary, incomplete: stale.into_iter().chain(dropped).collect() }
    }
}

/// Returns the id of a period's deliveries: a UUID of version 8 that depends on the deployment and the period only.
///
/// All attempts of all replicas have the same id, also after a backup of the database was restored. The start is part
/// of the id, because a restored database can use the number of a period again.
pub(super) fn webhook_id(deployment: &KeyFingerprint, summary: &Summary) -> String {
    let start = summary.period_start.timestamp_micros();
    let name = format!("boundary-usage: a delivery\0{deployment}\0{}\0{start}", summary.period_id);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&Sha256::digest(name)[..16]);
    Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use boundary_usage::HashingKey;
    use chrono::DateTime;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_payload_names_its_schema_the_stale_rows_and_the_dropped_logs() {
        let payload = |summary| serde_json::to_value(Payload::of(&summary)).unwrap();
        let complete = payload(Summary { allowed_requests: 5, ..Summary::default() });
        assert_eq!(complete["schema"], "boundary-usage/summary/1");
        assert_eq!((&complete["allowed_requests"], &complete["incomplete"]), (&json!(5), &json!([])));
        let stale = payload(Summary {
            stale_rows: 1,
            stale_allowed_requests: 2,
            stale_denied_requests: 3,
            client_dropped_logs: 4,
            ..Summary::default()
        });
        let row = json!({ "reason": "stale-rows", "rows": 1, "allowed_requests": 2, "denied_requests": 3 });
        assert_eq!(stale["incomplete"], json!([row, { "reason": "client-drops", "logs": 4 }]));
    }

    #[test]
    fn an_id_depends_on_the_deployment_and_the_period() {
        let id = |key, period_id, start| {
            let period_start = DateTime::from_timestamp(start, 0).unwrap();
            webhook_id(
                &KeyFingerprint::of(HashingKey(key, 2)),
                &Summary { period_id, period_start, ..Summary::default() },
            )
        };
        assert_eq!(id(1, 7, 0), id(1, 7, 0));
        for other in [id(2, 7, 0), id(1, 8, 0), id(1, 7, 1)] {
            assert_ne!(id(1, 7, 0), other);
        }
        assert_eq!(uuid::Uuid::parse_str(&id(1, 7, 0)).unwrap().get_version_num(), 8);
    }
}
