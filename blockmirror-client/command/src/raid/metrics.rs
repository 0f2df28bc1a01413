//! Metrics of arrays, for Prometheus.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus::{Encoder, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};
use raid1_glue::md::watch::Event;
use raid1_glue::md::{Report, Standing};
use tokio::net::TcpListener;

use crate::failure::Failure;

/// The one label.
const ARRAY: &str = "array";

/// What a watch counts and measures.
pub struct Metrics {
    registry: Registry,
    gauges: Vec<(IntGaugeVec, Value)>,
    failures: IntCounterVec,
    heals: IntCounterVec,
    copied: IntCounterVec,
    troubles: IntCounterVec,
}

/// What a gauge shows of a look.
type Value = fn(&Report) -> i64;
/// Name, help, value.
type Gauge = (&'static str, &'static str, Value);

const GAUGES: [Gauge; 9] = [
    ("running", "1: the array serves", |report| i64::from(report.is_running)),
    ("degraded", "Legs that are missing", |report| i64::from(report.degraded)),
    ("leg_in_sync", "1: the blockmirror leg has everything", |report| {
        i64::from(report.leg.standing == Some(Standing::InSync))
    }),
    ("local_in_sync", "1: the local leg has everything", |report| {
        i64::from(report.local.standing == Some(Standing::InSync))
    }),
    (
        "leg_bad_blocks",
        "Stretches that md has noted as bad on the leg",
        |report| report.leg.bad_blocks as i64,
    ),
    (
        "agent_alive",
        "1: a process keeps the leg's device attached",
        |report| i64::from(report.agent.is_some()),
    ),
    ("writes_in_flight", "Writes to the leg under way", |report| {
        report.writes_in_flight as i64
    }),
    ("dirty_bytes", "What the bitmap calls changed, at most", |report| {
        report.bitmap.as_ref().map_or(0, |bitmap| bitmap.dirty_bytes as i64)
    }),
    (
        "left_bytes",
        "What is left of the copy, or comparison, under way",
        |report| {
            let action = report.action.as_ref();
            action.map_or(0, |action| action.total_bytes.saturating_sub(action.done_bytes) as i64)
        },
    ),
];

impl Metrics {
    /// Nothing is counted yet.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new_custom(Some("blockmirror_raid".to_owned()), None)?;
        let mut gauges = Vec::new();
        for (name, help, value) in GAUGES {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &[ARRAY])?;
            registry.register(Box::new(gauge.clone()))?;
            gauges.push((gauge, value));
        }
        let counter = |name: &str, help: &str| {
            let counter = IntCounterVec::new(Opts::new(name, help), &[ARRAY])?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        Ok(Self {
            failures: counter("leg_failures_total", "Times md has given the leg up")?,
            heals: counter("heals_total", "Times the leg was brought back, and in sync")?,
            copied: counter(
                "copied_bytes_total",
                "Bytes written to the leg while it was brought back",
            )?,
            troubles: counter("troubles_total", "Times a step did not work, each reason once")?,
            gauges,
            registry,
        })
    }

    /// What a look has seen.
    pub fn update(&self, report: &Report) {
        let array = [report.name.as_str()];
        for (gauge, value) in &self.gauges {
            gauge.with_label_values(&array).set(value(report));
        }
        // Those that have not happened are 0, not absent.
        for counter in self.counters() {
            counter.with_label_values(&array).inc_by(0);
        }
    }

    /// Something has happened.
    pub fn count(&self, name: &str, event: &Event) {
        let array = [name];
        match event {
            Event::LegFailed { .. } => self.failures.with_label_values(&array).inc(),
            Event::Healed { copied_bytes, .. } => {
                self.heals.with_label_values(&array).inc();
                self.copied.with_label_values(&array).inc_by(*copied_bytes);
            }
            Event::Trouble { .. } => self.troubles.with_label_values(&array).inc(),
            _ => {}
        }
    }

    /// The array is none of ours any more.
    pub fn forget(&self, name: &str) {
        for (gauge, _) in &self.gauges {
            let _ = gauge.remove_label_values(&[name]);
        }
        for counter in self.counters() {
            let _ = counter.remove_label_values(&[name]);
        }
    }

    fn counters(&self) -> [&IntCounterVec; 4] {
        [&self.failures, &self.heals, &self.copied, &self.troubles]
    }

    fn text(&self) -> prometheus::Result<Vec<u8>> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// Serves them, until the program ends.
pub async fn serve(address: SocketAddr, metrics: Arc<Metrics>) -> Result<(), Failure> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|error| Failure::Failed(format!("metrics at {address}: {error}")))?;
    let answer = move || {
        let metrics = Arc::clone(&metrics);
        async move {
            match metrics.text() {
                Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
                Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
            }
        }
    };
    let router = Router::new().route("/metrics", get(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use raid1_glue::md::heal::DeviceState;
    use raid1_glue::md::report::{BitmapReport, LegReport};

    use super::*;

    #[test]
    fn a_look_and_what_has_happened_are_told_until_the_array_is_forgotten() {
        let leg = |device: &str, standing| LegReport {
            device: device.to_owned(),
            standing: Some(standing),
            errors: 0,
            bad_blocks: 0,
        };
        let report = Report {
            name: "data".to_owned(),
            array: "/dev/md0".to_owned(),
            uuid: String::new(),
            is_running: true,
            state: "active".to_owned(),
            size_bytes: 1 << 30,
            degraded: 1,
            action: None,
            local: leg("/dev/vda", Standing::InSync),
            leg: leg("/dev/nbd0", Standing::Syncing),
            uris: String::new(),
            is_removed: false,
            is_local_behind: false,
            device: DeviceState::Alive,
            agent: Some(1),
            writes_in_flight: 3,
            write_behind: None,
            bitmap: Some(BitmapReport {
                chunk_bytes: 4096,
                dirty_bytes: 8192,
            }),
            problem: None,
        };
        let metrics = Metrics::new().unwrap();
        metrics.update(&report);
        metrics.count(
            "data",
            &Event::Healed {
                copied_bytes: 4096,
                milliseconds: 1,
            },
        );
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        for line in [
            "blockmirror_raid_running{array=\"data\"} 1",
            "blockmirror_raid_degraded{array=\"data\"} 1",
            "blockmirror_raid_leg_in_sync{array=\"data\"} 0",
            "blockmirror_raid_local_in_sync{array=\"data\"} 1",
            "blockmirror_raid_writes_in_flight{array=\"data\"} 3",
            "blockmirror_raid_dirty_bytes{array=\"data\"} 8192",
            "blockmirror_raid_leg_failures_total{array=\"data\"} 0",
            "blockmirror_raid_heals_total{array=\"data\"} 1",
            "blockmirror_raid_copied_bytes_total{array=\"data\"} 4096",
        ] {
            assert!(text.lines().any(|told| told == line), "{line}: {text}");
        }
        metrics.forget("data");
        assert!(!String::from_utf8(metrics.text().unwrap()).unwrap().contains("data"));
    }
}
