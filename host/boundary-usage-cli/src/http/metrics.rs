//! The status of the replica as Prometheus metrics: names, units and help texts.
//!
//! This module counts nothing. At each scrape, it reads the numbers of the tracker and the sockets, so metrics and
//! status cannot differ. The dashboard and alerts in `deploy/` depend on the names and labels.

use boundary_usage::{Ages, CheckpointStatus, FlushDurations, TrackerStatus};
use chrono::{DateTime, TimeDelta, Utc};
use prometheus::TextEncoder;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::view::{LocalStatus, SocketTotals};

/// Returns the response to a scrape.
pub(super) fn text(local: &LocalStatus, ages: Option<Ages>) -> String {
    let version = [("version", local.version, 1.0)];
    let mut families = vec![gauge("build_info", "Version of the program, as a label. Always 1.", version)];
    if let Some(tracker) = &local.tracker {
        families.extend(of_tracker(tracker));
        families.extend(tracker.checkpoint.iter().flat_map(|checkpoint| of_checkpoint(checkpoint, local.at)));
    }
    if let Some(sockets) = &local.sockets {
        families.extend(of_sockets(sockets));
    }
    families.extend(ages.iter().flat_map(of_ages));
    TextEncoder::new().encode_to_string(&families).expect("each family has a name and a metric")
}

fn of_tracker(tracker: &TrackerStatus) -> Vec<MetricFamily> {
    let mut families = vec![
        counter(
            "activities_total",
            "Accepted activities. An activity is a batch of requests of one workspace and owner.",
            one(tracker.activities),
        ),
        counter(
            "flushes_total",
            "Flushes by outcome: written to the database, idle because there was no activity, or failed.",
            by(
                "outcome",
                [("written", tracker.flushes), ("idle", tracker.idle_flushes), ("failed", tracker.failed_flushes)],
            ),
        ),
        histogram(
            "flush_duration_seconds",
            "Duration of flushes that were not idle, including failed flushes.",
            &tracker.flush_durations,
        ),
        gauge(
            "intake_activities",
            "Activities that wait for the component. Those of one workspace and owner count as one.",
            one(tracker.intake_depth as u64),
        ),
        gauge(
            "intake_capacity_activities",
            "Limit of activities that wait for the component. At the limit, clients wait.",
            one(tracker.intake_capacity as u64),
        ),
        gauge(
            "pending_activities",
            "Accepted activities that are not in the database yet.",
            one(tracker.pending_activities),
        ),
        counter(
            "forgotten_flushes_total",
            "Confirmed flushes that the database lost, because a backup was restored or a standby lagged behind.",
            one(tracker.forgotten_flushes),
        ),
        counter("component_restarts_total", "Restarts of the component after a failure.", one(tracker.restarts)),
        gauge(
            "component_consecutive_failures",
            "Failures of the component since the last flush that succeeded.",
            one(u64::from(tracker.consecutive_restarts)),
        ),
        gauge(
            "component_restart_wait_seconds",
            "Wait before the next restart of a failed component. 0 while a component runs.",
            one(tracker.restart_wait_ms.unwrap_or_default()).map(|(name, value, wait)| (name, value, wait / 1_000.0)),
        ),
    ];
    families.extend(tracker.last_success.map(|time| {
        let help = "Time of the last successful flush. Missing before the first one.";
        gauge("flush_last_success_timestamp_seconds", help, [("", "", seconds(time))])
    }));
    families
}

fn of_checkpoint(checkpoint: &CheckpointStatus, now: DateTime<Utc>) -> [MetricFamily; 2] {
    let age = (now - checkpoint.complete_at).num_milliseconds().max(0) as f64 / 1_000.0;
    let writes = [("written", checkpoint.written), ("failed", checkpoint.failed)];
    [
        gauge(
            "checkpoint_age_seconds",
            "Age of the newest complete checkpoint: what a crash would lose.",
            [("", "", age)],
        ),
        counter("checkpoint_writes_total", "Writes of the checkpoint by outcome.", by("outcome", writes)),
    ]
}

fn of_sockets(sockets: &SocketTotals) -> [MetricFamily; 11] {
    let decisions = [("allowed", sockets.allowed), ("denied", sockets.denied)];
    let dropped = [("channel_full", sockets.dropped_channel_full), ("batch_full", sockets.dropped_batch_full)];
    [
        gauge("sockets", "Audit sockets that this process serves.", one(sockets.sockets)),
        gauge(
            "sockets_unavailable",
            "Audit sockets to which no client can connect, because their file was removed or replaced.",
            one(sockets.unavailable),
        ),
        counter("client_connections_total", "Connections of clients to audit sockets.", one(sockets.connections)),
        counter(
            "client_connections_without_frame_total",
            "Connections that ended without a frame. Many of them suggest a stuck client.",
            one(sockets.connections_without_frame),
        ),
        counter("requests_total", "Requests that clients reported, by decision.", by("decision", decisions)),
        counter(
            "client_dropped_logs_total",
            "Logs that clients dropped: their queue was full, or their batch was full without a connection.",
            by("reason", dropped),
        ),
        counter(
            "skipped_logs_total",
            "Logs not counted because their resource was missing or unknown.",
            one(sockets.skipped_logs),
        ),
        counter(
            "refused_batches_total",
            "Batches not counted because they contained too many logs.",
            one(sockets.refused_batches),
        ),
        counter(
            "undecodable_frames_total",
            "Frames not counted because their message could not be decoded.",
            one(sockets.undecodable_frames),
        ),
        counter(
            "malformed_frames_total",
            "Connections closed because of a malformed frame.",
            one(sockets.malformed_frames),
        ),
        counter(
            "left_requests_total",
            "Requests received but not counted, because the tracker did not accept them during the stop.",
            one(sockets.left_requests),
        ),
    ]
}

fn of_ages(ages: &Ages) -> [MetricFamily; 2] {
    let seconds = |age: TimeDelta| [("", "", age.num_milliseconds() as f64 / 1_000.0)];
    [
        gauge(
            "open_period_age_seconds",
            "Age of the open period in the database. Negative if the database's clock was set back.",
            seconds(ages.open_period),
        ),
        gauge(
            "oldest_undelivered_age_seconds",
            "Time since the end of the oldest period whose summary is undelivered. 0 if there is none.",
            seconds(ages.oldest_undelivered.unwrap_or_default()),
        ),
    ]
}

/// A label's name, its value, and a number.
type Sample<'a> = (&'a str, &'a str, f64);

/// Returns one sample without a label.
fn one(number: u64) -> [Sample<'static>; 1] {
    [("", "", number as f64)]
}

fn by<'a, const N: usize>(label: &'a str, numbers: [(&'a str, u64); N]) -> [Sample<'a>; N] {
    numbers.map(|(value, number)| (label, value, number as f64))
}

fn seconds(time: DateTime<Utc>) -> f64 {
    time.timestamp_millis() as f64 / 1_000.0
}

fn counter<'a>(name: &str, help: &str, samples: impl IntoIterator<Item = Sample<'a>>) -> MetricFamily {
    family(name, help, MetricType::COUNTER, samples, |metric, number| {
        let mut counter = Counter::default();
        counter.set_value(number);
        metric.set_counter(counter);
    })
}

fn gauge<'a>(name: &str, help: &str, samples: impl IntoIterator<Item = Sample<'a>>) -> MetricFamily {
    family(name, help, MetricType::GAUGE, samples, |metric, number| {
        let mut gauge = Gauge::default();
        gauge.set_value(number);
        metric.set_gauge(gauge);
    })
}

fn histogram(name: &str, help: &str, durations: &FlushDurations) -> MetricFamily {
    let buckets = durations.buckets.iter().map(|&(bound, count)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(count);
        bucket
    });
    family(name, help, MetricType::HISTOGRAM, one(durations.count), |metric, _| {
        let mut histogram = Histogram::default();
        histogram.set_sample_count(durations.count);
        histogram.set_sample_sum(durations.sum_seconds);
        histogram.set_bucket(buckets.clone().collect());
        metric.set_histogram(histogram);
    })
}

fn family<'a>(
    name: &str,
    help: &str,
    kind: MetricType,
    samples: impl IntoIterator<Item = Sample<'a>>,
    set: impl Fn(&mut Metric, f64),
) -> MetricFamily {
    let metrics = samples.into_iter().map(|(label, value, number)| {
        let mut metric = Metric::default();
        if !label.is_empty() {
            let mut pair = LabelPair::default();
            pair.set_name(label.to_owned());
            pair.set_value(value.to_owned());
            metric.set_label(vec![pair]);
        }
        set(&mut metric, number);
        metric
    });
    let mut family = MetricFamily::default();
    family.set_name(format!("boundary_usage_{name}"));
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics.collect());
    family
}

#[cfg(test)]
mod tests {
    use super::super::view::State;
    use super::*;

    fn tracker(restarts: u64, restart_wait_ms: Option<u64>, complete_at: DateTime<Utc>) -> TrackerStatus {
        TrackerStatus {
            replica: uuid::Uuid::from_u128(1),
            activities: 7,
            waiting_activities: 3,
            intake_depth: 3,
            intake_capacity: 10,
            pending_activities: 5,
            flushes: 1,
            confirmed_flushes: 1,
            idle_flushes: 2,
            failed_flushes: 4,
            forgotten_flushes: 3,
            flush_durations: FlushDurations::default(),
            last_success: Some(DateTime::UNIX_EPOCH),
            last_error: None,
            restarts,
            consecutive_restarts: 2,
            last_restart: None,
            restart_wait_ms,
            stopped: false,
            checkpoint: Some(CheckpointStatus {
                path: "state/checkpoint".into(),
                restored: false,
                written: 8,
                failed: 6,
                complete_at,
                last_error: None,
            }),
        }
    }

    fn local(tracker: TrackerStatus) -> LocalStatus {
        let at = DateTime::from_timestamp_millis(90_500).unwrap();
        let (state, tracker) = (State::Running, Some(tracker));
        LocalStatus {
            version: "1.2.3",
            at,
            state,
            connection_failure: None,
            tracker,
            sockets: None,
            socket_fault: None,
        }
    }

    #[test]
    fn a_component_that_fails_repeatedly_is_reported_as_not_ready() {
        let failing = local(tracker(2, Some(1_600), DateTime::UNIX_EPOCH));
        let text = text(&failing, None);
        for line in [
            "boundary_usage_component_restarts_total 2",
            "boundary_usage_component_consecutive_failures 2",
            "boundary_usage_component_restart_wait_seconds 1.6",
            "boundary_usage_forgotten_flushes_total 3",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
        }
        assert!(failing.not_ready().unwrap().contains("replaced after 1600 ms"));
        assert_eq!(local(tracker(2, None, DateTime::UNIX_EPOCH)).not_ready(), None);
        let stopped = TrackerStatus { stopped: true, ..tracker(0, None, DateTime::UNIX_EPOCH) };
        assert!(local(stopped).not_ready().unwrap().contains("tracker panicked"));
    }

    #[test]
    fn the_checkpoint_age_is_the_age_of_the_newest_complete_one() {
        let text = text(&local(tracker(0, None, DateTime::from_timestamp_secs(90).unwrap())), None);
        assert!(text.contains("\nboundary_usage_checkpoint_age_seconds 0.5\n"), "{text}");
        assert!(text.contains("\nboundary_usage_checkpoint_writes_total{outcome=\"failed\"} 6\n"), "{text}");
    }

    #[test]
    fn every_metric_has_a_help_text_a_type_and_a_conventional_name() {
        let ages = Ages { open_period: TimeDelta::seconds(-5), oldest_undelivered: Some(TimeDelta::minutes(2)) };
        let text = text(&local(tracker(0, None, DateTime::UNIX_EPOCH)), Some(ages));
        assert!(text.contains("\nboundary_usage_open_period_age_seconds -5\n"), "{text}");
        assert!(text.contains("\nboundary_usage_oldest_undelivered_age_seconds 120\n"), "{text}");
        let types: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
        assert_eq!(types.len(), text.lines().filter(|line| line.starts_with("# HELP ")).count());
        for (name, kind) in types {
            assert!(name.starts_with("boundary_usage_"), "{name}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
        }
    }
}
