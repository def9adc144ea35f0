//! The linearizability checker: histories written by hand, a dumb twin on many small random ones, the store itself as
//! the source of good ones, and how fast it is.

#[path = "linearizability/draw.rs"]
mod draw;
#[path = "linearizability/notation.rs"]
mod notation;
#[path = "linearizability/twin.rs"]
mod twin;

use std::time::{Duration, Instant};

use draw::{Draw, Mix, Shape};
use lanekv::linearizability::{Command, Operation, Outcome, Verdict, check, check_counting};

/// More states than any history here needs.
const STATES_MAX: u64 = 1_000_000;

/// The verdict as yes or no.
fn accepts(history: &[Operation]) -> bool {
    match check(history, STATES_MAX) {
        Verdict::Linearizable => true,
        Verdict::NotLinearizable(_) => false,
        Verdict::GaveUp { states } => panic!("gave up after {states} states on {}", listing(history)),
    }
}

fn listing(history: &[Operation]) -> String {
    history.iter().map(|operation| format!("\n{operation}")).collect()
}

#[test]
fn histories_by_hand() {
    let cases = notation::cases(include_str!("linearizability/histories.txt"));
    let good = cases.iter().filter(|case| case.good).count();
    assert!(good >= 30 && cases.len() - good >= 30, "{good} good ones of {}", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        if accepts(&case.history) != case.good {
            wrong.push(case.title.as_str());
        }
        assert_eq!(twin::is_linearizable(&case.history), case.good, "the twin on `{}`", case.title);
        // The order of the list decides nothing.
        let mut backwards = case.history.clone();
        backwards.reverse();
        assert_eq!(check(&case.history, STATES_MAX) == Verdict::Linearizable, accepts(&backwards));
    }
    assert!(wrong.is_empty(), "wrong verdicts: {wrong:#?}");
}

#[test]
fn an_explanation_reads_well() {
    let text = "bad: a stale read\n\
        c1 0 1 SET x 1 -> OK\n\
        c1 2 3 SET x 2 -> OK\n\
        c3 3 - SET x 3\n\
        c2 4 5 GET x -> 1\n\
        c2 8 9 GET x -> 2\n\
        c2 0 9 SET y 1 -> OK\n";
    let history = &notation::cases(text)[0].history;
    let Verdict::NotLinearizable(explanation) = check(history, STATES_MAX) else {
        panic!("a stale read was accepted");
    };
    let expected = "no order of the operations on \"x\" fits their answers\n\
        operations in the longest order that fits: 2\n\
        \x20   1. client 1  0..1  SET \"x\" \"1\" -> OK\n\
        \x20   2. client 1  2..3  SET \"x\" \"2\" -> OK\n\
        the state then: \"x\" = \"2\"\n\
        one of these would have to be next, and none can be:\n\
        \x20      client 2  4..5  GET \"x\" -> \"1\"\n\
        nor does it help if some of these, which had no answer, come first:\n\
        \x20      client 3  3..  SET \"x\" \"3\" -> no answer\n\
        answered operations that come later: 1";
    assert_eq!(explanation.to_string(), expected);
}

#[test]
fn an_explanation_of_a_list_names_the_reader_that_decides() {
    let text = "bad: an append is lost\n\
        c1 0 1 APPEND l a -> 1\n\
        c1 2 3 APPEND l b -> 2\n\
        c2 4 5 GET l -> a\n";
    let Verdict::NotLinearizable(explanation) = check(&notation::cases(text)[0].history, STATES_MAX) else {
        panic!("a lost append was accepted");
    };
    let expected = "no order of the operations on \"l\" fits their answers\n\
        operations in the longest order that fits: 1\n\
        \x20   1. client 1  0..1  APPEND \"l\" \"a\" -> 1\n\
        the state then: \"l\" = \"a\"\n\
        one of these would have to be next, and none can be:\n\
        \x20      client 1  2..3  APPEND \"l\" \"b\" -> 2\n\
        nothing may be appended that is not in the values that these read later:\n\
        \x20      client 2  4..5  GET \"l\" -> \"a\"\n\
        answered operations that come later: 1";
    assert_eq!(explanation.to_string(), expected);
}

#[test]
fn a_search_gives_up_and_says_so() {
    // Sixteen increments without an answer make 65,536 sums; the one that was read is not among them.
    let mut history: Vec<Operation> = (0..16)
        .map(|n| Operation {
            client: n,
            command: Command::Add { key: b"n".to_vec(), by: 2 << n },
            begin: 0,
            end: 0,
            outcome: None,
        })
        .collect();
    let read = |begin: u64, key: &[u8], value: &[u8]| Operation {
        client: 99,
        command: Command::Get(vec![key.to_vec()]),
        begin,
        end: begin + 1,
        outcome: Some(Outcome::Values(vec![Some(value.to_vec())])),
    };
    history.push(read(1, b"n", b"77777"));
    let Verdict::GaveUp { states } = check(&history, 1000) else {
        panic!("65,536 states are more than 1000");
    };
    assert!((1000..1100).contains(&states), "{states}");
    assert!(matches!(check(&history, STATES_MAX), Verdict::NotLinearizable(_)));
    // Another group that is certainly wrong is more than not knowing.
    history.push(read(3, b"m", b"1"));
    assert!(matches!(check(&history, 1000), Verdict::NotLinearizable(_)));
}

#[test]
#[should_panic(expected = "ends before it begins")]
fn an_operation_that_ends_before_it_begins_is_a_mistake() {
    check(&notation::cases("bad: time\nc1 5 4 GET x -> nil")[0].history, 1);
}

#[test]
fn operations_without_keys_are_groups_of_their_own() {
    let nothing = |values| Operation {
        client: 1,
        command: Command::Get(Vec::new()),
        begin: 0,
        end: 1,
        outcome: Some(Outcome::Values(values)),
    };
    assert!(accepts(&[nothing(Vec::new())]));
    assert!(!accepts(&[nothing(Vec::new()), nothing(vec![None])]));
}

/// Small histories, as drawn and with one answer changed, judged by the checker and by its twin.
#[test]
fn the_twin_agrees() {
    const HISTORIES: usize = 20_000;
    let mut draw = Draw(3);
    let mut verdicts = [0; 2];
    for number in 0..HISTORIES {
        let shape = Shape {
            mix: [Mix::All, Mix::Register, Mix::Counter, Mix::List][number % 4],
            operations: 3 + draw.place(5),
            clients: 1 + draw.place(4),
            keys: 1 + draw.below(2),
            values: 1 + draw.below(3),
            unanswered: draw.place(4),
            span: 1 + draw.below(6),
            gap: draw.below(2),
        };
        let mut history = draw::history(&mut draw, shape);
        assert!(accepts(&history), "a good history was refused: {}", listing(&history));
        assert!(twin::is_linearizable(&history), "the twin refuses: {}", listing(&history));
        for _ in 0..1 + draw.below(2) {
            draw::corrupt(&mut draw, shape, &mut history);
        }
        let right = twin::is_linearizable(&history);
        assert_eq!(accepts(&history), right, "{}", listing(&history));
        verdicts[usize::from(right)] += 1;
    }
    println!("{} histories with changed answers are bad, {} still good", verdicts[0], verdicts[1]);
    assert!(verdicts.iter().all(|count| *count > HISTORIES / 10), "{verdicts:?}");
}

/// One client after the other: the order is given, so any changed answer must be noticed.
#[test]
fn answers_of_the_store_are_the_only_ones() {
    let mut draw = Draw(4);
    let mut changed = 0;
    for _ in 0..1000 {
        let shape = Shape {
            mix: Mix::All,
            operations: 40,
            clients: 1,
            keys: 3,
            values: 3,
            unanswered: 0,
            span: 1,
            gap: 1,
        };
        let mut history = draw::history(&mut draw, shape);
        assert!(accepts(&history), "{}", listing(&history));
        if let Some(place) = draw::corrupt(&mut draw, shape, &mut history) {
            assert!(!accepts(&history), "{} was accepted in {}", history[place], listing(&history));
            changed += 1;
        }
    }
    assert!(changed > 900, "{changed}");
}

/// What the search costs on histories as the simulator makes them, good and bad: states, which are the same on
/// every machine, are limited; times are printed.
#[test]
fn four_hundred_operations_on_one_key_are_little_work() {
    const ROUNDS: u32 = 20;
    for mix in [Mix::Register, Mix::Counter, Mix::List, Mix::All] {
        let shape =
            Shape { mix, operations: 400, clients: 6, keys: 1, values: 50, unanswered: 20, span: 10, gap: 0 };
        for corrupted in [false, true] {
            let mut draw = Draw(5);
            let (mut states_most, mut states_all, mut refused) = (0, 0, 0);
            let (mut slowest, mut all) = (Duration::ZERO, Duration::ZERO);
            for _ in 0..ROUNDS {
                let mut history = draw::history(&mut draw, shape);
                if corrupted {
                    draw::corrupt(&mut draw, shape, &mut history);
                }
                let begin = Instant::now();
                let (verdict, states) = check_counting(&history, STATES_MAX);
                let took = begin.elapsed();
                slowest = slowest.max(took);
                all += took;
                states_most = states_most.max(states);
                states_all += states;
                match verdict {
                    Verdict::Linearizable => {}
                    Verdict::NotLinearizable(_) if corrupted => refused += 1,
                    verdict => panic!("{verdict:?} after {states} states of {}", listing(&history)),
                }
            }
            println!(
                "{mix:?}, {}: {refused} of {ROUNDS} refused; {} states each, {states_most} at most; \
                 {:.1} ms each, {:.1} ms at most",
                if corrupted { "one answer changed" } else { "as drawn" },
                states_all / u64::from(ROUNDS),
                1e3 * all.as_secs_f64() / f64::from(ROUNDS),
                1e3 * slowest.as_secs_f64(),
            );
            assert!(states_most < 200_000, "{states_most}");
        }
    }
}

/// The work grows with the length of a history, not faster.
#[test]
fn long_histories() {
    for mix in [Mix::Register, Mix::All] {
        let shape = Shape {
            mix,
            operations: 20_000,
            clients: 8,
            keys: 5,
            values: 20,
            unanswered: 50,
            span: 10,
            gap: 0,
        };
        let history = draw::history(&mut Draw(6), shape);
        let begin = Instant::now();
        let (verdict, states) = check_counting(&history, STATES_MAX);
        println!("{mix:?}: {} operations, {states} states, {:?}", history.len(), begin.elapsed());
        assert_eq!(verdict, Verdict::Linearizable);
    }
}
