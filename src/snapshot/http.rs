//! What requests need to know: of a listener its settings and its routes, with the pools found; of a pool which cookie is for
//! which server.

use std::collections::HashMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::admission::Users;
use crate::backend::Server;
use crate::config::model::http::{Action, Http, HttpLimits, Route};
use crate::message::line::{LONGEST_HEAD, Limits};
use crate::metrics::Gauge;
use crate::net::address::ClientAddr;
use crate::pool::Pool;
use crate::pool::sticky::{Mark, Sticky, StickyTable, cookie_value};
use crate::route::http::{Asked, HttpRoutes, Match};
use crate::units::Name;

/// What requests of a listener need to know.
#[derive(Debug)]
pub struct HttpInEffect {
    /// What was asked for.
    pub settings: Arc<Http>,
    /// What heads of requests may be like.
    pub limits: Limits,
    routes: HttpRoutes<RouteInEffect>,
    /// For what no route takes.
    fallback: Option<RouteInEffect>,
    /// The gauge of each route by what it matches: its identity across reloads.
    gauges: HashMap<String, Arc<Gauge>>,
    /// The users of its routes, each set of them once.
    users: Vec<Arc<Users>>,
}

/// A route with its pools found.
#[derive(Debug)]
pub struct RouteInEffect {
    /// What was asked for.
    pub route: Route,
    /// Requests at once, counted across reloads that leave what it matches as it is.
    pub in_flight: Arc<Gauge>,
    /// The pools of its action, each with the weights of all up to it.
    targets: Box<[(usize, u64)]>,
    /// The pool that gets copies.
    pub mirror: Option<usize>,
}

impl HttpInEffect {
    /// Puts the settings into effect. `pools` knows each pool's place; `fallback` is the pool for what no route takes.
    #[must_use]
    pub fn build(
        settings: &Arc<Http>,
        fallback: Option<&Name>,
        pools: &FxHashMap<Name, usize>,
        before: Option<&Self>,
    ) -> Self {
        let mut gauges = HashMap::new();
        let mut users = KeptUsers::of(before);
        let mut in_effect = |route: &Route| {
            let key = format!("{:?}", route.matches);
            let kept = before.and_then(|before| before.gauges.get(&key));
            let in_flight = kept.map(Arc::clone).unwrap_or_default();
            gauges.insert(key, Arc::clone(&in_flight));
            let mut sum = 0;
            let mut target = |name: &Name, weight: u64| {
                sum += weight;
                Some((*pools.get(name)?, sum))
            };
            let targets = match &route.action {
                Action::Pool(name) => target(name, 1).into_iter().collect(),
                Action::Split(all) => {
                    all.iter().filter_map(|(name, weight)| target(name, weight.get().into())).collect()
                }
                Action::Redirect { .. } | Action::Respond { .. } => Box::default(),
            };
            let mirror = route.mirror.as_ref().and_then(|name| pools.get(name).copied());
            let route = Route { users: route.users.as_ref().map(|own| users.keep(own)), ..route.clone() };
            RouteInEffect { route, in_flight, targets, mirror }
        };
        let HttpLimits { header_bytes, header_fields, uri_bytes, underscores, .. } = settings.limits;
        let first_line = uri_bytes + 64 + 16;
        let routes = settings.routes.iter().map(|route| (route.matches.clone(), in_effect(route)));
        let routes = HttpRoutes::new(routes);
        let fallback = fallback.map(|pool| in_effect(&Route::to(pool.clone(), settings.compress)));
        Self {
            limits: Limits {
                target: uri_bytes,
                first_line,
                bytes: header_bytes.min(LONGEST_HEAD - first_line.min(LONGEST_HEAD)),
                fields: header_fields,
                underscores,
            },
            routes,
            fallback,
            gauges,
            users: users.in_effect,
            settings: Arc::clone(settings),
        }
    }

    /// Where a request leads, if anywhere.
    #[must_use]
    pub fn find(&self, asked: &Asked<'_>) -> Option<&RouteInEffect> {
        self.routes.find(asked).or(self.fallback.as_ref())
    }

    /// Whether what this peer says of whom it speaks for is believed.
    #[must_use]
    pub fn trusts(&self, peer: &ClientAddr) -> bool {
        self.settings.trusted_proxies.contain(peer)
    }
}

/// Users that stay as they are while they are the same, since they remember whose passwords they have verified.
struct KeptUsers<'a> {
    before: &'a [Arc<Users>],
    in_effect: Vec<Arc<Users>>,
    /// What became of each, by where it is in memory.
    known: HashMap<usize, Arc<Users>>,
}

impl<'a> KeptUsers<'a> {
    fn of(before: Option<&'a HttpInEffect>) -> Self {
        let before = before.map(|before| &*before.users).unwrap_or_default();
        Self { before, in_effect: Vec::new(), known: HashMap::new() }
    }

    fn keep(&mut self, users: &Arc<Users>) -> Arc<Users> {
        let Self { before, in_effect, known } = self;
        let kept = known.entry(Arc::as_ptr(users).addr()).or_insert_with(|| {
            let same = in_effect.iter().chain(*before).find(|same| *same == users);
            let kept = Arc::clone(same.unwrap_or(users));
            if !in_effect.iter().any(|own| Arc::ptr_eq(own, &kept)) {
                in_effect.push(Arc::clone(&kept));
            }
            kept
        });
        Arc::clone(kept)
    }
}

impl RouteInEffect {
    /// The place of the pool that a request goes to, drawn by weight where there are several; none if it is answered here.
    #[must_use]
    pub fn draw(&self) -> Option<usize> {
        match &*self.targets {
            [] => None,
            [(only, _)] => Some(*only),
            several => {
                let total = several.last().map_or(1, |(_, sum)| *sum).max(1);
                let drawn = fastrand::u64(..total);
                several.iter().find(|(_, sum)| drawn < *sum).map(|(pool, _)| *pool)
            }
        }
    }
}

/// How clients are kept with a server of a pool.
#[derive(Debug)]
pub struct StickyInEffect {
    settings: Arc<Sticky>,
    table: StickyTable,
    /// The place and the `Set-Cookie` of each server, by where its state is in memory.
    cookies: HashMap<usize, (usize, Box<str>)>,
}

impl StickyInEffect {
    /// What a pool is asked for, with the cookies made.
    #[must_use]
    pub fn new(settings: &Arc<Sticky>, pool: &Pool) -> Self {
        let cookie = |(place, server): (usize, &Server)| {
            let cookie = settings.set_cookie(&Mark::of(pool.name(), &server.state.name));
            (Arc::as_ptr(&server.state).addr(), (place, cookie.into_boxed_str()))
        };
        Self {
            settings: Arc::clone(settings),
            table: pool.sticky_table(),
            cookies: pool.servers().enumerate().map(cookie).collect(),
        }
    }

    /// The place among the pool's servers of the one that these `Cookie` fields are for.
    #[must_use]
    pub fn find<'a>(&self, mut fields: impl Iterator<Item = &'a [u8]>) -> Option<usize> {
        self.table.find(fields.find_map(|field| cookie_value(field, &self.settings.cookie))?)
    }

    /// What makes a client come back to this server, unless it is the one at the place where the client was before.
    #[must_use]
    pub fn cookie(&self, server: &Server, before: Option<usize>) -> Option<&str> {
        let (place, cookie) = self.cookies.get(&Arc::as_ptr(&server.state).addr())?;
        (before != Some(*place)).then_some(cookie)
    }

    /// The cookie's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.settings.cookie
    }
}

impl Route {
    /// All requests go to this pool.
    fn to(pool: Name, compress: bool) -> Self {
        Self {
            matches: Match::default(),
            action: Action::Pool(pool),
            rewrite: Default::default(),
            request_headers: Default::default(),
            response_headers: Default::default(),
            timeout: std::time::Duration::ZERO,
            retries: None,
            mirror: None,
            acl: Default::default(),
            users: None,
            realm: Box::default(),
            max_in_flight: u32::MAX,
            compress,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANNA: &str = "anna:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";

    fn build(users: &[&Arc<Users>], before: Option<&HttpInEffect>) -> HttpInEffect {
        let route =
            |users: &&Arc<Users>| Route { users: Some(Arc::clone(users)), ..Route::to(Name::new("web"), false) };
        let settings = Http { routes: users.iter().map(route).collect(), ..Http::default() };
        HttpInEffect::build(&Arc::new(settings), None, &FxHashMap::default(), before)
    }

    #[test]
    fn users_who_are_the_same_after_a_reload_stay_and_so_does_what_is_known_of_them() {
        let read = |text: &str| Arc::new(Users::parse(text).unwrap());
        let (first, again, others) = (read(ANNA), read(ANNA), read(&ANNA.replace("anna", "otto")));
        let before = build(&[&first, &first], None);
        assert_eq!(before.users.len(), 1);
        let after = build(&[&again, &others, &again], Some(&before));
        assert_eq!(after.users.len(), 2);
        assert!(Arc::ptr_eq(&after.users[0], &first) && Arc::ptr_eq(&after.users[1], &others));
        let last = build(&[&read(ANNA)], Some(&after));
        assert!(Arc::ptr_eq(&last.users[0], &first));
    }
}
