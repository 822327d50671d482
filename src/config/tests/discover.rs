//! Where servers are found: what every key means, what hosts in `servers` mean, and what is said of what cannot be asked.

use super::*;
use crate::config::model::{Discover, Server};
use crate::discovery::{Endpoint, Host, Lookup, Record, Source, Terms};
use crate::units::Name;
use std::time::Duration;

/// A file whose pool has this in its table.
fn pool(keys: &str) -> String {
    format!("[listeners.web]\nbind = 80\npool = \"web\"\n[pools.web]\n{keys}\n")
}

fn discovers(keys: &str) -> Vec<Discover> {
    model(&pool(keys)).pools.remove(0).discover
}

fn lookup(discover: &Discover) -> &Lookup {
    match &discover.source {
        Source::Dns(lookup) => lookup,
        other @ (Source::File(_) | Source::Http(_)) => panic!("{other}"),
    }
}

#[test]
fn a_host_name_among_the_servers_is_asked_for_and_its_settings_are_those_of_its_servers() {
    let model = model(&pool(
        "servers = [\"10.0.0.1:80\", \"API.internal:http\", { name = \"b\", address = \"b.internal:81\", weight = 3 }]",
    ));
    let web = &model.pools[0];
    assert_eq!(web.servers.len(), 1);
    let shown: Vec<_> = web.discover.iter().map(|discover| discover.source.to_string()).collect();
    assert_eq!(shown, ["dns api.internal:80", "dns b.internal:81"]);
    let Discover { terms, prefix, like: Server { weight, .. }, .. } = &web.discover[1];
    assert_eq!((*terms, prefix.as_ref().unwrap().as_str(), weight.get()), (Terms::default(), "b", 3));
    assert_eq!(web.discover[0].prefix, None);
}

#[test]
fn every_key_of_dns_reaches_the_model() {
    let all = discovers(
        "discover = { type = \"dns\", name = \"_http._tcp.api.internal\", resolvers = [\"10.0.0.2\", \"[fd00::1]:8600\"], \
         interval = \"3s\", min_ttl = \"2s\", max_ttl = \"1m\", timeout = \"1s\", allow_empty = true, \
         allow_loopback = true, max_servers = 7 }",
    );
    let Lookup { name, record, resolvers } = lookup(&all[0]);
    assert_eq!((name.as_str(), *record), ("_http._tcp.api.internal", Record::Srv));
    assert_eq!(resolvers.0.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.2:53", "[fd00::1]:8600"]);
    let seconds = Duration::from_secs;
    let terms = Terms {
        interval: Some(seconds(3)),
        min_ttl: seconds(2),
        max_ttl: seconds(60),
        timeout: seconds(1),
        allow_empty: true,
        allow_loopback: true,
        max_servers: 7,
    };
    assert_eq!(all[0].terms, terms);
    let record = |keys| lookup(&discovers(&format!("discover = {{ type = \"dns\", {keys} }}"))[0]).record;
    assert_eq!(record("name = \"api.internal:81\""), Record::Address { port: 81 });
    assert_eq!(record("name = \"api.service.consul\", record = \"srv\""), Record::Srv);
    let moved = discovers("discover = { type = \"dns\", name = \"a.b:1\", min_ttl = \"10m\" }")[0].terms;
    assert_eq!([moved.min_ttl, moved.max_ttl], [seconds(600); 2]);
}

#[test]
fn without_a_name_discover_says_how_the_names_among_the_servers_are_resolved() {
    let all = discovers(
        "servers = [\"a.internal:80\"]\ndiscover = { type = \"dns\", resolvers = [\"10.0.0.2\"], interval = \"3s\" }",
    );
    assert_eq!(all.len(), 1);
    assert_eq!(lookup(&all[0]).resolvers.0[0].to_string(), "10.0.0.2:53");
    assert_eq!(all[0].terms.interval, Some(Duration::from_secs(3)));
    let both = discovers(
        "servers = [\"a.internal:80\"]\ndiscover = { type = \"dns\", name = \"b.internal:80\", resolvers = [\"10.0.0.2\"] }",
    );
    assert!(both.len() == 2 && both.iter().all(|discover| lookup(discover).resolvers.0.len() == 1));
}

#[test]
fn only_what_comes_from_this_machine_may_lead_to_it_by_default() {
    let allowed = |keys: &str| discovers(keys).last().unwrap().terms.allow_loopback;
    assert!(allowed("discover = { type = \"file\", path = \"servers.json\" }"));
    assert!(allowed("discover = { type = \"http\", url = \"http://127.0.0.1:8500/list\" }"));
    assert!(allowed("discover = { type = \"http\", url = \"http://[::1]/list\" }"));
    assert!(allowed("servers = [\"localhost:80\"]"));
    assert!(!allowed("discover = { type = \"http\", url = \"http://registry.internal/list\" }"));
    assert!(!allowed("servers = [\"api.internal:80\"]"));
    assert!(!allowed("discover = { type = \"dns\", name = \"api.internal:80\", resolvers = [\"127.0.0.1\"] }"));
}

#[test]
fn an_endpoint_is_a_url_and_a_file_is_relative_to_the_configuration() {
    let endpoint =
        |url: &str| match discovers(&format!("discover = {{ type = \"http\", url = \"{url}\" }}")).remove(0).source {
            Source::Http(endpoint) => endpoint,
            other @ (Source::Dns(_) | Source::File(_)) => panic!("{other}"),
        };
    let Endpoint { host, port, target, authority, tls, .. } =
        endpoint("http://Registry.internal:8000/v1/list?pool=web");
    assert!(matches!(host, Host::Name(name) if name.as_str() == "registry.internal"));
    assert_eq!((port, target.as_str(), authority.as_str()), (8000, "/v1/list?pool=web", "Registry.internal:8000"));
    assert!(tls.is_none());
    let secure = endpoint("https://[2001:db8::1]");
    assert!(matches!(secure.host, Host::Address(ip) if ip.is_ipv6()) && secure.tls.is_some());
    assert_eq!((secure.port, secure.target.as_str()), (443, "/"));
    assert_eq!(Source::Http(endpoint("http://a.internal/x?token=secret")).to_string(), "http http://a.internal/x");
    let file = discovers("discover = { type = \"file\", path = \"lists/web.toml\" }").remove(0).source;
    assert!(matches!(file, Source::File(path) if path.is_absolute() && path.ends_with("lists/web.toml")));
}

#[test]
fn servers_that_are_found_by_one_name_have_certificates_for_it() {
    let name = |keys: &str| model(&pool(keys)).pools[0].tls.as_ref().unwrap().name().map(|name| name.into_owned());
    assert_eq!(name("tls = {}\nservers = [\"api.internal.:443\"]").as_deref(), Some("api.internal"));
    let dns = "discover = { type = \"dns\", name = \"api.internal:443\" }";
    assert_eq!(name(&format!("tls = {{}}\n{dns}")).as_deref(), Some("api.internal"));
    assert_eq!(name(&format!("tls = {{ server_name = \"x\" }}\n{dns}")).as_deref(), Some("x"));
    let srv = "discover = { type = \"dns\", name = \"_a._tcp.internal\" }";
    assert_eq!(name(&format!("tls = {{}}\n{srv}")), None);
    for several in
        ["servers = [\"a.internal:443\", \"b.internal:443\"]", "servers = [\"a.internal:443\", \"10.0.0.1:443\"]"]
    {
        let said = said(&pool(&format!("tls = {{}}\n{several}")));
        assert!(said.len() == 1 && said[0].contains("found by several names"), "{said:?}");
    }
}

#[test]
fn what_cannot_be_asked_is_refused_where_it_stands() {
    let discover = |keys: &str| pool(&format!("discover = {{ {keys} }}"));
    for (text, expected) in [
        (discover("name = \"a.b:80\""), "5:12 `discover` needs the key `type`"),
        (discover("type = \"consul\""), "5:21 `type` cannot be \"consul\""),
        (discover("type = \"dns\""), "5:12 `discover` with the type `dns` needs the key `name`"),
        (discover("type = \"file\""), "5:12 `discover` with the type `file` needs the key `path`"),
        (discover("type = \"http\""), "5:12 `discover` with the type `http` needs the key `url`"),
        (discover("type = \"dns\", record = \"srv\""), "5:37 `record` means nothing without `name`"),
        (discover("type = \"dns\", name = \"a.b\""), "5:35 \"a.b\" is not a name to ask for"),
        (discover("type = \"dns\", name = \"a.b:80\", record = \"srv\""), "5:35 \"a.b:80\" is not a name to ask for"),
        (discover("type = \"dns\", name = \"10.0.0.1:80\""), "5:35 \"10.0.0.1:80\" is not a name to ask for"),
        (discover("type = \"dns\", name = \"a.b:80\", resolvers = [\"ns.b\"]"), "5:58 \"ns.b\" is not a resolver"),
        (
            discover("type = \"dns\", name = \"a.b:80\", path = \"x\""),
            "5:52 `path` of `discover` means nothing unless its type is `file`",
        ),
        (
            discover("type = \"file\", path = \"x\", timeout = \"1s\""),
            "5:51 `timeout` of `discover` means nothing unless its type is `dns` or `http`",
        ),
        (
            discover("type = \"dns\", name = \"a.b:80\", min_ttl = \"1m\", max_ttl = \"1s\""),
            "5:55 the `min_ttl` of a pool (1m) is longer than its `max_ttl` (1s)",
        ),
        (discover("type = \"dns\", name = \"a.b:80\", max_servers = 0"), "5:59 `max_servers` cannot be 0"),
        (discover("type = \"http\", url = \"ftp://a.b/\""), "5:35 \"ftp://a.b/\" is not an endpoint"),
        (discover("type = \"http\", url = \"http://me@a.b/\""), "5:35 \"http://me@a.b/\" is not an endpoint"),
        (
            discover("type = \"http\", url = \"http://a.b/\", ca = \"x\""),
            "5:55 `ca` means nothing without a `url` that begins with \"https://\"",
        ),
        (pool(""), "4:1 a pool needs the key `servers`"),
        (pool("servers = []"), "5:11 `servers` cannot be empty"),
        (pool("servers = [\"a.b:80\", \"A.b:80\"]"), "5:22 the server \"a.b:80\" of this pool has this address too"),
        (pool("servers = [\"10.0.0.256:80\"]"), "5:12 \"10.0.0.256:80\" is not the address of a server"),
        (
            pool("servers = [{ address = \"a.b:80\", weight = 0 }]"),
            "5:11 every server of this pool has weight 0, so none would be given a connection",
        ),
    ] {
        let said = said(&text);
        assert!(said.iter().any(|said| said.starts_with(expected)), "{text}\n{said:#?}\n{expected}");
    }
    let name = "n".repeat(Name::LONGEST);
    let said = said(&pool(&format!("servers = [{{ name = \"{name}\", address = \"a.b:80\" }}]")));
    assert!(said.len() == 1 && said[0].contains("is too long for what has a host name"), "{said:?}");
}

#[test]
fn a_pool_with_sources_needs_no_servers_and_nothing_is_asked_or_read_when_it_is_checked() {
    assert_eq!(said(&pool("servers = []\ndiscover = { type = \"file\", path = \"/nonexistent/list\" }")), [""; 0]);
    assert_eq!(said(&pool("discover = { type = \"dns\", name = \"does-not-exist.invalid:80\" }")), [""; 0]);
    let spare = "servers = [{ address = \"10.0.0.1:80\", weight = 0 }]\ndiscover = { type = \"file\", path = \"x\" }";
    assert_eq!(said(&pool(spare)), [""; 0]);
}
