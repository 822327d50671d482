//! From the file as it is written to the model: every problem is found at once, and a model has none.
//!
//! `raw` holds what the file says with the place where it says it, `resolve` turns that into [`model::Model`] or into
//! [`Problem`]s, `report` prints those for a person or a program.

pub mod model;
