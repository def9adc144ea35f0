//! Nodes on loopback, in this process.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::time::Instant;

use super::*;
use crate::protocol::{HELLO_KIND, REFUSAL_KIND, decode_refusal};
use crate::wire::{MAGIC, split_frame};

const PATIENCE: Duration = Duration::from_secs(20);

/// A directory that goes with the value.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> TempDir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("lanekv-net-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        TempDir(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A configuration with ports that are free now.
fn config(count: usize, more: &str) -> Config {
    let listeners: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let mut text = String::new();
    for (id, listener) in listeners.iter().enumerate() {
        text.push_str(&format!("{id} {}\n", listener.local_addr().unwrap()));
    }
    Config::parse("test", &(text + more)).unwrap()
}

fn start_node(config: &Config, directory: &Path, index: usize) -> NodeHandle {
    let id = config.members()[index].id;
    let data_dir = directory.join(format!("node-{index}"));
    spawn(NodeOptions { id, config: config.clone(), data_dir, rebuild: false }).expect("it starts")
}

fn start_all(config: &Config, directory: &Path) -> Vec<NodeHandle> {
    let nodes: Vec<NodeHandle> =
        (0..config.members().len()).map(|index| start_node(config, directory, index)).collect();
    for node in &nodes {
        assert!(node.wait_ready(PATIENCE));
    }
    nodes
}

fn connect(node: &NodeHandle) -> TcpStream {
    let stream = TcpStream::connect(node.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// As `printf … | nc -N`: says it all, closes, and reads to the end.
fn ask(node: &NodeHandle, words: &str) -> String {
    let mut stream = connect(node);
    stream.write_all(words.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).unwrap();
    heard
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn one_node_answers_after_a_half_close_and_remembers() {
    let directory = TempDir::new();
    let config = config(1, "");
    let node = start_all(&config, &directory.0).remove(0);
    assert_eq!(
        ask(&node, "SET name john\nGET name\nGET nothing\n*1\r\n$4\r\nPING\r\nGET na"),
        "OK\njohn\nNot Found\n+PONG\r\n"
    );
    node.stop().unwrap();
    let node = start_all(&config, &directory.0).remove(0);
    assert_eq!(ask(&node, "GET name\n"), "john\n");
}

#[test]
fn three_nodes_agree_and_live_without_one() {
    let directory = TempDir::new();
    let config = config(3, "");
    let mut nodes = start_all(&config, &directory.0);
    for round in 0..10 {
        assert_eq!(ask(&nodes[round % 3], &format!("SET k {round}\n")), "OK\n");
        assert_eq!(ask(&nodes[(round + 1) % 3], "GET k\n"), format!("{round}\n"));
    }
    nodes.remove(1).stop().unwrap();
    assert_eq!(ask(&nodes[0], "SET k without\n"), "OK\n");
    nodes.insert(1, start_node(&config, &directory.0, 1));
    assert!(nodes[1].wait_ready(PATIENCE));
    assert_eq!(ask(&nodes[1], "GET k\n"), "without\n");
    let digest = ask(&nodes[0], "DEBUG DIGEST\n");
    eventually("all nodes are equal", || nodes.iter().all(|node| ask(node, "DEBUG DIGEST\n") == digest));
    // All at once: nobody waits for the others for long.
    nodes.iter().for_each(NodeHandle::begin_stop);
    for node in nodes {
        node.stop().unwrap();
    }
}

#[test]
fn what_makes_no_sense_ends_its_own_connection_only() {
    let directory = TempDir::new();
    let config = config(2, "");
    let nodes = start_all(&config, &directory.0);
    let mut steady = connect(&nodes[0]);
    let ping = |stream: &mut TcpStream| {
        stream.write_all(b"PING\n").unwrap();
        let mut reply = [0; 5];
        stream.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, b"PONG\n");
    };
    let mut random = 5u64;
    for round in 0..60u8 {
        let mut bytes: Vec<u8> = match round % 4 {
            0 => vec![],
            1 => vec![MAGIC],
            2 => vec![MAGIC, HELLO_KIND, 0, 0, 100, 0, 0, 0],
            _ => vec![MAGIC, HELLO_KIND, 0, 0, 0, 0, 0, 0xff],
        };
        for _ in 0..200 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes.push(random.to_be_bytes()[0]);
        }
        let mut stream = connect(&nodes[0]);
        stream.write_all(&bytes).unwrap();
        let _ = stream.shutdown(Shutdown::Write);
        // Whatever the answer is, the connection comes to an end, with or without a reset.
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        ping(&mut steady);
    }
    assert_eq!(ask(&nodes[1], "SET a 1\nGET a\n"), "OK\n1\n");
}

#[test]
fn a_hello_of_a_stranger_is_refused_by_name() {
    let directory = TempDir::new();
    let config = config(1, "");
    let node = start_all(&config, &directory.0).remove(0);
    let hello = crate::protocol::Hello {
        protocol: crate::protocol::Hello::PROTOCOL,
        from: NodeId::new(9).unwrap(),
        to: NodeId::new(0).unwrap(),
        disk: crate::types::DiskId(1),
        incarnation: crate::types::Incarnation(1),
        boot: 1,
        joining: false,
        cluster: crate::types::ClusterId(0),
        members: 0,
        view: crate::types::ViewNumber(0),
        remembered: None,
    };
    let mut bytes = Vec::new();
    crate::protocol::encode_hello(&mut bytes, &hello);
    let mut stream = connect(&node);
    for byte in bytes {
        stream.write_all(&[byte]).unwrap();
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let (kind, payload, _) = split_frame(&answer, 1000).unwrap();
    assert_eq!(kind, REFUSAL_KIND);
    assert_eq!(decode_refusal(payload), Ok(crate::protocol::Refusal::NotMember));
}

/// Two processes with one number: the one that says hello last is listened to, whichever side has dialled.
#[test]
fn a_process_that_answers_ends_what_another_one_has_begun() {
    use crate::protocol::{Hello, decode_hello, encode_hello};
    let directory = TempDir::new();
    let config = config(2, "");
    let listener = TcpListener::bind(config.members()[1].address.to_string()).unwrap();
    let node = start_node(&config, &directory.0, 0);
    let read_hello = |stream: &mut TcpStream| {
        let mut bytes = Vec::new();
        let mut buffer = [0; 1024];
        loop {
            let len = stream.read(&mut buffer).unwrap();
            bytes.extend_from_slice(&buffer[..len]);
            if let Ok((kind, payload, _)) = split_frame(&bytes, 1000) {
                return decode_hello(kind, payload).unwrap();
            }
        }
    };
    let say_hello = |stream: &mut TcpStream, boot: u64, members: u64| {
        let (to, from) = (NodeId::new(0).unwrap(), NodeId::new(1).unwrap());
        let hello = Hello {
            protocol: Hello::PROTOCOL,
            from,
            to,
            disk: crate::types::DiskId(boot),
            incarnation: crate::types::Incarnation(1),
            boot,
            joining: false,
            cluster: crate::types::ClusterId(0),
            members,
            view: crate::types::ViewNumber(0),
            remembered: None,
        };
        let mut bytes = Vec::new();
        encode_hello(&mut bytes, &hello);
        stream.write_all(&bytes).unwrap();
    };
    let (mut dialled, _) = listener.accept().unwrap();
    let members = read_hello(&mut dialled).members;
    let mut own = connect(&node);
    say_hello(&mut own, 1, members);
    assert_eq!(read_hello(&mut own).from, NodeId::new(0).unwrap());
    say_hello(&mut dialled, 2, members);
    assert!(matches!(own.read(&mut [0; 16]), Ok(0)), "it is closed");
}

#[test]
fn too_many_clients_are_told_so() {
    let directory = TempDir::new();
    let config = config(1, "set max-clients 3\n");
    let node = start_all(&config, &directory.0).remove(0);
    let mut held: Vec<TcpStream> = Vec::new();
    for _ in 0..3 {
        let mut stream = connect(&node);
        stream.write_all(b"PING\n").unwrap();
        let mut reply = [0; 5];
        stream.read_exact(&mut reply).unwrap();
        held.push(stream);
    }
    assert_eq!(ask(&node, "PING\n"), "-ERR max number of clients reached\r\n");
    held.pop();
    eventually("there is room again", || ask(&node, "PING\n") == "PONG\n");
}

#[test]
fn a_large_value_and_a_long_pipeline_pass() {
    let directory = TempDir::new();
    let config = config(3, "");
    let nodes = start_all(&config, &directory.0);
    let value = "0123456789".repeat(300_000);
    let set = format!("*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n${}\r\n{value}\r\n", value.len());
    assert_eq!(ask(&nodes[2], &set), "+OK\r\n");
    assert!(ask(&nodes[0], "GET big\n").strip_suffix('\n') == Some(&value));
    let mut stream = connect(&nodes[1]);
    let mut writer = stream.try_clone().unwrap();
    let write = std::thread::spawn(move || writer.write_all("INCR n\n".repeat(20_000).as_bytes()));
    let expected: String = (1..=20_000).map(|n| format!("{n}\n")).collect();
    let mut heard = vec![0; expected.len()];
    stream.read_exact(&mut heard).unwrap();
    assert!(heard == expected.as_bytes());
    write.join().unwrap().unwrap();
}

#[test]
fn a_start_that_cannot_be_says_why() {
    let directory = TempDir::new();
    let config = config(1, "");
    let node = start_all(&config, &directory.0).remove(0);
    let options = |id: u8, name: &str| NodeOptions {
        id: NodeId::new(id).unwrap(),
        config: config.clone(),
        data_dir: directory.0.join(name),
        rebuild: false,
    };
    let code = |options| spawn(options).map(|_| ()).expect_err("it must not start").exit_code();
    assert_eq!(code(options(7, "node-0")), 2, "not in the configuration");
    assert_eq!(code(options(0, "node-0")), 3, "the directory is in use");
    assert_eq!(code(options(0, "other")), 2, "the port is in use");
    node.stop().unwrap();
    std::fs::write(directory.0.join("node-0/IDENTITY"), "nonsense").unwrap();
    assert_eq!(code(options(0, "node-0")), 4, "damaged");
}
