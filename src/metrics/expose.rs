//! The catalogue as Prometheus text: every family with its help, its type and its series.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::shard::{CONNECT_BOUNDS, CONNECTION_BOUNDS, Total};
use super::{Catalogue, ListenerMetrics, ServerMetrics, discovery, http, living, lock, pools, ports};
use crate::ending::{Handshake, Reason, TlsVersion};

pub(super) fn expose(catalogue: &Catalogue) -> String {
    let mut families = Vec::new();
    add_instance(catalogue, &mut families);
    add_workers(catalogue, &mut families);
    add_listeners(&living(&catalogue.listeners), &mut families);
    http::add_listeners(&living(&catalogue.listeners), &mut families);
    add_certificates(catalogue, &mut families);
    ports::add(catalogue, &mut families);
    pools::add(&living(&catalogue.pools), &living(&catalogue.servers), &mut families);
    add_servers(&living(&catalogue.servers), &mut families);
    http::add_servers(&living(&catalogue.servers), &mut families);
    discovery::add(&living(&catalogue.discoveries), &mut families);
    families.retain(|family| !family.get_metric().is_empty());
    families.extend(ProcessCollector::for_self().collect());
    // The encoder fails on a family without a name or series only, and there is none here.
    prometheus::TextEncoder::new().encode_to_string(&families).unwrap_or_default()
}

fn add_instance(catalogue: &Catalogue, families: &mut Vec<MetricFamily>) {
    let count = |value: &std::sync::atomic::AtomicU64| value.load(Ordering::Relaxed) as f64;
    families.push(family(
        "portreeve_build_info",
        "The version that runs.",
        MetricType::GAUGE,
        vec![gauge(&[("version", env!("CARGO_PKG_VERSION"))], 1.0)],
    ));
    families.push(family(
        "portreeve_config_generation",
        "The generation of the configuration in effect; each reload that is applied adds one.",
        MetricType::GAUGE,
        vec![gauge(&[], count(&catalogue.generation))],
    ));
    families.push(family(
        "portreeve_config_reloads_total",
        "Reloads, by whether they were applied or changed nothing because of problems.",
        MetricType::COUNTER,
        vec![
            counter(&[("result", "applied")], count(&catalogue.reloads_applied)),
            counter(&[("result", "failed")], count(&catalogue.reloads_failed)),
        ],
    ));
    families.push(family(
        "portreeve_access_log_dropped_total",
        "Lines of the access log that were dropped because its writer could not keep up.",
        MetricType::COUNTER,
        vec![counter(&[], count(&catalogue.access_log_dropped))],
    ));
    families.push(family(
        "portreeve_task_panics_total",
        "Tasks that panicked; each ended alone.",
        MetricType::COUNTER,
        vec![counter(&[], count(&catalogue.panics))],
    ));
}

fn add_workers(catalogue: &Catalogue, families: &mut Vec<MetricFamily>) {
    families.push(family(
        "portreeve_workers",
        "Data threads.",
        MetricType::GAUGE,
        vec![gauge(&[], catalogue.workers().len() as f64)],
    ));
    let numbered = || catalogue.workers().iter().enumerate().map(|(number, worker)| (number.to_string(), worker));
    families.push(family(
        "portreeve_worker_connections_active",
        "Connections that a data thread carries.",
        MetricType::GAUGE,
        numbered().map(|(number, worker)| gauge(&[("worker", &number)], f64::from(worker.active.get()))).collect(),
    ));
    families.push(family(
        "portreeve_worker_handovers_total",
        "Connections that a data thread accepted and handed over to a less busy one.",
        MetricType::COUNTER,
        numbered()
            .map(|(number, worker)| counter(&[("worker", &number)], worker.handed_over.load(Ordering::Relaxed) as f64))
            .collect(),
    ));
}

fn add_listeners(all: &[std::sync::Arc<ListenerMetrics>], families: &mut Vec<MetricFamily>) {
    let each = |make: &dyn Fn(&ListenerMetrics, &str) -> Vec<Metric>| -> Vec<Metric> {
        all.iter().flat_map(|listener| make(listener, listener.name.as_str())).collect()
    };
    families.push(family(
        "portreeve_listener_connections_total",
        "Connections accepted.",
        MetricType::COUNTER,
        each(&|listener, name| vec![counter(&[("listener", name)], listener.connections() as f64)]),
    ));
    families.push(family(
        "portreeve_listener_connections_active",
        "Connections open.",
        MetricType::GAUGE,
        each(&|listener, name| vec![gauge(&[("listener", name)], f64::from(listener.active.get()))]),
    ));
    families.push(family(
        "portreeve_listener_bytes_total",
        "Bytes from clients (in) and to clients (out).",
        MetricType::COUNTER,
        each(&|listener, name| {
            let (inward, outward) = listener.bytes();
            vec![
                counter(&[("listener", name), ("direction", "in")], inward as f64),
                counter(&[("listener", name), ("direction", "out")], outward as f64),
            ]
        }),
    ));
    let endings = |refusals: bool| {
        each(&|listener, name| {
            Reason::ALL
                .iter()
                .filter(|reason| reason.is_refusal() == refusals)
                .map(|reason| {
                    let labels = [("listener", name), ("reason", reason.label())];
                    counter(&labels, listener.endings(*reason) as f64)
                })
                .collect()
        })
    };
    families.push(family(
        "portreeve_listener_refused_total",
        "Connections turned away at the gate, by reason.",
        MetricType::COUNTER,
        endings(true),
    ));
    families.push(family(
        "portreeve_listener_ended_total",
        "Connections that were let in and have ended, by reason.",
        MetricType::COUNTER,
        endings(false),
    ));
    families.push(family(
        "portreeve_tls_handshakes_total",
        "TLS handshakes with clients, by the version agreed upon and how they went.",
        MetricType::COUNTER,
        each(&|listener, name| {
            let all = TlsVersion::ALL.iter().flat_map(|v| Handshake::ALL.iter().map(move |outcome| (*v, *outcome)));
            let counted = all.map(|(version, outcome)| (version, outcome, listener.handshakes(version, outcome)));
            // Those that succeed are there from the start, of the many ways to fail only those that occurred.
            let is_shown = |(version, outcome, count): &(TlsVersion, Handshake, u64)| {
                *count > 0 || *version != TlsVersion::None && matches!(outcome, Handshake::Full | Handshake::Resumed)
            };
            counted
                .filter(is_shown)
                .map(|(version, outcome, count)| {
                    let labels = [("listener", name), ("version", version.label()), ("result", outcome.label())];
                    counter(&labels, count as f64)
                })
                .collect()
        }),
    ));
    families.push(family(
        "portreeve_listener_connection_seconds",
        "How long connections lasted.",
        MetricType::HISTOGRAM,
        each(&|listener, name| {
            let mut total = Total::default();
            listener.shards.iter().for_each(|shard| shard.seconds.add_to(&mut total));
            vec![histogram(&[("listener", name)], &CONNECTION_BOUNDS, &total)]
        }),
    ));
}

fn add_certificates(catalogue: &Catalogue, families: &mut Vec<MetricFamily>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    families.push(family(
        "portreeve_tls_certificate_expiry_seconds",
        "How long the certificate for a name is still valid; negative once it has run out.",
        MetricType::GAUGE,
        lock(&catalogue.certificates)
            .iter()
            .map(|((listener, name), until)| {
                gauge(&[("listener", listener.as_str()), ("name", name)], *until as f64 - now)
            })
            .collect(),
    ));
}

/// The pool and the name of a server, as labels.
type ServerLabels<'a> = [(&'static str, &'a str); 2];

fn add_servers(all: &[std::sync::Arc<ServerMetrics>], families: &mut Vec<MetricFamily>) {
    let each = |make: &dyn Fn(&ServerMetrics, ServerLabels<'_>) -> Vec<Metric>| -> Vec<Metric> {
        all.iter()
            .flat_map(|server| make(server, [("pool", server.pool.as_str()), ("server", server.name.as_str())]))
            .collect()
    };
    families.push(family(
        "portreeve_server_up",
        "Whether the server counts as up.",
        MetricType::GAUGE,
        each(&|server, labels| {
            server.vitals().map(|vitals| gauge(&labels, f64::from(u8::from(vitals.is_up())))).into_iter().collect()
        }),
    ));
    families.push(family(
        "portreeve_server_ejected",
        "Whether the server is ejected for what it did to traffic.",
        MetricType::GAUGE,
        each(&|server, labels| {
            server.vitals().map(|vitals| gauge(&labels, f64::from(u8::from(vitals.is_ejected())))).into_iter().collect()
        }),
    ));
    families.push(family(
        "portreeve_server_ejections_total",
        "How often the server was ejected.",
        MetricType::COUNTER,
        each(&|server, labels| vec![counter(&labels, server.ejections.load(Ordering::Relaxed) as f64)]),
    ));
    families.push(family(
        "portreeve_server_outcomes_total",
        "What requests to the server and other connections to it came to.",
        MetricType::COUNTER,
        each(&|server, [pool, name]| {
            let (well, wrong) = server.outcomes();
            vec![
                counter(&[pool, name, ("result", "ok")], well as f64),
                counter(&[pool, name, ("result", "failed")], wrong as f64),
            ]
        }),
    ));
    families.push(family(
        "portreeve_server_connections_active",
        "Connections in flight to the server.",
        MetricType::GAUGE,
        each(&|server, labels| {
            server.vitals().map(|vitals| gauge(&labels, f64::from(vitals.active()))).into_iter().collect()
        }),
    ));
    families.push(family(
        "portreeve_server_connections_total",
        "Connections made to the server.",
        MetricType::COUNTER,
        each(&|server, labels| vec![counter(&labels, server.connections() as f64)]),
    ));
    families.push(family(
        "portreeve_server_connect_seconds",
        "How long connecting to the server took.",
        MetricType::HISTOGRAM,
        each(&|server, labels| {
            let mut total = Total::default();
            server.shards.iter().for_each(|shard| shard.connect_seconds.add_to(&mut total));
            vec![histogram(&labels, &CONNECT_BOUNDS, &total)]
        }),
    ));
    families.push(family(
        "portreeve_server_connect_failures_total",
        "Attempts to connect to the server that failed, by reason.",
        MetricType::COUNTER,
        each(&|server, [pool, name]| {
            let failures = |reason: &Reason| -> u64 {
                server.shards.iter().filter_map(|shard| shard.failures.get(reason.index())).map(super::Tally::get).sum()
            };
            Reason::ALL
                .iter()
                .filter(|reason| reason.is_connect_failure())
                .map(|reason| counter(&[pool, name, ("reason", reason.label())], failures(reason) as f64))
                .collect()
        }),
    ));
    families.push(family(
        "portreeve_server_tls_handshakes_total",
        "TLS handshakes with the server that were completed, in full or by resuming an earlier session.",
        MetricType::COUNTER,
        each(&|server, [pool, name]| {
            let sum = |pick: &dyn Fn(&super::ServerShard) -> u64| server.shards.iter().map(|shard| pick(shard)).sum();
            let (full, resumed): (u64, u64) =
                (sum(&|shard| shard.full_handshakes.get()), sum(&|shard| shard.resumed_handshakes.get()));
            vec![
                counter(&[pool, name, ("result", "full")], full as f64),
                counter(&[pool, name, ("result", "resumed")], resumed as f64),
            ]
        }),
    ));
    families.push(family(
        "portreeve_server_bytes_total",
        "Bytes to the server (in: from the client) and from it (out).",
        MetricType::COUNTER,
        each(&|server, [pool, name]| {
            let (inward, outward) = server.bytes();
            vec![
                counter(&[pool, name, ("direction", "in")], inward as f64),
                counter(&[pool, name, ("direction", "out")], outward as f64),
            ]
        }),
    ));
    families.push(family(
        "portreeve_server_checks_total",
        "Probes of the server, by result; skipped are those for which there was no descriptor or port.",
        MetricType::COUNTER,
        each(&|server, [pool, name]| {
            let checks = lock(&server.checks);
            vec![
                counter(&[pool, name, ("result", "passed")], checks.passed as f64),
                counter(&[pool, name, ("result", "failed")], checks.failed as f64),
                counter(&[pool, name, ("result", "skipped")], checks.skipped as f64),
            ]
        }),
    ));
    families.push(family(
        "portreeve_server_changes_total",
        "How often the server went up, or down.",
        MetricType::COUNTER,
        each(&|server, [pool, name]| {
            let checks = lock(&server.checks);
            vec![
                counter(&[pool, name, ("to", "up")], checks.rises as f64),
                counter(&[pool, name, ("to", "down")], checks.falls as f64),
            ]
        }),
    ));
    families.push(family(
        "portreeve_server_check_seconds",
        "How long probes of the server took.",
        MetricType::HISTOGRAM,
        each(&|server, labels| {
            let mut total = Total::default();
            lock(&server.checks).seconds.add_to(&mut total);
            vec![histogram(&labels, &CONNECT_BOUNDS, &total)]
        }),
    ));
}

pub(super) fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn with_labels(pairs: &[(&str, &str)]) -> Metric {
    Metric::from_label(
        pairs
            .iter()
            .map(|(name, value)| {
                let mut pair = LabelPair::default();
                pair.set_name((*name).to_owned());
                pair.set_value((*value).to_owned());
                pair
            })
            .collect(),
    )
}

pub(super) fn counter(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut metric = with_labels(labels);
    let mut counter = Counter::default();
    counter.set_value(value);
    metric.set_counter(counter);
    metric
}

pub(super) fn gauge(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut metric = with_labels(labels);
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    metric.set_gauge(gauge);
    metric
}

pub(super) fn histogram<const BOUNDS: usize>(
    labels: &[(&str, &str)],
    bounds: &[Duration; BOUNDS],
    total: &Total<BOUNDS>,
) -> Metric {
    let mut count = 0;
    let buckets = bounds.iter().zip(total.buckets).map(|(bound, observed)| {
        count += observed;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound.as_secs_f64());
        bucket.set_cumulative_count(count);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(count + total.over);
    histogram.set_sample_sum(total.seconds);
    let mut metric = with_labels(labels);
    metric.set_histogram(histogram);
    metric
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Name;

    #[test]
    fn what_was_counted_in_any_shard_stands_in_the_text() {
        let catalogue = Catalogue::new(2);
        let listener = catalogue.listener(&Name::new("web"));
        listener.accepted(0);
        listener.accepted(1);
        listener.ended(1, Reason::Done, Duration::from_secs(2));
        listener.ended(0, Reason::RefusedFull, Duration::ZERO);
        let server = catalogue.server(&Name::new("pool"), &Name::new("a\"b"));
        server.connected(1, Duration::from_millis(3));
        server.connect_failed(0, Reason::ConnectRefused);
        let text = catalogue.expose();
        for line in [
            "portreeve_listener_connections_total{listener=\"web\"} 2",
            "portreeve_listener_ended_total{listener=\"web\",reason=\"done\"} 1",
            "portreeve_listener_refused_total{listener=\"web\",reason=\"refused_full\"} 1",
            "portreeve_listener_connection_seconds_bucket{listener=\"web\",le=\"10\"} 1",
            "portreeve_listener_connection_seconds_count{listener=\"web\"} 1",
            "portreeve_server_connect_failures_total{pool=\"pool\",server=\"a\\\"b\",reason=\"connect_refused\"} 1",
            "portreeve_server_connect_seconds_bucket{pool=\"pool\",server=\"a\\\"b\",le=\"0.005\"} 1",
            "portreeve_workers 2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing from:\n{text}");
        }
        assert!(text.contains("process_open_fds"));
    }

    #[test]
    fn a_name_keeps_its_counters_and_a_series_ends_when_nothing_holds_it() {
        let catalogue = Catalogue::new(1);
        let first = catalogue.listener(&Name::new("web"));
        first.accepted(0);
        assert_eq!(catalogue.listener(&Name::new("web")).connections(), 1);
        drop(first);
        assert!(!catalogue.expose().contains("listener=\"web\""));
    }
}
