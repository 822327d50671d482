//! Certificates that run out: said when they are loaded, and again every day while they are in use.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::model::Model;
use crate::snapshot::{Published, Snapshot};
use crate::task::Tasks;

/// How often it is said again.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Reminds for as long as the instance runs. What a file says of its certificates is said when it is loaded; hence the day
/// before the first reminder.
pub(super) fn remind(published: Arc<Published>, tasks: &Tasks) {
    let stop = tasks.stopping().clone();
    tasks.spawn("certificates", async move {
        while stop.run_until_cancelled(tokio::time::sleep(DAY)).await.is_some() {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
            for line in reminders(&published.load(), now) {
                tracing::warn!("{line}");
            }
        }
    });
}

/// What is to be said at a moment, in seconds since 1970: a line for each listener and certificate.
fn reminders(snapshot: &Snapshot, now: i64) -> Vec<String> {
    let warned = now + Model::CERTIFICATE_WARNING.as_secs().cast_signed();
    let mut ending: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for (listener, name, until) in snapshot.certificates().filter(|(_, _, until)| *until < warned) {
        ending.entry((until, listener.clone())).or_default().push(name);
    }
    let lines = ending.into_iter().map(|((until, listener), names)| {
        let (names, days) = (names.join(", "), (until - now).abs() / DAY.as_secs().cast_signed());
        let when = if until < now { format!("ran out {days} days ago") } else { format!("runs out in {days} days") };
        format!("listener {listener}: the certificate for {names} {when}")
    });
    lines.collect()
}
