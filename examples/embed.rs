//! Portreeve inside another program: started from a text, changed while it runs, stopped.
//!
//! `cargo run --example embed`

use std::io::{self, Write};

use portreeve::app::{Source, start};

/// A listener on a free port, in front of one server.
fn configuration(server: &str) -> String {
    format!(
        r#"
        [listeners.web]
        bind = "127.0.0.1:0"
        pool = "web"

        [pools.web]
        servers = ["{server}"]
        "#
    )
}

/// The runtime that calls `start` becomes the control thread; connections are served on threads of their own.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = io::stdout();
    let instance = start(Source::Text(configuration("127.0.0.1:9001"))).await?;
    writeln!(out, "listening on {:?}", instance.address("web"))?;

    let applied = instance.reload_text(&configuration("127.0.0.1:9002")).await?;
    writeln!(out, "generation {}: {}", applied.generation, applied.changes.join(", "))?;
    writeln!(out, "still listening on {:?}", instance.address("web"))?;

    let stopped = instance.stop().await;
    writeln!(out, "{} connections ended by themselves, {} were reset", stopped.drained, stopped.reset)?;
    Ok(())
}
