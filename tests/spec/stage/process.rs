//! What the program costs the system, as proc(5) tells it, and what it shows of itself over HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit};
use tokio::process::Command;

use super::watch::get;
use super::{LIMIT, Program, metric};

impl Program {
    /// Starts the program with so many descriptors to open at most.
    pub fn start_with_descriptors(configuration: &str, most: usize) -> Self {
        let program = env!("CARGO_BIN_EXE_portreeve");
        let script = format!("ulimit -n {most} && exec {program} run -c \"$0\"");
        Self::start_by(Command::new("sh").args(["-c", &script]), configuration)
    }

    /// Lets it open no descriptor from this number on.
    pub fn limit_descriptors(&self, most: u64) {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap());
        rustix::process::prlimit(pid, Resource::Nofile, limit).unwrap();
    }

    /// The same, for as long as it is not [raised](Self::raise_descriptors) again to what this returns.
    pub fn lower_descriptors(&self, most: u64) -> Rlimit {
        let unlimited = Rlimit { current: Some(most), ..rustix::process::getrlimit(Resource::Nofile) };
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap());
        rustix::process::prlimit(pid, Resource::Nofile, unlimited).unwrap()
    }

    /// Lets it open as many descriptors as before.
    pub fn raise_descriptors(&self, limit: Rlimit) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap());
        rustix::process::prlimit(pid, Resource::Nofile, limit).unwrap();
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// The numbers of its descriptors of a kind, such as `socket:` or `pipe:`; of all kinds for an empty text, but for those by
    /// which it looks at the system, which are open for a moment.
    pub fn descriptors(&self, kind: &str) -> Vec<u64> {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().flatten();
        let of_kind = entries.filter(|entry| {
            std::fs::read_link(entry.path()).is_ok_and(|target| {
                let target = target.to_str().unwrap();
                target.starts_with(kind) && !target.starts_with("/proc/")
            })
        });
        of_kind.map(|entry| entry.file_name().to_str().unwrap().parse().unwrap()).collect()
    }

    /// The bytes of memory it has now.
    pub fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most bytes of memory it ever had.
    pub fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }

    /// The processor time it has used, to a hundredth of a second.
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let after_name = stat.rsplit_once(") ").unwrap().1;
        let ticks: u64 = after_name.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// How many log lines so far contain `text`.
    pub fn said(&mut self, text: &str) -> usize {
        while let Ok(line) = self.lines.try_recv() {
            self.seen.push(line);
        }
        self.seen.iter().filter(|line| line.contains(text)).count()
    }
}

/// The admin listener of a program.
#[derive(Clone, Copy)]
pub struct Admin(pub SocketAddr);

impl Admin {
    /// The metrics as they are now.
    pub async fn metrics(self) -> String {
        get(self.0, "/metrics").await.body
    }

    /// Waits until the value of a series is as wanted; one that is not shown is zero.
    pub async fn eventually(self, series: &str, is_wanted: impl Fn(f64) -> bool) {
        let mut last = 0.0;
        let wait = async {
            loop {
                last = metric(&self.metrics().await, series).unwrap_or(0.0);
                if is_wanted(last) {
                    return;
                }
            }
        };
        let waited = tokio::time::timeout(LIMIT, wait).await;
        waited.unwrap_or_else(|_| panic!("{series} did not become what was expected, but {last}"));
    }
}
