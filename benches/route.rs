//! What it costs to find the route of a request at 10, 100 and 10 000 routes, and the ratio that counts: finding it among
//! 10 000 is to cost what finding it among 10 does.
//!
//! Run with `cargo bench --bench route`; without `--bench` (as `cargo test --benches` does) each case runs only briefly.
//!
//! - `hosts`: each route has its own host.
//! - `wildcards`: each route has its own wildcard, and requests have a name two labels below.
//! - `paths`: all routes are of one host, each with its own prefix three parts deep.
//! - `misses`: as `paths`, with requests that no route takes before the last part of their path.
//! - `headers`: all routes are of one host and one path, each with its own value of a field.
//! - `queries`: the same with a parameter of the query.
//! - `repeats`: as `headers`, with requests that have the field a hundred times and are taken by no route.
//! - `slashes`: as `paths`, with requests for 8 KiB of slashes, which are to cost no more than others.
//!
//! A figure is the median over batches of nanoseconds a request. Each asks for another route than the one before; at
//! 10 000 routes some of it is memory: they do not fit into the cache next to the core.

#![allow(clippy::print_stdout, reason = "a benchmark is there to print")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use portreeve::route::HostPattern;
use portreeve::route::http::{Asked, Fields, HttpRoutes, Match, PathMatch, ValueMatch};

const SIZES: [usize; 3] = [10, 100, 10_000];
const CASES: [&str; 8] = ["hosts", "wildcards", "paths", "misses", "headers", "queries", "repeats", "slashes"];

/// A header with one field, so many times.
struct Tenant<'a> {
    value: &'a str,
    times: usize,
}

impl Fields for Tenant<'_> {
    fn any(&self, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        (0..self.times).any(|_| name.eq_ignore_ascii_case("x-tenant") && test(self.value.as_bytes()))
    }
}

/// What is asked for.
struct Request {
    host: String,
    path: String,
    tenant: String,
    query: String,
}

fn main() {
    let batches = if std::env::args().any(|argument| argument == "--bench") { 201 } else { 1 };
    println!("case       {:>8} {:>8} {:>8}   10000 : 10", "10", "100", "10000");
    for case in CASES {
        let [small, medium, large] = SIZES.map(|routes| measure(case, routes, batches));
        println!("{case:9}  {small:8.1} {medium:8.1} {large:8.1}   {:10.2}", large / small);
    }
}

/// Nanoseconds a request.
fn measure(case: &str, count: usize, batches: usize) -> f64 {
    const REQUESTS: u32 = 10_000;
    let routes = HttpRoutes::new((0..count).filter_map(|number| Some((route(case, number)?, number))));
    // As many whatever the number of routes, so that their own memory costs the same. The stride shares no factor with the
    // sizes: all routes are asked for, and no two neighbours one after the other.
    let different = if case == "slashes" { 1 } else { REQUESTS as usize };
    let times = if case == "repeats" { 100 } else { 1 };
    let requests: Vec<_> = (0..different).map(|turn| request(case, turn * 7919 % count)).collect();
    let batch = || {
        let start = Instant::now();
        for Request { host, path, tenant, query } in requests.iter().cycle().take(REQUESTS as usize) {
            let (path, query, fields) = (path.as_bytes(), query.as_bytes(), &Tenant { value: tenant, times });
            let asked = Asked { host, method: b"GET", path, query, fields };
            black_box(routes.find(black_box(&asked)));
        }
        start.elapsed()
    };
    let mut times: Vec<Duration> = (0..batches + batches / 4).map(|_| batch()).skip(batches / 4).collect();
    times.sort_unstable();
    times.get(times.len() / 2).map_or(f64::NAN, |median| median.as_nanos() as f64 / f64::from(REQUESTS))
}

fn route(case: &str, number: usize) -> Option<Match> {
    let (host, path) = match case {
        "hosts" => (format!("shop-{number}.example.com"), String::new()),
        "wildcards" => (format!("*.shop-{number}.example.com"), String::new()),
        "headers" | "queries" | "repeats" => ("shop.example.com".to_owned(), "/basket".to_owned()),
        _ => ("shop.example.com".to_owned(), path(number)),
    };
    let tenant = |name: &str| vec![(name.into(), ValueMatch::Exact(format!("tenant-{number}").into()))];
    Some(Match {
        host: Some(HostPattern::parse(&host).ok()?),
        path: PathMatch::Prefix(path.into()),
        headers: if matches!(case, "headers" | "repeats") { tenant("x-tenant") } else { Vec::new() },
        query: if case == "queries" { tenant("tenant") } else { Vec::new() },
        ..Match::default()
    })
}

fn request(case: &str, number: usize) -> Request {
    let shop = "shop.example.com".to_owned();
    let (host, path) = match case {
        "hosts" => (format!("shop-{number}.example.com"), "/basket/1".to_owned()),
        "wildcards" => (format!("a.b.shop-{number}.example.com"), "/basket/1".to_owned()),
        "headers" | "queries" | "repeats" => (shop, "/basket/1".to_owned()),
        "misses" => (shop, format!("{}-not/basket/1", path(number))),
        "slashes" => (shop, "/".repeat(8 * 1024)),
        _ => (shop, format!("{}/basket/1", path(number))),
    };
    let tenant = if case == "repeats" { "nobody".to_owned() } else { format!("tenant-{number}") };
    let query = if case == "queries" { format!("page=1&tenant={tenant}") } else { String::new() };
    Request { host, path, tenant, query }
}

fn path(number: usize) -> String {
    format!("/team-{}/service-{}/v{number}", number % 10, number / 10 % 100)
}
