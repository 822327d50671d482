//! Says when so few servers of a pool are fit that nobody asks whether they are, and when that is over.

use crate::pool::Pool;

/// Looks whether that has changed: called whenever something has that it hangs on.
pub(super) fn look(pool: &Pool) {
    let fails_open = pool.fails_open();
    if !pool.state().metrics.set_fails_open(fails_open) {
        return;
    }
    let (name, least) = (pool.name(), pool.rules().fail_open);
    if fails_open {
        tracing::warn!(pool = %name, "pool fails open: less than {least} of its servers are fit, so all of them are used");
    } else {
        tracing::info!(pool = %name, "pool no longer fails open: only servers that are fit are used");
    }
}
