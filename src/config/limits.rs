//! How many connections fit into the descriptors this process may open: numbers in, numbers out.

/// What this process may use of the machine. A value of its own, so that what a file means can be tested without
/// depending on where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Environment {
    /// The most descriptors the process may have open, `u64::MAX` for as many as it likes.
    pub descriptor_limit: u64,
    /// The processor cores it may run on.
    pub cores: usize,
}

impl Environment {
    /// Asks the kernel: the hard limit of open files, which the process raises its soft one to (getrlimit(2)), and the
    /// cores by affinity and cgroup.
    #[must_use]
    pub fn of_this_process() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        Self {
            descriptor_limit: limit.maximum.unwrap_or(u64::MAX),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// What a configuration opens apart from connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    pub(super) workers: usize,
    /// The addresses listened on; each worker has a socket for each.
    pub(super) addresses: usize,
    /// The servers that are checked.
    pub(super) checked: usize,
    /// Where servers are found.
    pub(super) sources: usize,
    /// Those of them whose check keeps its connection.
    pub(super) kept: usize,
}

/// How the descriptors the process may open are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// The most the process may have open.
    pub limit: u64,
    /// Kept for all that is not a proxied connection: listening sockets, checks, pipes, logs, the admin listener.
    pub reserve: u64,
    /// The most pipes a worker keeps for splicing (splice(2)); each takes two descriptors.
    pub pipes_per_worker: usize,
    /// The most connections that fit beside the reserve, two descriptors each.
    pub max_connections: u32,
}

impl Descriptors {
    /// The most connections that are planned for when nothing is configured, however many descriptors there are.
    pub const MOST_CONNECTIONS: u32 = 1_000_000;
    /// What a proxied connection holds: one descriptor to the client and one to the server.
    const PER_CONNECTION: u64 = 2;
    /// Logs, the admin listener and its connections, signals, the runtimes' own.
    const HOUSEHOLD: u64 = 64;
    /// Checks that are under way at once, at most.
    const CHECKS: u64 = 256;
    /// Sources that are asked at once, at most.
    const SOURCES: u64 = 16;
    /// What asking one takes, at most: a socket for each kind of address, and as many again for a second try.
    const PER_SOURCE: u64 = 4;

    pub(super) fn plan(limit: u64, demand: Demand) -> Self {
        let workers = (demand.workers as u64).max(1);
        let pipes_per_worker = (limit / 16 / workers / 2).clamp(4, 256);
        let listening = (demand.addresses as u64).saturating_mul(workers);
        let checks = (demand.checked as u64).min(Self::CHECKS).saturating_add(demand.kept as u64);
        let pipes = pipes_per_worker.saturating_mul(workers).saturating_mul(2);
        let sources = (demand.sources as u64).min(Self::SOURCES) * Self::PER_SOURCE;
        let reserve = [Self::HOUSEHOLD, listening, checks, pipes, sources].into_iter().fold(0, u64::saturating_add);
        let fitting = limit.saturating_sub(reserve) / Self::PER_CONNECTION;
        Self {
            limit,
            reserve,
            pipes_per_worker: usize::try_from(pipes_per_worker).unwrap_or(usize::MAX),
            max_connections: u32::try_from(fitting).unwrap_or(u32::MAX),
        }
    }

    /// How many connections are served when the file does not say.
    #[must_use]
    pub fn default_connections(&self) -> u32 {
        self.max_connections.min(Self::MOST_CONNECTIONS)
    }

    /// How many descriptors it takes to serve this many connections.
    #[must_use]
    pub fn needed_for(&self, connections: u32) -> u64 {
        self.reserve.saturating_add(u64::from(connections).saturating_mul(Self::PER_CONNECTION))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMAND: Demand = Demand { workers: 2, addresses: 3, checked: 4, kept: 0, sources: 0 };

    #[test]
    fn what_the_reserve_leaves_is_shared_out_in_pairs() {
        let plan = Descriptors::plan(1024, DEMAND);
        assert_eq!(plan.pipes_per_worker, 16);
        assert_eq!(plan.reserve, 64 + 3 * 2 + 4 + 2 * 2 * 16);
        assert_eq!(plan.max_connections, (1024 - 138) / 2);
        assert_eq!(plan.needed_for(plan.max_connections), 1024);
    }

    #[test]
    fn a_limit_below_the_reserve_leaves_no_connection() {
        assert_eq!(Descriptors::plan(0, DEMAND).max_connections, 0);
        assert_eq!(Descriptors::plan(90, DEMAND).max_connections, 0);
    }

    #[test]
    fn without_a_limit_the_default_is_a_million_connections() {
        let plan = Descriptors::plan(u64::MAX, DEMAND);
        assert_eq!(plan.default_connections(), 1_000_000);
        assert_eq!(plan.pipes_per_worker, 256);
    }

    #[test]
    fn checks_beyond_256_share_the_descriptors_of_the_others() {
        let few = Descriptors::plan(100_000, Demand { checked: 256, ..DEMAND });
        let many = Descriptors::plan(100_000, Demand { checked: 10_000, ..DEMAND });
        assert_eq!(few, many);
        let kept = Descriptors::plan(100_000, Demand { checked: 10_000, kept: 10_000, ..DEMAND });
        assert_eq!(kept.reserve, many.reserve + 10_000);
    }

    #[test]
    fn this_process_has_cores_and_descriptors() {
        let here = Environment::of_this_process();
        assert!(here.cores >= 1 && here.descriptor_limit >= 1);
    }
}
