//! What is counted of requests, for listeners and for servers.

use std::sync::Arc;
use std::time::Duration;

use prometheus::proto::{Metric, MetricFamily, MetricType};

use super::expose::{counter, family, histogram};
use super::shard::{Histogram, RESPONSE_BOUNDS, Tally, Total};
use super::{ListenerMetrics, ServerMetrics};
use crate::ending::{Class, Reason};
use crate::message::grpc::Code;

/// What one worker counts of a listener's requests.
#[derive(Debug)]
pub(super) struct ListenerHttp {
    requests: [Tally; Class::COUNT],
    /// The same requests, by what they ended for.
    endings: [Tally; Reason::COUNT],
    /// Requests that were answered here, by the reason.
    answers: [Tally; Reason::COUNT],
    /// Calls of gRPC, by how they ended.
    calls: [Tally; Code::COUNT],
}

impl Default for ListenerHttp {
    fn default() -> Self {
        Self {
            requests: [const { Tally::new() }; Class::COUNT],
            endings: [const { Tally::new() }; Reason::COUNT],
            answers: [const { Tally::new() }; Reason::COUNT],
            calls: [const { Tally::new() }; Code::COUNT],
        }
    }
}

/// What one worker counts of a server's requests.
#[derive(Debug)]
pub(super) struct ServerHttp {
    requests: [Tally; Class::COUNT],
    seconds: Histogram<{ RESPONSE_BOUNDS.len() }>,
    new: Tally,
    reused: Tally,
    retries: Tally,
}

impl Default for ServerHttp {
    fn default() -> Self {
        Self {
            requests: [const { Tally::new() }; Class::COUNT],
            seconds: Histogram::default(),
            new: Tally::new(),
            reused: Tally::new(),
            retries: Tally::new(),
        }
    }
}

impl ListenerMetrics {
    /// A request ended for this reason, with a response of this class.
    pub fn request(&self, worker: usize, class: Class, reason: Reason) {
        let Some(http) = self.shards.get(worker).map(|shard| &shard.http) else { return };
        for tally in http.requests.get(class.index()).into_iter().chain(http.endings.get(reason.index())) {
            tally.add(1);
        }
    }

    /// A request was answered here, for this reason.
    pub fn answered(&self, worker: usize, reason: Reason) {
        if let Some(tally) = self.shards.get(worker).and_then(|shard| shard.http.answers.get(reason.index())) {
            tally.add(1);
        }
    }

    /// A request that is a call of gRPC ended like this.
    pub fn called(&self, worker: usize, code: Code) {
        if let Some(tally) = self.shards.get(worker).and_then(|shard| shard.http.calls.get(code.index())) {
            tally.add(1);
        }
    }

    /// How many calls of gRPC ended like this.
    #[must_use]
    pub fn calls(&self, code: Code) -> u64 {
        self.shards.iter().filter_map(|shard| shard.http.calls.get(code.index())).map(Tally::get).sum()
    }

    /// How many requests ended for a reason.
    #[must_use]
    pub fn request_endings(&self, reason: Reason) -> u64 {
        self.shards.iter().filter_map(|shard| shard.http.endings.get(reason.index())).map(Tally::get).sum()
    }

    /// How many requests were answered here for a reason.
    #[must_use]
    pub fn answers(&self, reason: Reason) -> u64 {
        self.shards.iter().filter_map(|shard| shard.http.answers.get(reason.index())).map(Tally::get).sum()
    }

    /// How many requests ended with a response of this class.
    #[must_use]
    pub fn requests(&self, class: Class) -> u64 {
        self.shards.iter().filter_map(|shard| shard.http.requests.get(class.index())).map(Tally::get).sum()
    }
}

impl ServerMetrics {
    /// A request ended with a response of this class, whose first byte came after so long.
    pub fn responded(&self, worker: usize, class: Class, after: Duration) {
        if let Some(shard) = self.shards.get(worker) {
            if let Some(tally) = shard.http.requests.get(class.index()) {
                tally.add(1);
            }
            if class != Class::None {
                shard.http.seconds.observe(&RESPONSE_BOUNDS, after);
            }
        }
    }

    /// A request got a connection, perhaps one that had served another before.
    pub fn got_connection(&self, worker: usize, reused: bool) {
        if let Some(shard) = self.shards.get(worker) {
            if reused { &shard.http.reused } else { &shard.http.new }.add(1);
        }
    }

    /// A request was sent to it that had failed elsewhere or before.
    pub fn retried(&self, worker: usize) {
        if let Some(shard) = self.shards.get(worker) {
            shard.http.retries.add(1);
        }
    }

    fn sum(&self, tally: impl Fn(&ServerHttp) -> Option<&Tally>) -> f64 {
        self.shards.iter().filter_map(|shard| tally(&shard.http)).map(Tally::get).sum::<u64>() as f64
    }
}

pub(super) fn add_listeners(all: &[Arc<ListenerMetrics>], families: &mut Vec<MetricFamily>) {
    let each = |make: &dyn Fn(&ListenerMetrics, &str) -> Vec<Metric>| -> Vec<Metric> {
        all.iter().flat_map(|listener| make(listener, listener.name.as_str())).collect()
    };
    families.push(family(
        "portreeve_http_requests_total",
        "Requests that have ended, by the class of the response.",
        MetricType::COUNTER,
        each(&|listener, name| {
            let classes = Class::ALL.iter().map(|class| (class, listener.requests(*class)));
            let counted =
                classes.map(|(class, count)| counter(&[("listener", name), ("class", class.label())], count as f64));
            counted.collect()
        }),
    ));
    families.push(family(
        "portreeve_http_ended_total",
        "Requests that have ended, by the reason; those that occurred.",
        MetricType::COUNTER,
        each(&|listener, name| {
            let reasons = Reason::ALL.iter().map(|reason| (reason, listener.request_endings(*reason)));
            let occurred = reasons.filter(|(reason, count)| *count > 0 || **reason == Reason::Done);
            let counted = occurred
                .map(|(reason, count)| counter(&[("listener", name), ("reason", reason.label())], count as f64));
            counted.collect()
        }),
    ));
    families.push(family(
        "portreeve_http_answers_total",
        "Requests that were answered here and not by a server, by the reason; those that occurred.",
        MetricType::COUNTER,
        each(&|listener, name| {
            let reasons = Reason::ALL.iter().map(|reason| (reason, listener.answers(*reason)));
            let occurred = reasons.filter(|(reason, count)| *count > 0 || **reason == Reason::NoServer);
            let counted = occurred
                .map(|(reason, count)| counter(&[("listener", name), ("reason", reason.label())], count as f64));
            counted.collect()
        }),
    ));
    add_calls(all, families);
}

fn add_calls(all: &[Arc<ListenerMetrics>], families: &mut Vec<MetricFamily>) {
    let each = |listener: &Arc<ListenerMetrics>| {
        let codes = Code::ALL.iter().map(|code| (code, listener.calls(*code)));
        let occurred = codes.filter(|(code, count)| *count > 0 || **code == Code::Ok);
        let counted = occurred.map(|(code, count)| {
            counter(&[("listener", listener.name.as_str()), ("status", code.label())], count as f64)
        });
        counted.collect::<Vec<_>>()
    };
    families.push(family(
        "portreeve_http_grpc_total",
        "Calls of gRPC that have ended, by their status; those that occurred.",
        MetricType::COUNTER,
        all.iter().flat_map(each).collect(),
    ));
}

pub(super) fn add_servers(all: &[Arc<ServerMetrics>], families: &mut Vec<MetricFamily>) {
    type Labels<'a> = [(&'static str, &'a str); 2];
    let each = |make: &dyn Fn(&ServerMetrics, Labels<'_>) -> Vec<Metric>| -> Vec<Metric> {
        all.iter()
            .flat_map(|server| make(server, [("pool", server.pool.as_str()), ("server", server.name.as_str())]))
            .collect()
    };
    families.push(family(
        "portreeve_server_requests_total",
        "Requests sent to the server that have ended, by the class of the response.",
        MetricType::COUNTER,
        each(&|server, [pool, name]| {
            let classes = Class::ALL.iter().map(|class| (class, server.sum(|http| http.requests.get(class.index()))));
            classes.map(|(class, count)| counter(&[pool, name, ("class", class.label())], count)).collect()
        }),
    ));
    families.push(family(
        "portreeve_server_response_seconds",
        "From sending a request to the first byte of the response.",
        MetricType::HISTOGRAM,
        each(&|server, labels| {
            let mut total = Total::default();
            server.shards.iter().for_each(|shard| shard.http.seconds.add_to(&mut total));
            vec![histogram(&labels, &RESPONSE_BOUNDS, &total)]
        }),
    ));
    families.push(family(
        "portreeve_server_retries_total",
        "Requests sent to the server that had failed elsewhere or before.",
        MetricType::COUNTER,
        each(&|server, labels| vec![counter(&labels, server.sum(|http| Some(&http.retries)))]),
    ));
    families.push(family(
        "portreeve_upstream_connections_total",
        "Connections that requests to the server got: new ones, and ones that had served another before.",
        MetricType::COUNTER,
        each(&|server, [pool, name]| {
            vec![
                counter(&[pool, name, ("kind", "new")], server.sum(|http| Some(&http.new))),
                counter(&[pool, name, ("kind", "reused")], server.sum(|http| Some(&http.reused))),
            ]
        }),
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Catalogue;
    use crate::units::Name;

    #[test]
    fn each_request_counts_once_by_its_response_and_once_by_what_it_ended_for() {
        let catalogue = Catalogue::new(2);
        let listener = catalogue.listener(&Name::new("web"));
        listener.request(0, Class::Successful, Reason::Done);
        listener.request(1, Class::Successful, Reason::ServerReset);
        listener.request(1, Class::None, Reason::ClientReset);
        assert_eq!((listener.requests(Class::Successful), listener.requests(Class::None)), (2, 1));
        for reason in [Reason::Done, Reason::ServerReset, Reason::ClientReset] {
            assert_eq!(listener.request_endings(reason), 1, "{reason}");
        }
        let text = catalogue.expose();
        let shown: Vec<&str> = text.lines().filter(|line| line.starts_with("portreeve_http_ended_total")).collect();
        assert_eq!(shown.len(), 3, "those that occurred: {shown:?}");
        assert!(shown.contains(&"portreeve_http_ended_total{listener=\"web\",reason=\"server_reset\"} 1"), "{shown:?}");
    }
}
