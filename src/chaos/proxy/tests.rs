//! What a link does to the bytes of a connection.

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Both ends of a connection through a proxy.
fn connected() -> (Proxy, TcpStream, TcpStream) {
    let listener = TcpListener::bind(any()).unwrap();
    let proxy = Proxy::start(any(), listener.local_addr().unwrap()).unwrap();
    let dialling = TcpStream::connect(proxy.address()).unwrap();
    let (dialled, _) = listener.accept().unwrap();
    for stream in [&dialling, &dialled] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    (proxy, dialling, dialled)
}

fn read(stream: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// Waits for what the proxy's threads do after bytes have arrived.
fn until(proxy: &Proxy, condition: impl Fn(&Proxy) -> bool) {
    let begin = Instant::now();
    while !condition(proxy) {
        assert!(begin.elapsed() < PATIENCE, "{} passed, {:?}", proxy.passed(), proxy.flips());
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn bytes_pass_both_ways_and_a_cut_ends_them() {
    let (proxy, mut dialling, mut dialled) = connected();
    dialling.write_all(b"forward").unwrap();
    assert_eq!(read(&mut dialled, 7), b"forward");
    dialled.write_all(b"back").unwrap();
    assert_eq!(read(&mut dialling, 4), b"back");
    until(&proxy, |proxy| proxy.passed() == 11);
    proxy.cut();
    assert_eq!(dialled.read(&mut [0; 8]).unwrap(), 0);
    assert_eq!(dialling.read(&mut [0; 8]).unwrap(), 0);
    let mut refused = TcpStream::connect(proxy.address()).unwrap();
    assert!(!matches!(refused.read(&mut [0; 8]), Ok(1..)));
}

#[test]
fn silence_keeps_bytes_back_and_healing_lets_them_go() {
    let (proxy, mut dialling, mut dialled) = connected();
    proxy.silence();
    dialling.write_all(b"late").unwrap();
    dialled.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(is_timeout(&dialled.read(&mut [0; 8]).unwrap_err()));
    proxy.heal();
    dialled.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(read(&mut dialled, 4), b"late");
}

#[test]
fn a_reset_is_one() {
    let (proxy, mut dialling, mut dialled) = connected();
    dialling.write_all(b"x").unwrap();
    assert_eq!(read(&mut dialled, 1), b"x");
    proxy.reset();
    for stream in [&mut dialling, &mut dialled] {
        assert_eq!(stream.read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
    assert!(TcpStream::connect(proxy.address()).is_ok());
}

#[test]
fn a_tear_is_at_its_byte() {
    let (proxy, mut dialling, mut dialled) = connected();
    proxy.tear_after(5);
    dialling.write_all(b"abcdefgh").unwrap();
    let mut got = Vec::new();
    dialled.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"abcde");
}

#[test]
fn a_changed_bit_counts_as_noticed_when_the_receiver_closes() {
    let (proxy, mut dialling, mut dialled) = connected();
    proxy.flip_after(2, 0);
    dialling.write_all(b"abcd").unwrap();
    assert_eq!(read(&mut dialled, 4), b"abbd");
    let flips = proxy.flips();
    assert_eq!((flips.made, flips.noticed, flips.open_since.is_some()), (1, 0, true));
    drop(dialled);
    assert_eq!(dialling.read(&mut [0; 8]).unwrap_or(0), 0);
    until(&proxy, |proxy| proxy.flips().noticed == 1);
    assert_eq!(proxy.flips().open_since, None);
}

#[test]
fn a_delay_is_latency_and_a_rate_is_throughput() {
    let (proxy, mut dialling, mut dialled) = connected();
    let delay = Duration::from_millis(100);
    proxy.set(Mode::Delay(delay));
    let begin = Instant::now();
    for _ in 0..20 {
        dialling.write_all(b"tick").unwrap();
        thread::sleep(Duration::from_millis(2));
    }
    read(&mut dialled, 4);
    assert!(begin.elapsed() >= delay);
    read(&mut dialled, 76);
    assert!(begin.elapsed() < delay * 10, "delays do not add up: {:?}", begin.elapsed());
    proxy.set(Mode::Slow(10_000));
    let begin = Instant::now();
    dialling.write_all(&[0; 2_000]).unwrap();
    read(&mut dialled, 2_000);
    assert!(begin.elapsed() >= Duration::from_millis(150), "{:?}", begin.elapsed());
}
