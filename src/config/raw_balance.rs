//! What the file says of how a server is chosen, with the place where it says it.

use std::time::Duration;

use super::keys::Section;
use super::read::{At, Either, Field, Fields, Read};
use crate::balance::{LoadFactor, Policy, TableSize};

/// The word for an algorithm, or a table with its settings.
#[derive(Debug)]
pub(super) struct RawBalance<'t> {
    /// With the settings that are its defaults.
    pub(super) algorithm: Option<At<&'static Policy>>,
    pub(super) key: Option<At<&'t str>>,
    /// `None` where it is said to be off.
    pub(super) load_factor: Option<At<Option<LoadFactor>>>,
    pub(super) table_size: Option<At<u32>>,
    pub(super) decay: Option<At<Duration>>,
}

impl<'t> RawBalance<'t> {
    pub(super) fn either(field: Field<'t, '_>) -> Option<Self> {
        match field.table_or(policy)? {
            Either::Table(balance) => Some(balance),
            Either::Short(policy) => {
                Some(Self { algorithm: Some(policy), key: None, load_factor: None, table_size: None, decay: None })
            }
        }
    }
}

impl<'t> Read<'t> for RawBalance<'t> {
    const SECTION: Section = Section::Balance;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        let factor = format!("a number from {} to {}, or \"off\"", LoadFactor::LEAST, LoadFactor::MOST);
        Self {
            algorithm: policy(fields.required("algorithm")),
            key: fields.optional("key").text(),
            load_factor: fields.optional("load_factor").number_or_off(&factor, LoadFactor::new),
            table_size: fields.optional("table_size").whole_number(TableSize::LEAST.into()..=TableSize::MOST.into()),
            decay: fields.optional("decay").deadline(),
        }
    }
}

fn policy(field: Field<'_, '_>) -> Option<At<&'static Policy>> {
    let words: Vec<_> = Policy::ALL.iter().map(|policy| (policy.label(), policy)).collect();
    field.word(&words)
}
