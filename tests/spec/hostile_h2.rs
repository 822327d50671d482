//! Chapter: clients of HTTP/2 that mean harm, frame by frame.

mod floods;
mod frames;
mod heads;
mod smuggling;
mod stalls;

use std::net::SocketAddr;

use crate::stage::frames::{Frames, HEADERS, Verdict, WHOLE};
use crate::stage::http2::{Asked, Client, Record, fronting};
use crate::stage::volume::MIB;
use crate::stage::{Program, Server};

/// The program in front of a server of HTTP/1 that writes down all it is asked for.
struct Fortress {
    program: Program,
    address: SocketAddr,
    record: Record,
    memory: u64,
    _server: Server,
}

impl Fortress {
    async fn start() -> Self {
        Self::with("").await
    }

    /// With more in the listener's table.
    async fn with(listener: &str) -> Self {
        let (server, record) = Server::recorder().await;
        let mut program = Program::start(&fronting(&[server.address], listener, ""));
        let address = program.listening("web").await;
        let mut fortress = Self { program, address, record, memory: 0, _server: server };
        // What the first request takes is for all.
        fortress.stands().await;
        fortress.memory = fortress.program.memory();
        fortress
    }

    async fn connect(&self) -> Frames {
        Frames::connect(self.address).await
    }

    /// What becomes of a request with this header block, on a connection of its own.
    async fn verdict_on(&self, block: &[u8]) -> Verdict {
        let mut frames = self.connect().await;
        frames.send(HEADERS, WHOLE, 1, block).await;
        frames.verdict(1).await
    }

    /// Serves others still.
    async fn stands(&self) {
        let client = Client::connect(self.address).await;
        assert_eq!(client.ask(Asked::get("/healthy")).await.unwrap().text(), "/healthy");
    }

    /// It has withstood: others are served, the server was asked for nothing but what it should be, memory is as it was.
    async fn has_withstood(self) {
        self.stands().await;
        let others: Vec<String> =
            self.record.requests().into_iter().filter(|request| request != "GET /healthy HTTP/1.1").collect();
        assert_eq!(others, Vec::<String>::new());
        self.keeps_its_memory();
    }

    fn keeps_its_memory(&self) {
        let grown = self.program.peak_memory().saturating_sub(self.memory);
        assert!(grown < 24 * MIB as u64, "it grew by {} KiB", grown / 1024);
    }
}
