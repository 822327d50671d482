//! Whole lives in seconds: random events on a paused clock, held against a model so naive that it can be believed.
//!
//! `life` runs pools, health, reloads, answers of discovery and primaries through ten thousand steps a seed; `naive` and
//! `reign` are what it is held against, `asked` the configurations it reloads and `found` the answers. What chance decides
//! is held against how likely it was, over all seeds, by `naive::shares`. `checker` looks likewise after the loop that probes,
//! `ejection` to the jury that ejects; `parsers` and `client_hello` feed mutated text and bytes to whatever reads them.
//! `SEED=7` replays one seed, `SEEDS=500` widens; the default is twenty, and 200 for `life` and `ejection`.

#![allow(
    clippy::disallowed_methods,
    reason = "tasks and sockets of the tests' own do not go through task or net::dial"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a broken expectation should stop loudly"
)]
#![allow(clippy::print_stderr, reason = "a failure names its seed")]
#![allow(clippy::large_futures, reason = "tests run once")]

mod asked;
mod checker;
mod client_hello;
mod ejection;
mod found;
mod life;
mod naive;
mod parsers;
mod reign;
mod seeds;
