//! What the file says of servers that are ejected, with the place where it says it.

use std::time::Duration;

use super::keys::Section;
use super::read::{At, Fields, Read};
use crate::units::Percent;

/// The most outcomes in a row that it can be made to take.
const MOST_IN_A_ROW: i64 = 1000;
/// The most standard deviations that a server can be allowed to be worse than others, in thousandths.
const MOST_THOUSANDTHS: i64 = 10_000;
/// The most servers, and requests of each, that a comparison can be made to take.
const MOST_COMPARED: i64 = 1000;
const MOST_REQUESTS: i64 = 1_000_000;

#[derive(Debug)]
pub(super) struct RawOutlier {
    pub(super) consecutive_5xx: Option<At<u16>>,
    pub(super) consecutive_gateway: Option<At<u16>>,
    pub(super) consecutive_failures: Option<At<u16>>,
    pub(super) first_byte: Option<At<Duration>>,
    pub(super) server_speaks_first: Option<At<bool>>,
    pub(super) success_rate_factor: Option<At<u16>>,
    pub(super) success_rate_margin: Option<At<Percent>>,
    pub(super) success_rate_min_servers: Option<At<u16>>,
    pub(super) success_rate_min_requests: Option<At<u32>>,
    pub(super) interval: Option<At<Duration>>,
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
            first_byte: fields.optional("first_byte").duration(),
            server_speaks_first: fields.optional("server_speaks_first").boolean(),
            success_rate_factor: fields.optional("success_rate_factor").whole_number(0..=MOST_THOUSANDTHS),
            success_rate_margin: fields.optional("success_rate_margin").percent(),
            success_rate_min_servers: fields.optional("success_rate_min_servers").whole_number(2..=MOST_COMPARED),
            success_rate_min_requests: fields.optional("success_rate_min_requests").whole_number(1..=MOST_REQUESTS),
            interval: fields.optional("interval").deadline(),
            ejection: fields.optional("ejection").deadline(),
            max_ejection: fields.optional("max_ejection").deadline(),
            max_ejected: fields.optional("max_ejected").percent(),
        }
    }
}
