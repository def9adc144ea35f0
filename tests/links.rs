//! Broken links between nodes that are themselves well.
//!
//! All nodes share one `nodes.conf` (they compare its hash), so a proxy cannot stand in it as the address of a peer
//! for one node only. But the file may give names, and a name may mean something else to each node: every node
//! runs in a mount namespace with its own `/etc/hosts`, in which its peers live at loopback addresses where proxies
//! listen. Where the machine does not allow mount namespaces, the tests say so and pass; the simulator breaks
//! links everywhere.

mod common;

use std::time::{Duration, Instant};

use common::{Cluster, Layout, Load, PATIENCE, PortBlock, Proxy, Resp, TempDir, own_hosts_work, until};

/// A cluster whose peers reach each other through proxies, one for each direction of each link.
struct Wired {
    cluster: Cluster,
    /// `proxies[a][b]`: what node `a` dials to reach node `b`; `None` on the diagonal.
    proxies: Vec<Vec<Option<Proxy>>>,
}

impl Wired {
    /// `None` when this machine does not let us.
    fn start(nodes: usize) -> Option<Wired> {
        let probe = TempDir::new("probe");
        if !own_hosts_work(&probe) {
            println!("skipped: no mount namespaces here (unshare --mount needs root or user namespaces)");
            return None;
        }
        let ports = PortBlock::take().expect("free ports");
        let place = |from: usize, to: usize| format!("127.0.1.{}", 10 * (from + 1) + to);
        let mut hosts = Vec::new();
        let mut proxies = Vec::new();
        for from in 0..nodes {
            let mut text = String::from("127.0.0.1 localhost\n");
            let mut row = Vec::new();
            for to in 0..nodes {
                let own = from == to;
                let address = if own { "127.0.0.1".into() } else { place(from, to) };
                text.push_str(&format!("{address} {}\n", Layout::host_name(to)));
                let port = ports.port(to);
                row.push((!own).then(|| {
                    let address = |host: &str| format!("{host}:{port}").parse().expect("an address");
                    Proxy::start(address(&place(from, to)), address("127.0.0.1")).expect("a free address")
                }));
            }
            hosts.push(text);
            proxies.push(row);
        }
        let cluster = Cluster::start_on(Layout::of(nodes).hosts(hosts), ports);
        let wired = Wired { cluster, proxies };
        for proxy in wired.proxies.iter().flatten().flatten() {
            assert!(proxy.passed() > 0, "the peers go through the proxies");
        }
        Some(wired)
    }

    /// Both directions of the link between two nodes.
    fn link(&self, a: usize, b: usize) -> [&Proxy; 2] {
        [(a, b), (b, a)].map(|(from, to)| self.proxies[from][to].as_ref().expect("not the diagonal"))
    }

    fn views(&self) -> Vec<u64> {
        (0..self.cluster.len()).map(|node| self.cluster.view(node)).collect()
    }

    /// Every node takes a write and reads the others' at once.
    fn assert_all_serve(&self, round: &str) {
        let mut clients: Vec<_> = (0..self.cluster.len()).map(|node| self.cluster.resp(node)).collect();
        for writer in 0..clients.len() {
            let key = format!("{round}:{writer}");
            assert_eq!(clients[writer].ask(&["SET", &key, "v"]), Resp::ok(), "a write at node {writer}");
            for (reader, client) in clients.iter_mut().enumerate() {
                assert_eq!(client.ask(&["GET", &key]), Resp::bulk("v"), "a read at node {reader}");
            }
        }
    }
}

#[test]
fn one_link_of_three_broken_for_good_costs_two_views_at_most() {
    let Some(wired) = Wired::start(3) else { return };
    wired.assert_all_serve("before");
    let before = wired.views();
    let load = Load::start(&wired.cluster, 9);
    std::thread::sleep(Duration::from_millis(300));
    let begin = Instant::now();
    for proxy in wired.link(1, 2) {
        proxy.cut();
    }
    // Calm has to last: longer than any probation that might let the node come back.
    std::thread::sleep(Duration::from_secs(4));
    let end = Instant::now();
    let outcome = load.stop();
    let after = wired.views();
    let gap = outcome.longest_gap(&[0, 1, 2], begin, end - Duration::from_millis(50));
    println!("link 1-2 cut: views {before:?} -> {after:?}, longest gap {:.1} ms", gap.as_secs_f64() * 1e3);
    outcome.assert_no_complaints();
    for (before, after) in before.iter().zip(&after) {
        assert!(after - before <= 2, "{} views after one broken link", after - before);
    }
    wired.assert_all_serve("cut");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(wired.views(), after, "no calm");

    for proxy in wired.link(1, 2) {
        proxy.heal();
    }
    for node in 0..3 {
        wired.cluster.wait_sender(node, Duration::from_secs(30));
    }
    wired.assert_all_serve("healed");
    wired.cluster.wait_equal(&[0, 1, 2], PATIENCE);
    outcome.assert_kept(&wired.cluster, &[0, 1, 2]);
}

#[test]
fn a_link_that_falls_silent_is_noticed_by_the_suspicion_time_out() {
    let Some(wired) = Wired::start(3) else { return };
    let load = Load::start(&wired.cluster, 9);
    std::thread::sleep(Duration::from_millis(300));
    let before = wired.views();
    let begin = Instant::now();
    for proxy in wired.link(0, 1) {
        proxy.silence();
    }
    std::thread::sleep(Duration::from_secs(3));
    let end = Instant::now();
    let outcome = load.stop();
    let after = wired.views();
    let gap = outcome.longest_gap(&[0, 1, 2], begin, end - Duration::from_millis(50));
    println!("link 0-1 silent: views {before:?} -> {after:?}, longest gap {:.1} ms", gap.as_secs_f64() * 1e3);
    outcome.assert_no_complaints();
    assert!(gap < Duration::from_secs(2), "{gap:?}");
    wired.assert_all_serve("silent");
    for proxy in wired.link(0, 1) {
        proxy.heal();
    }
    wired.cluster.wait_equal(&[0, 1, 2], PATIENCE);
    outcome.assert_kept(&wired.cluster, &[0, 1, 2]);
}

#[test]
fn a_node_cut_off_refuses_and_the_majority_goes_on() {
    let Some(wired) = Wired::start(3) else { return };
    let cluster = &wired.cluster;
    let load = Load::start(cluster, 6);
    let mut gaps = Vec::new();
    for lonely in 0..3 {
        // All links are whole again, and all writers have written since.
        for node in 0..3 {
            cluster.wait_sender(node, Duration::from_secs(30));
        }
        std::thread::sleep(Duration::from_millis(300));
        load.goes_down(lonely);
        let begin = Instant::now();
        let others: Vec<usize> = (0..3).filter(|node| *node != lonely).collect();
        for other in &others {
            for proxy in wired.link(lonely, *other) {
                proxy.cut();
            }
        }
        let mut client = cluster.resp(lonely);
        let reply = client.ask(&["SET", "lonely", "1"]);
        let Resp::Error(text) = &reply else { panic!("{reply:?} without a majority") };
        assert!(text.starts_with("NOQUORUM ") || text.starts_with("TIMEOUT "), "{text:?}");
        let reply = client.ask(&["GET", "lonely"]);
        assert!(reply.is_error(), "a read without a majority: {reply:?}");
        let end = Instant::now();
        for other in &others {
            for proxy in wired.link(lonely, *other) {
                proxy.heal();
            }
        }
        until("the node that was cut off serves", PATIENCE, || {
            (cluster.resp(lonely).ask(&["SET", "healed", "1"]) == Resp::ok()).then_some(())
        });
        println!("node {lonely} cut off: serves again {:.1?} after the links are back", end.elapsed());
        load.is_back(lonely);
        gaps.push((others, begin, end));
    }
    let outcome = load.stop();
    let gaps: Vec<Duration> =
        gaps.iter().map(|(others, begin, end)| outcome.longest_gap(others, *begin, *end)).collect();
    println!("longest gaps of the majorities: {gaps:.1?}");
    outcome.assert_no_complaints();
    assert!(gaps.iter().all(|gap| *gap < Duration::from_secs(2)), "{gaps:?}");
    cluster.wait_equal(&[0, 1, 2], PATIENCE);
    outcome.assert_kept(cluster, &[0, 1, 2]);
}
