//! How many requests a route has at once.

use std::sync::Arc;

use crate::metrics::Gauge;
use crate::snapshot::RouteInEffect;

/// One request counted as its route's, until it is dropped.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Gauge>);

impl InFlight {
    /// Counts one more, unless the route has all that it may have. Where it may have any number nobody counts: all workers would
    /// write to one place with each request.
    pub(super) fn enter(route: &RouteInEffect) -> Result<Option<Self>, Full> {
        match route.route.max_in_flight {
            u32::MAX => Ok(None),
            most if route.in_flight.enter(most) => Ok(Some(Self(Arc::clone(&route.in_flight)))),
            _ => Err(Full),
        }
    }
}

/// A route has as many requests as it may have.
pub(super) struct Full;

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.leave();
    }
}
