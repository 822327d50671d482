//! What the file says of servers that are ejected, with the place where it says it.

use std::time::Duration;

use super::keys::Section;
use super::read::{At, Fields, Read};
use crate::units::Percent;

/// The most outcomes in a row that it can be made to take.
const MOST_IN_A_ROW: i64 = 1000;

#[derive(Debug)]
pub(super) struct RawOutlier {
    pub(super) consecutive_5xx: Option<At<u16>>,
    pub(super) consecutive_gateway: Option<At<u16>>,
    pub(super) consecutive_failures: Option<At<u16>>,
    pub(super) ejection: Option<At<Duration>>,
    pub(super) max_ejection: Option<At<Duration>>,
    pub(super) max_ejected: Option<At<Percent>>,
}

impl<'t> Read<'t> for RawOutlier {
    const SECTION: Section = Section::Outlier;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        Self {
            consecutive_5xx: fields.optional("consecutive_5xx").whole_number(0..=MOST_IN_A_ROW),
            consecutive_gateway: fields.optional("consecutive_gateway").whole_number(0..=MOST_IN_A_ROW),
            consecutive_failures: fields.optional("consecutive_failures").whole_number(0..=MOST_IN_A_ROW),
            ejection: fields.optional("ejection").deadline(),
            max_ejection: fields.optional("max_ejection").deadline(),
            max_ejected: fields.optional("max_ejected").percent(),
        }
    }
}
