//! DNS in the hand: a server that says what the test tells it to, lies included.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// What is said of a name.
#[derive(Clone, Debug)]
pub enum Says {
    /// These addresses, each for so many seconds.
    Addresses(Vec<IpAddr>, u32),
    /// These services: priority, weight, port and target.
    Services(Vec<(u16, u16, u16, String)>),
    /// These addresses, and that it cannot tell whether there are others of IPv6.
    OnlyV4(Vec<IpAddr>),
    /// There is no such name.
    NoName,
    /// The server cannot tell.
    Failure,
    /// Nothing at all.
    Silence,
}

impl Says {
    /// These addresses, for no time at all.
    pub fn ips(ips: &[&str]) -> Self {
        Self::Addresses(ips.iter().map(|ip| ip.parse().unwrap()).collect(), 0)
    }
}

type Script = Arc<Mutex<(HashMap<String, Says>, usize)>>;

/// A DNS server over UDP and TCP.
pub struct Dns {
    /// Where it answers.
    pub address: SocketAddr,
    script: Script,
    _tasks: JoinSet<()>,
}

impl Dns {
    /// Starts one that knows no name.
    pub async fn start() -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let (address, script) = (udp.local_addr().unwrap(), Script::default());
        let mut tasks = JoinSet::new();
        let of_udp = Arc::clone(&script);
        tasks.spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
                let Some(mut answer) = answer(&of_udp, &buffer[..length]) else { continue };
                if answer.to_vec().unwrap().len() > 512 {
                    answer.answers.clear();
                    answer.metadata.truncation = true;
                }
                let _gone = udp.send_to(&answer.to_vec().unwrap(), from).await;
            }
        });
        let of_tcp = Arc::clone(&script);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = tcp.accept().await {
                connections.spawn(serve(stream, Arc::clone(&of_tcp)));
            }
        });
        Self { address, script, _tasks: tasks }
    }

    /// What it says of a name from now on.
    pub fn say(&self, name: &str, says: Says) {
        self.script.lock().unwrap().0.insert(format!("{name}."), says);
    }

    /// How many questions it was asked.
    pub fn asked(&self) -> usize {
        self.script.lock().unwrap().1
    }
}

async fn serve(mut stream: TcpStream, script: Script) {
    while let Ok(length) = stream.read_u16().await {
        let mut question = vec![0; length.into()];
        if stream.read_exact(&mut question).await.is_err() {
            return;
        }
        let Some(answer) = answer(&script, &question) else { continue };
        let bytes = answer.to_vec().unwrap();
        let _gone = stream.write_u16(bytes.len().try_into().unwrap()).await;
        let _gone = stream.write_all(&bytes).await;
    }
}

fn answer(script: &Script, question: &[u8]) -> Option<Message> {
    let question = Message::from_vec(question).ok()?;
    let query = question.queries.first()?.clone();
    let says = {
        let mut script = script.lock().unwrap();
        script.1 += 1;
        script.0.get(&query.name().to_ascii().to_ascii_lowercase()).cloned().unwrap_or(Says::NoName)
    };
    let mut answer = Message::response(question.metadata.id, OpCode::Query);
    let record = |ttl, data| Record::from_rdata(query.name().clone(), ttl, data);
    match says {
        Says::Addresses(ips, ttl) => {
            let wanted = ips.into_iter().map(RData::from).filter(|data| data.record_type() == query.query_type());
            answer.answers.extend(wanted.map(|data| record(ttl, data)));
        }
        Says::Services(all) if query.query_type() == RecordType::SRV => {
            let services = all.into_iter().map(|(priority, weight, port, target)| {
                RData::SRV(SRV::new(priority, weight, port, Name::from_ascii(target).unwrap()))
            });
            answer.answers.extend(services.map(|data| record(0, data)));
        }
        Says::Services(_) => {}
        Says::OnlyV4(_) if query.query_type() == RecordType::AAAA => {
            answer.metadata.response_code = ResponseCode::ServFail;
        }
        Says::OnlyV4(ips) => answer.answers.extend(ips.into_iter().map(|ip| record(0, RData::from(ip)))),
        Says::NoName => answer.metadata.response_code = ResponseCode::NXDomain,
        Says::Failure => answer.metadata.response_code = ResponseCode::ServFail,
        Says::Silence => return None,
    }
    answer.add_query(query);
    Some(answer)
}
