//! The routes of one host and one path, which differ in what else they ask for, and the first of them that suits a request.
//!
//! Few are tried one after the other. Of many, those that ask for one exact value are filed by it, so that what a request costs
//! does not grow with the number of tenants, say, that are told apart by a field.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::mem;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{Asked, ValueMatch, pairs};

/// As many are tried one after the other sooner than they are looked up.
const FEW: usize = 8;

/// Routes in the order in which they are asked: those with more conditions first, then as in the file.
#[derive(Debug)]
pub(super) struct Candidates<T> {
    all: Vec<Candidate<T>>,
    index: Option<Box<Index>>,
}

#[derive(Debug)]
struct Candidate<T> {
    /// All but the one that it is filed by, which is met where it is found.
    conditions: Conditions,
    target: T,
}

impl<T> Candidates<T> {
    pub(super) fn new() -> Self {
        Self { all: Vec::new(), index: None }
    }

    /// Adds one behind the others of the file.
    pub(super) fn add(&mut self, conditions: Conditions, target: T) {
        self.all.push(Candidate { conditions, target });
    }

    /// Puts them in order, once all are there.
    pub(super) fn settle(&mut self) {
        self.all.sort_by_key(|candidate| Reverse(candidate.conditions.count()));
        if self.all.len() > FEW {
            self.index = Some(Box::new(Index::over(&mut self.all)));
        }
    }

    /// The first that suits.
    pub(super) fn find(&self, asked: &Asked<'_>) -> Option<&T> {
        let suits = |candidate: &Candidate<T>| candidate.conditions.suit(asked);
        let found = match &self.index {
            None => self.all.iter().find(|candidate| suits(candidate)),
            Some(index) => self.all.get(index.first(asked, |place| self.all.get(place).is_some_and(suits))?),
        };
        found.map(|candidate| &candidate.target)
    }
}

/// What a route asks of requests besides host and path.
#[derive(Clone, Debug)]
pub(super) struct Conditions {
    pub(super) methods: Vec<Box<str>>,
    pub(super) headers: Vec<(Box<str>, ValueMatch)>,
    pub(super) query: Vec<(Box<str>, ValueMatch)>,
}

impl Conditions {
    fn count(&self) -> usize {
        usize::from(!self.methods.is_empty()) + self.headers.len() + self.query.len()
    }

    fn suit(&self, asked: &Asked<'_>) -> bool {
        (self.methods.is_empty() || self.methods.iter().any(|method| method.as_bytes() == asked.method))
            && self.headers.iter().all(|(name, value)| asked.fields.any(name, &mut |found| value.suits(found)))
            && self.query.iter().all(|(name, value)| {
                pairs(asked.query).any(|(found, with)| found == name.as_bytes() && value.suits(with))
            })
    }

    /// The exact values it asks for.
    fn exact(&self) -> impl Iterator<Item = (Key, &str)> {
        let methods = self.methods.iter().map(|method| (Key::Method, &**method));
        let headers = exact_values(&self.headers).map(|(name, value)| (Key::Header(name.into()), value));
        let query = exact_values(&self.query).map(|(name, value)| (Key::Query(name.into()), value));
        methods.chain(headers).chain(query)
    }

    /// Takes out the condition for which a key has to have one of these exact values.
    fn take(&mut self, key: &Key) -> Vec<Box<str>> {
        match key {
            Key::Method => mem::take(&mut self.methods),
            Key::Header(name) => take_exact(&mut self.headers, name).into_iter().collect(),
            Key::Query(name) => take_exact(&mut self.query, name).into_iter().collect(),
        }
    }
}

fn exact_values(pairs: &[(Box<str>, ValueMatch)]) -> impl Iterator<Item = (&str, &str)> {
    pairs.iter().filter_map(|(name, value)| match value {
        ValueMatch::Exact(value) => Some((&**name, &**value)),
        ValueMatch::Any | ValueMatch::Begins(_) | ValueMatch::Ends(_) => None,
    })
}

fn take_exact(pairs: &mut Vec<(Box<str>, ValueMatch)>, name: &str) -> Option<Box<str>> {
    let place = pairs.iter().position(|(own, value)| **own == *name && matches!(value, ValueMatch::Exact(_)))?;
    match pairs.remove(place).1 {
        ValueMatch::Exact(value) => Some(value),
        ValueMatch::Any | ValueMatch::Begins(_) | ValueMatch::Ends(_) => None,
    }
}

/// Something of a request that has values.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key {
    Method,
    /// The fields of a name in lower case.
    Header(Box<str>),
    /// The parameters of a name.
    Query(Box<str>),
}

impl Key {
    fn each_value(&self, asked: &Asked<'_>, visit: &mut dyn FnMut(&[u8])) {
        match self {
            Self::Method => visit(asked.method),
            Self::Header(name) => {
                asked.fields.any(name, &mut |value| {
                    visit(value);
                    false
                });
            }
            Self::Query(name) => {
                pairs(asked.query).filter(|(own, _)| *own == name.as_bytes()).for_each(|(_, value)| visit(value));
            }
        }
    }
}

/// Candidates by their places: each under an exact value that it asks for, or among the others.
#[derive(Debug)]
struct Index {
    filed: Vec<(Key, Files)>,
    others: Vec<usize>,
}

/// The places of those that ask for a value, the first of them first.
type Files = FxHashMap<Box<[u8]>, Vec<usize>>;

impl Index {
    /// Files each under what few others ask for as well, and of several such things under the key that most values are known
    /// of, so that there are few keys.
    fn over<T>(all: &mut [Candidate<T>]) -> Self {
        let mut counts: FxHashMap<Key, FxHashMap<Box<str>, usize>> = FxHashMap::default();
        for (key, value) in all.iter().flat_map(|candidate| candidate.conditions.exact()) {
            *counts.entry(key).or_default().entry(value.into()).or_default() += 1;
        }
        let rank = |(key, value): &(Key, &str)| {
            let values = counts.get(key);
            let alike = values.and_then(|values| values.get(*value)).copied().unwrap_or_default();
            (alike.max(FEW), Reverse(values.map_or(0, FxHashMap::len)))
        };
        let mut filed: BTreeMap<Key, Files> = BTreeMap::new();
        let mut others = Vec::new();
        for (place, Candidate { conditions, target: _ }) in all.iter_mut().enumerate() {
            let Some((key, _)) = conditions.exact().min_by_key(rank) else {
                others.push(place);
                continue;
            };
            let taken = conditions.take(&key);
            let files = filed.entry(key).or_default();
            for value in taken {
                files.entry(value.into_boxed_bytes()).or_default().push(place);
            }
        }
        Self { filed: filed.into_iter().collect(), others }
    }

    /// The first place of one that suits a request, of which a value may stand in many fields.
    fn first(&self, asked: &Asked<'_>, suits: impl Fn(usize) -> bool) -> Option<usize> {
        let mut first = None;
        let mut look_through = |places: &[usize]| {
            let before = first.unwrap_or(usize::MAX);
            first = places.iter().copied().take_while(|place| *place < before).find(|place| suits(*place)).or(first);
        };
        let mut seen = Seen::default();
        for (key, files) in &self.filed {
            key.each_value(asked, &mut |value| {
                if let Some(places) = files.get(value).filter(|places| seen.is_new(places)) {
                    look_through(places);
                }
            });
        }
        look_through(&self.others);
        first
    }
}

/// Which files a request was held against, so that it is once however often it repeats a value.
#[derive(Default)]
struct Seen {
    /// Nearly always there is no other.
    first: Option<usize>,
    others: FxHashSet<usize>,
}

impl Seen {
    fn is_new(&mut self, places: &[usize]) -> bool {
        // Of two files that are found by one request none has a place of the other.
        match (places.first(), self.first) {
            (None, _) => false,
            (Some(own), None) => {
                self.first = Some(*own);
                true
            }
            (Some(own), Some(first)) => *own != first && self.others.insert(*own),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{List, NO_FIELDS};
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;

    fn exact(name: &str, value: impl ToString) -> Vec<(Box<str>, ValueMatch)> {
        vec![(name.into(), ValueMatch::Exact(value.to_string().into()))]
    }

    fn settled(all: impl IntoIterator<Item = Conditions>) -> Candidates<usize> {
        let mut candidates = Candidates::new();
        all.into_iter().enumerate().for_each(|(place, conditions)| candidates.add(conditions, place));
        candidates.settle();
        candidates
    }

    #[test]
    fn of_many_routes_that_ask_for_exact_values_each_is_found_without_trying_the_others() {
        let conditions = |number: usize| match number % 3 {
            0 => Conditions { methods: Vec::new(), headers: exact("x-tenant", number), query: exact("all", "same") },
            1 => Conditions { methods: vec!["GET".into()], headers: Vec::new(), query: exact("id", number) },
            _ => Conditions { methods: vec![format!("M{number}").into()], headers: exact("x", 1), query: Vec::new() },
        };
        let candidates = settled((0..3000).map(conditions));
        for number in 0..3000 {
            let (tenant, query, method) = (number.to_string(), format!("all=same&id={number}"), format!("M{number}"));
            let fields: [(&str, &[u8]); 2] = [("X-Tenant", tenant.as_bytes()), ("X", b"1")];
            let method = if number % 3 == 2 { &*method } else { "GET" };
            let query = query.as_bytes();
            let asked = Asked { host: "", method: method.as_bytes(), path: b"", query, fields: &List(&fields) };
            assert_eq!(candidates.find(&asked), Some(&number));
            let tried = Cell::new(0);
            let suits = |_| {
                tried.set(tried.get() + 1);
                false
            };
            assert_eq!(candidates.index.as_ref().unwrap().first(&asked, suits), None);
            assert!(tried.get() <= 2, "{number}: {}", tried.get());
        }
    }

    #[test]
    fn a_value_that_a_request_repeats_is_looked_for_once() {
        let conditions = |number| Conditions {
            methods: Vec::new(),
            headers: exact("a", number % 2),
            query: exact("b", number / 20),
        };
        let candidates = settled((0..40).map(conditions));
        let tried = Cell::new(0);
        let fields: Vec<(&str, &[u8])> = [("a", &b"0"[..]), ("a", b"1"), ("a", b"2")].repeat(40);
        let asked = Asked { host: "", method: b"GET", path: b"", query: b"", fields: &List(&fields) };
        let suits = |_| {
            tried.set(tried.get() + 1);
            false
        };
        assert_eq!(candidates.index.as_ref().unwrap().first(&asked, suits), None);
        assert_eq!(tried.get(), 40);
    }

    #[test]
    fn few_are_not_filed() {
        let conditions = |number| Conditions { methods: Vec::new(), headers: exact("a", number), query: Vec::new() };
        assert!(settled((0..FEW).map(conditions)).index.is_none());
        assert!(settled((0..=FEW).map(conditions)).index.is_some());
        let asked = Asked { host: "", method: b"GET", path: b"", query: b"", fields: NO_FIELDS };
        assert_eq!(settled([]).find(&asked), None);
    }

    fn values() -> impl Strategy<Value = Vec<(Box<str>, ValueMatch)>> {
        let value = prop_oneof![
            1 => Just(ValueMatch::Any),
            6 => (0..6_u8).prop_map(|value| ValueMatch::Exact(value.to_string().into())),
            1 => Just(ValueMatch::Begins("1".into())),
            1 => Just(ValueMatch::Ends("2".into())),
        ];
        let names = prop::sample::subsequence(vec!["a", "b", "c"], 0..3);
        (names, prop::collection::vec(value, 3))
            .prop_map(|(names, values)| names.into_iter().map(Into::into).zip(values).collect())
    }

    fn conditions() -> impl Strategy<Value = Conditions> {
        let methods = prop::sample::subsequence(vec!["GET", "PUT", "POST"], 0..3);
        let methods = methods.prop_map(|methods| methods.into_iter().map(Into::into).collect());
        (methods, values(), values()).prop_map(|(methods, headers, query)| Conditions { methods, headers, query })
    }

    /// Names and values that a request has, some of them more than once.
    fn had() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
        let name = prop::sample::select(vec!["a", "b", "c"]);
        prop::collection::vec((name, prop::sample::select(vec!["", "0", "1", "2", "3", "4", "5", "12"])), 0..5)
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_trying_one_after_the_other_would_find(
            all in prop::collection::vec(conditions(), 0..60),
            requests in prop::collection::vec((prop::sample::select(vec!["GET", "PUT", "X"]), had(), had()), 1..20),
        ) {
            let candidates = settled(all.clone());
            for (method, header, query) in requests {
                let fields: Vec<(&str, &[u8])> = header.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
                let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
                let query = query.join("&");
                let (method, query) = (method.as_bytes(), query.as_bytes());
                let asked = Asked { host: "", method, path: b"", query, fields: &List(&fields) };
                let suiting = all.iter().enumerate().filter(|(_, conditions)| conditions.suit(&asked));
                let first = suiting.min_by_key(|(_, conditions)| Reverse(conditions.count())).map(|(place, _)| place);
                prop_assert_eq!(candidates.find(&asked).copied(), first);
            }
        }
    }
}
