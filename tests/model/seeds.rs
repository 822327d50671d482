//! The seeds of a run, and the word that tells which of them failed.

/// How many seeds are tried unless the environment says otherwise.
pub(crate) const FEW: u64 = 20;
/// The same for what everything hangs on.
pub(crate) const MANY: u64 = 200;

/// Names the seed if the test panics while it is alive.
pub(crate) struct Witness {
    test: &'static str,
    seed: u64,
}

impl Drop for Witness {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "{} failed: replay it with `SEED={} cargo test --test model {}`",
                self.test, self.seed, self.test
            );
        }
    }
}

/// Whether one seed is looked at again, which need not show everything that can be seen.
pub(crate) fn is_replay() -> bool {
    std::env::var_os("SEED").is_some()
}

/// Every seed to try, each with its witness. The thread's own generator, which the algorithms use, starts from it as well.
pub(crate) fn all(test: &'static str, count: u64) -> impl Iterator<Item = (u64, Witness)> {
    let number = |key: &str| {
        let text = std::env::var(key).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{key}={text:?} is no whole number")))
    };
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(count),
    };
    seeds.map(move |seed| {
        fastrand::seed(seed);
        (seed, Witness { test, seed })
    })
}
