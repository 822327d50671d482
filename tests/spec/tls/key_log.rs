//! The secrets of connections, written down for somebody who debugs: by a key and a variable, and by neither alone.

use super::{certificates, fronting};
use crate::stage::pki::{Pki, shake};
use crate::stage::{Program, Server};

#[tokio::test]
async fn secrets_are_written_down_only_if_both_the_file_and_the_environment_say_so() {
    let (pki, server) = (Pki::new(), Server::echo().await);
    let folder = tempfile::tempdir().unwrap();
    let tls = certificates(&[&pki.issue(&["example.com"])]);
    let configuration = fronting(&tls, "", &server);
    for (wanted, text) in
        [(false, configuration.clone()), (true, format!("[log]\ninsecure_key_log = true\n{configuration}"))]
    {
        // A table may only follow what stands at the top.
        let text = text.replacen("workers = 2\n", "", 1);
        let secrets = folder.path().join(if wanted { "wanted" } else { "unwanted" });
        let mut program = Program::start_with("SSLKEYLOGFILE", &secrets, &text);
        if wanted {
            program.says("can read every TLS connection").await;
        }
        let address = program.listening("web").await;
        shake(pki.client(None), address, "example.com").await.unwrap();
        let written = std::fs::read_to_string(&secrets).unwrap_or_default();
        assert_eq!(written.contains("SERVER_TRAFFIC_SECRET_0 "), wanted, "{written}");
    }
    let mut program =
        Program::start(&format!("[log]\ninsecure_key_log = true\n{}", configuration.replacen("workers = 2\n", "", 1)));
    let address = program.listening("web").await;
    shake(pki.client(None), address, "example.com").await.unwrap();
}
