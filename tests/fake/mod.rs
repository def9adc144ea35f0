//! A cluster for the client's tests: real sockets and frames around a small model of sessions and keys,
//! with faults on demand.

#![allow(dead_code, reason = "no test uses all of it")]

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use lanekv::config::Address;
use lanekv::types::Reply;
use lanekv::wire::batch::SessionSeq;
use lanekv::wire::client::{Consistency, decode_request, encode_response};
use lanekv::wire::{FrameError, split_frame};

/// A request as it arrived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Received {
    pub(crate) node: usize,
    pub(crate) arguments: Vec<Vec<u8>>,
    pub(crate) place: Option<SessionSeq>,
    pub(crate) consistency: Option<Consistency>,
}

impl Received {
    pub(crate) fn name(&self) -> String {
        String::from_utf8_lossy(&self.arguments[0]).to_ascii_uppercase()
    }
}

/// What a node does with one request instead of applying and answering it.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Applies and answers as ever: the next request is meant.
    None,
    /// Answers this without applying.
    Answer(&'static str),
    /// Applies and answers, then closes the connection.
    Close,
    /// Closes the connection without applying.
    Drop,
    /// Applies, then closes the connection.
    ApplyDrop,
    /// Applies, then answers this.
    ApplyAnswer(&'static str),
    /// Closes the connection; the command is applied when the next request has been handled.
    DropApplyLater,
    /// Says nothing, and keeps the connection.
    Silence,
    /// Answers with bytes that are no frame.
    Garbage,
}

#[derive(Default)]
struct SessionState {
    last: u64,
    replies: BTreeMap<u64, Reply>,
}

/// What the nodes of the cluster share.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) received: Vec<Received>,
    pub(crate) faults: Vec<VecDeque<Fault>>,
    /// Whether commands that were put off wait for [`Model::settle`] instead of the next request.
    pub(crate) hold: bool,
    /// Whether sessions are forgotten as soon as they are opened.
    pub(crate) forgetful: bool,
    /// How many connections [`Fault::Close`] has closed.
    pub(crate) closed: usize,
    pub(crate) values: BTreeMap<Vec<u8>, Vec<u8>>,
    sessions: BTreeMap<u64, SessionState>,
    opened: u64,
    later: Vec<Received>,
}

impl Model {
    /// Forgets all sessions, as if they had expired.
    pub(crate) fn expire_sessions(&mut self) {
        self.sessions.clear();
    }

    /// Applies what was put off.
    pub(crate) fn settle(&mut self) {
        for request in std::mem::take(&mut self.later) {
            self.apply(&request);
        }
    }

    fn apply(&mut self, request: &Received) -> Reply {
        if request.arguments.len() < 2 && ["SET", "GET", "INCR"].contains(&request.name().as_str()) {
            return Reply::error("ERR wrong number of arguments");
        }
        let Some(place) = request.place else { return self.run(request) };
        if self.forgetful {
            self.expire_sessions();
        }
        let Some(session) = self.sessions.get_mut(&place.session.0) else {
            return Reply::error("ERR session expired or never opened");
        };
        session.replies.retain(|seq, _| *seq > place.acked);
        if place.seq <= session.last {
            let stored = session.replies.get(&place.seq).cloned();
            return stored.unwrap_or_else(|| Reply::error("ERR session reply is no longer stored"));
        }
        if place.seq != session.last + 1 {
            let text = format!("ERR session gap: expected {}, found {}", session.last + 1, place.seq);
            return Reply::error(text);
        }
        let reply = self.run(request);
        let session = self.sessions.get_mut(&place.session.0).expect("found before");
        session.last = place.seq;
        session.replies.insert(place.seq, reply.clone());
        reply
    }

    fn run(&mut self, request: &Received) -> Reply {
        let argument = |i: usize| request.arguments.get(i).cloned().unwrap_or_default();
        match request.name().as_str() {
            "SESSION" => {
                self.opened += 1;
                self.sessions.insert(self.opened, SessionState::default());
                Reply::Integer(i64::try_from(self.opened).expect("small"))
            }
            "SET" | "PUT" => {
                self.values.insert(argument(1), argument(2));
                Reply::OK
            }
            "GET" => self.values.get(&argument(1)).map_or(Reply::Nil, |value| Reply::bulk(value)),
            "INCR" => {
                let old = self
                    .values
                    .get(&argument(1))
                    .map_or(Ok(0), |value| String::from_utf8_lossy(value).parse::<i64>());
                let Ok(old) = old else {
                    return Reply::error("ERR value is not an integer or out of range");
                };
                self.values.insert(argument(1), (old + 1).to_string().into_bytes());
                Reply::Integer(old + 1)
            }
            "DBSIZE" => Reply::Integer(i64::try_from(self.values.len()).expect("small")),
            "KEYS" => Reply::Array(self.values.keys().map(|key| Reply::bulk(key)).collect()),
            name => Reply::error(format!("ERR unknown command '{name}'")),
        }
    }
}

/// Nodes on loopback ports.
pub(crate) struct Cluster {
    model: Arc<Mutex<Model>>,
    addresses: Vec<SocketAddr>,
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Cluster {
    pub(crate) fn start(count: usize) -> Cluster {
        let model = Model { faults: vec![VecDeque::new(); count], ..Model::default() };
        let mut cluster = Cluster {
            model: Arc::new(Mutex::new(model)),
            addresses: Vec::new(),
            stopping: Arc::default(),
            threads: Vec::new(),
        };
        for node in 0..count {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            cluster.addresses.push(listener.local_addr().expect("bound"));
            let (model, stopping) = (cluster.model.clone(), cluster.stopping.clone());
            cluster.threads.push(thread::spawn(move || {
                for stream in listener.incoming() {
                    if stopping.load(Ordering::SeqCst) {
                        return;
                    }
                    let model = model.clone();
                    if let Ok(stream) = stream {
                        // It ends when the client closes the connection.
                        thread::spawn(move || serve(node, stream, &model));
                    }
                }
            }));
        }
        cluster
    }

    pub(crate) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().expect("not poisoned")
    }

    /// What the node does with its next requests.
    pub(crate) fn fault(&self, node: usize, faults: impl IntoIterator<Item = Fault>) {
        self.model().faults[node].extend(faults);
    }

    /// The requests with this name that arrived so far.
    pub(crate) fn received(&self, name: &str) -> Vec<Received> {
        self.model().received.iter().filter(|request| request.name() == name).cloned().collect()
    }

    pub(crate) fn addresses(&self) -> Vec<Address> {
        self.addresses.iter().map(|a| Address::parse(&a.to_string()).expect("an address")).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        for address in &self.addresses {
            // Wakes the accept call.
            let _ = TcpStream::connect(address);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Handles one connection until either side closes it.
fn serve(node: usize, mut stream: TcpStream, model: &Mutex<Model>) {
    let mut input = Vec::new();
    loop {
        let (id, request) = match split_frame(&input, 1 << 26) {
            Ok((_, payload, len)) => {
                let request = decode_request(payload).expect("the client writes well-formed requests");
                let received = Received {
                    node,
                    arguments: request.arguments.iter().map(|a| a.to_vec()).collect(),
                    place: request.session,
                    consistency: request.consistency,
                };
                let id = request.id;
                input.drain(..len);
                (id, received)
            }
            Err(FrameError::Incomplete { .. }) => {
                let mut piece = [0; 4096];
                match stream.read(&mut piece) {
                    Ok(0) | Err(_) => return,
                    Ok(len) => input.extend_from_slice(&piece[..len]),
                }
                continue;
            }
            Err(error) => panic!("the client writes frames: {error}"),
        };
        let response = handle(&mut model.lock().expect("not poisoned"), request);
        let mut out = Vec::new();
        match response {
            Response::Reply(reply) => encode_response(&mut out, id, &reply),
            Response::Bytes(bytes) => out.extend_from_slice(bytes),
            Response::Nothing => continue,
            Response::Close => return,
            Response::ReplyClose(reply) => {
                encode_response(&mut out, id, &reply);
                let _ = stream.write_all(&out);
                drop(stream);
                model.lock().expect("not poisoned").closed += 1;
                return;
            }
        }
        if stream.write_all(&out).is_err() {
            return;
        }
    }
}

/// What goes back to the client.
enum Response {
    Reply(Reply),
    Bytes(&'static [u8]),
    Nothing,
    Close,
    ReplyClose(Reply),
}

fn handle(model: &mut Model, request: Received) -> Response {
    model.received.push(request.clone());
    let later = if model.hold { Vec::new() } else { std::mem::take(&mut model.later) };
    let response = match model.faults[request.node].pop_front() {
        None | Some(Fault::None) => Response::Reply(model.apply(&request)),
        Some(Fault::Answer(text)) => Response::Reply(Reply::error(text)),
        Some(Fault::Close) => Response::ReplyClose(model.apply(&request)),
        Some(Fault::Drop) => Response::Close,
        Some(Fault::ApplyDrop) => {
            model.apply(&request);
            Response::Close
        }
        Some(Fault::ApplyAnswer(text)) => {
            model.apply(&request);
            Response::Reply(Reply::error(text))
        }
        Some(Fault::DropApplyLater) => {
            model.later.push(request);
            Response::Close
        }
        Some(Fault::Silence) => Response::Nothing,
        Some(Fault::Garbage) => Response::Bytes(b"-ERR not here\r\n"),
    };
    for request in later {
        model.apply(&request);
    }
    response
}
