//! The built `kvbench` against real nodes: loads, output, errors.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread;
use std::time::Duration;

use common::{Cluster, Finished, Layout, program};

fn kvbench(arguments: &[&str]) -> Finished {
    Finished::of(Command::new(program("kvbench")).args(arguments), b"")
}

/// The number behind a name in JSON, at its first place.
fn number(json: &str, name: &str) -> f64 {
    let (_, rest) =
        json.split_once(&format!("\"{name}\": ")).unwrap_or_else(|| panic!("no {name} in {json}"));
    let end = rest.find([',', '}', '\n']).expect("JSON ends");
    rest[..end].parse().unwrap_or_else(|error| panic!("{name}: {error} in {json}"))
}

#[test]
fn every_load_of_both_dialects_is_answered() {
    let cluster = Cluster::start(Layout::of(3));
    let conf = cluster.conf().display().to_string();
    let short = ["-s", "0.4", "--warmup", "0.1", "--keys", "200", "--json", "-"];
    for flags in [
        &["-c", "4", "--mix", "set,get,incr,mset"][..],
        &["-c", "4", "--mix", "set,get,incr,mset", "--dialect", "binary", "--distribution", "zipf"],
        &["-c", "3", "-P", "8", "--mix", "get", "--fill"],
        &["-c", "3", "-P", "8", "--mix", "get", "--fill", "--dialect", "binary", "--consistency", "local"],
        &["-c", "2", "--mix", "get", "--consistency", "ordered"],
        &["-c", "2", "--value-len", "200000"],
    ] {
        let run = kvbench(&[&[conf.as_str()], &short[..], flags].concat());
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{flags:?}: {}", run.stdout);
        assert!(number(&run.stdout, "operations") > 0.0, "{flags:?}: {}", run.stdout);
        assert_eq!(number(&run.stdout, "errors"), 0.0, "{flags:?}: {}", run.stdout);
        if flags.contains(&"--fill") {
            assert_eq!(number(&run.stdout, "missing"), 0.0, "{flags:?}: {}", run.stdout);
        }
        assert!(number(&run.stdout, "p50") <= number(&run.stdout, "p99"), "{flags:?}: {}", run.stdout);
    }
}

#[test]
fn a_fixed_rate_is_kept_and_what_a_pause_delays_is_seen() {
    let mut cluster = Cluster::start(Layout::of(3));
    let (conf, timeline) = (cluster.conf().display().to_string(), cluster.dir().path().join("timeline.csv"));
    let timeline_flag = timeline.display().to_string();
    let mut arguments = vec![conf.as_str(), "--node", "0,1"];
    arguments.extend(["-s", "3", "--warmup", "0", "-c", "16", "--rate", "200", "--json", "-", "--tolerate"]);
    arguments.extend(["--timeline", &timeline_flag]);
    let run = thread::scope(|scope| {
        let run = scope.spawn(|| kvbench(&arguments));
        // In the middle of it, however fast the machine is.
        thread::sleep(Duration::from_secs(1));
        cluster.kill9(2);
        run.join().expect("no panic")
    });
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let (rate, gap) = (number(&run.stdout, "per_second"), number(&run.stdout, "longest_gap_ms"));
    assert!((120.0..210.0).contains(&rate), "{}", run.stdout);
    // Requests were due in the gap: the slowest took most of it.
    assert!(number(&run.stdout, "max") / 1e3 > gap / 2.0, "{}", run.stdout);
    let lines = fs::read_to_string(timeline).expect("written");
    assert!(lines.starts_with("begin_ms,operations,errors,p50_us,p99_us,max_us\n0,"), "{lines}");
    assert!((25..=31).contains(&lines.lines().count()), "{lines}");
}

#[test]
fn what_is_wrong_is_said() {
    let refusing = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = refusing.local_addr().expect("bound").to_string();
    // Somebody who speaks something else.
    let foreign = thread::spawn(move || {
        let (mut connection, _) = refusing.accept().expect("kvbench connects");
        let _ = connection.read(&mut [0; 1024]);
        let _ = connection.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        let _ = connection.read(&mut [0; 1024]);
    });
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").to_string();
    for (arguments, code, part) in [
        (&[address.as_str(), "-c", "1"][..], 3, "is --dialect right?"),
        (&[gone.as_str(), "-c", "1"], 3, "is the server running?"),
        (&["nowhere.conf"], 2, "neither a file nor an address"),
        (&[gone.as_str(), "--mix", "incr", "--dialect", "etcd"], 2, "only set and get"),
        (&[gone.as_str(), "--mix", "del"], 2, "expected set, get, incr or mset"),
        (&[gone.as_str(), "--pid", "4294967295"], 2, "no process 4294967295"),
        (&[], 2, "required arguments"),
    ] {
        let run = kvbench(arguments);
        assert_eq!(run.code, Some(code), "{arguments:?}: {}", run.stderr);
        assert!(run.stderr.contains(part), "{arguments:?}: {}", run.stderr);
    }
    foreign.join().expect("it was spoken to");
}
