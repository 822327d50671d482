//! Answers of those who know servers: random, often odd, and what should become of them.

use std::collections::HashMap;

use fastrand::Rng;
use portreeve::app::{SourceKey, sources_of, take_answer};
use portreeve::config::model::Model;
use portreeve::discovery::{Content, Format};
use portreeve::snapshot::Snapshot;

use super::asked::{Asked, AskedServer, AskedSource};
use super::life::Life;

/// The last good answer that each pool has had.
pub(crate) type Answers = HashMap<&'static str, Vec<AskedServer>>;

/// Of what was answered, what counts.
fn heeded(mut answer: Vec<AskedServer>, source: AskedSource) -> Option<Vec<AskedServer>> {
    answer.sort_by_key(|server| (server.port, server.name()));
    let mut first: Vec<AskedServer> = Vec::new();
    for server in answer {
        if first.len() < source.max_servers && first.iter().all(|other| other.port != server.port) {
            first.push(server);
        }
    }
    Some(first).filter(|first| source.allow_empty || !first.is_empty())
}

/// What is asked for with what was found: a server of the file goes before one that was found.
pub(crate) fn merged(asked: &Asked, answers: &Answers) -> Asked {
    let mut merged = asked.clone();
    for pool in merged.pools.iter_mut().filter(|pool| pool.discover.is_some()) {
        for server in answers.get(pool.name).into_iter().flatten() {
            let is_there = |other: &AskedServer| other.name() == server.name() || other.port == server.port;
            if !pool.servers.iter().any(is_there) {
                pool.servers.push(server.clone());
            }
        }
    }
    merged
}

/// An answer, and its text.
fn any_answer(before: Option<&Vec<AskedServer>>, random: &mut Rng) -> (Vec<AskedServer>, String) {
    let mut answer: Vec<AskedServer> = before.cloned().unwrap_or_default();
    // Most answers are like the one before.
    match random.u8(..10) {
        0 => answer.clear(),
        1 => {}
        2..5 if !answer.is_empty() => drop(answer.remove(random.usize(..answer.len()))),
        5 => random.shuffle(&mut answer),
        _ => {
            for _ in 0..random.usize(1..4) {
                let server = AskedServer::any(random);
                // One of the same name takes its place; a list with a name twice is refused as a whole.
                answer.retain(|other| other.name() != server.name());
                answer.push(server);
            }
        }
    }
    let servers: Vec<String> = answer.iter().map(|server| server.text(random)).collect();
    let text = format!("servers = [{}]", servers.join(", "));
    (answer, text)
}

impl Life {
    /// A source of a pool answers, well or badly.
    pub(crate) fn hears_of_servers(&mut self) {
        let all: Vec<_> = self.asked.pools.iter().filter_map(|pool| Some((pool.name, pool.discover?))).collect();
        let Some((pool, source)) = self.random.choice(all) else { return };
        let snapshot = self.published.load_full();
        let (key, discover) = sources_of(&snapshot.model).find(|(key, _)| key.0.as_str() == pool).unwrap();
        let discover = &discover.clone();
        drop(snapshot);
        let (answer, text) = any_answer(self.answers.get(pool), &mut self.random);
        if self.random.u8(..8) == 0 {
            let broken = text.replacen('[', "{", 1);
            assert!(take_answer(Content::List(broken.into_bytes(), Format::Toml), discover).is_err());
            assert_eq!(take_answer(Content::Same, discover), Ok(None));
            return self.follows_the_answers();
        }
        let taken = take_answer(Content::List(text.clone().into_bytes(), Format::Toml), discover);
        let taken = taken.unwrap_or_else(|why| panic!("{why}\n{text}")).unwrap();
        let heeded = heeded(answer, source);
        assert_eq!(taken.is_usable(discover), heeded.is_some(), "{text}");
        if let Some(heeded) = heeded {
            self.known.0.insert(key, taken.servers);
            self.answers.insert(pool, heeded);
        }
        self.follows_the_answers();
    }

    /// Puts what is known by now into effect, unless that makes no difference.
    fn follows_the_answers(&mut self) {
        let previous = self.published.load_full();
        let model = self.with_found(Model::clone(&self.plain));
        let merged = merged(&self.asked, &self.answers);
        let is_other = merged != self.merged;
        assert_eq!(model != previous.model, is_other, "an answer makes a difference, or none");
        if !is_other {
            return;
        }
        let built = Snapshot::rebuild(model, &previous, &self.catalogue);
        assert_eq!((built.generation, built.edition), (previous.generation, previous.edition + 1));
        let view = self.plan(&merged);
        self.merged = merged;
        self.answers_followed += 1;
        self.publish(built, previous, view);
    }

    pub(crate) fn with_found(&self, mut model: Model) -> Model {
        self.known.add_to(&mut model);
        model
    }

    /// Forgets the answers of sources that nobody asks any more.
    pub(crate) fn forget_answers(&mut self, model: &Model) {
        let wanted: Vec<SourceKey> = sources_of(model).map(|(key, _)| key).collect();
        self.known.0.retain(|key, _| wanted.contains(key));
        let asked: Vec<&str> = self.asked.pools.iter().filter(|p| p.discover.is_some()).map(|p| p.name).collect();
        self.answers.retain(|pool, _| asked.contains(pool));
        assert_eq!(self.known.0.len(), self.answers.len());
    }
}
