//! What is left to connect with: local ports towards each server, and descriptors.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use prometheus::proto::{Metric, MetricFamily, MetricType};

use super::expose::{family, gauge};
use super::{Catalogue, lock};
use crate::units::Name;

/// How much is left of something that runs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stock {
    /// What is left.
    pub free: u32,
    /// All there is.
    pub total: u32,
    /// How long that lasts at the present rate; `None` if it does not grow less.
    pub lasts: Option<Duration>,
}

/// The local ports left towards a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourcePorts {
    /// The local address they belong to; `None` where the kernel chooses that.
    pub source: Option<IpAddr>,
    /// How many there are.
    pub ports: Stock,
}

/// What is left, as far as it was looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct Supplies {
    ports: BTreeMap<(Name, Name), Vec<SourcePorts>>,
    descriptors: Option<Stock>,
}

impl Catalogue {
    /// The local ports that are left from now on, by pool and server.
    pub fn set_source_ports(&self, ports: BTreeMap<(Name, Name), Vec<SourcePorts>>) {
        lock(&self.supplies).ports = ports;
    }

    /// The descriptors that are left from now on.
    pub fn set_descriptors(&self, descriptors: Stock) {
        lock(&self.supplies).descriptors = Some(descriptors);
    }

    /// The local ports that were left towards a server when that was last looked at, by local address.
    #[must_use]
    pub fn source_ports(&self, pool: &Name, server: &Name) -> Vec<SourcePorts> {
        lock(&self.supplies).ports.get(&(pool.clone(), server.clone())).cloned().unwrap_or_default()
    }

    /// The descriptors that were left when that was last looked at.
    #[must_use]
    pub fn descriptors(&self) -> Option<Stock> {
        lock(&self.supplies).descriptors
    }
}

/// What the label of a source says where the kernel chooses it.
const ANY: &str = "any";

/// How long it lasts; there is no series for what lasts for ever.
fn seconds(stock: &Stock) -> Option<f64> {
    stock.lasts.map(|lasts| lasts.as_secs_f64())
}

pub(super) fn add(catalogue: &Catalogue, families: &mut Vec<MetricFamily>) {
    let Supplies { ports, descriptors } = lock(&catalogue.supplies).clone();
    let each = |value: &dyn Fn(&Stock) -> Option<f64>| -> Vec<Metric> {
        ports
            .iter()
            .flat_map(|((pool, server), sources)| sources.iter().map(move |source| (pool, server, source)))
            .filter_map(|(pool, server, SourcePorts { source, ports })| {
                let source = source.map_or_else(|| ANY.to_owned(), |source| source.to_string());
                let labels = [("pool", pool.as_str()), ("server", server.as_str()), ("source", source.as_str())];
                Some(gauge(&labels, value(ports)?))
            })
            .collect()
    };
    families.push(family(
        "portreeve_source_ports_free",
        "Local ports left to connect to the server from, by local address.",
        MetricType::GAUGE,
        each(&|ports| Some(f64::from(ports.free))),
    ));
    families.push(family(
        "portreeve_source_ports_exhausted_in_seconds",
        "How long the local ports last at the present rate, while they grow fewer.",
        MetricType::GAUGE,
        each(&seconds),
    ));
    families.push(family(
        "portreeve_descriptors_free",
        "Descriptors the process may still open.",
        MetricType::GAUGE,
        descriptors.iter().map(|stock| gauge(&[], f64::from(stock.free))).collect(),
    ));
    families.push(family(
        "portreeve_descriptors_exhausted_in_seconds",
        "How long the descriptors last at the present rate, while they grow fewer.",
        MetricType::GAUGE,
        descriptors.iter().filter_map(seconds).map(|seconds| gauge(&[], seconds)).collect(),
    ));
}
