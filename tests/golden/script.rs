//! Scripts: commands, a line of dashes, and what came out of them.
//!
//! A script is text in blocks that are parted by empty lines. A block has commands, `---`, and the lines that these
//! commands produced. `#` starts a comment. Nodes are `n0`, `n1` …, links are `n0->n1` (one direction) or
//! `n0--n1` (both).
//!
//! | command | does |
//! |---|---|
//! | `cluster N [disk=manual]` | N nodes with empty disks; a manual disk syncs when told to |
//! | … `[history=BYTES] [pinned=BYTES] [views=N]` | so much a node keeps of what is delivered; else all of it |
//! | `found` | starts and connects all, until they are in view 1; says nothing |
//! | `start`, `connect-all`, `restart` NODE | a process; connections to all that run; both |
//! | `crash` NODE `[kept] [silent]` | ends it; unsynced records are lost unless kept; silent: no peer notices |
//! | `wipe` NODE [`rebuild`], `damage` NODE N | an empty disk, perhaps rebuilt; the last N durable records are gone |
//! | `swap` NODE `[silent] [kept]` | another process of its number, on another disk, takes its place |
//! | `disk` NODE `manual` or `auto`, `persist` NODE `[N]` | who says when an fsync is done; N more records are |
//! | `snapshot` NODE, `spoil` NODE | a snapshot of what is delivered, for its next starts; the newest is damaged |
//! | `install` NODE NODE `[FIELD=NUMBER…]` | the second's newest snapshot in the first; it says this instead: `t` … |
//! | `pause`, `resume` NODE | it takes no turns; its messages wait |
//! | `offer` NODE WORD…, `read` NODE | one batch for each word; `x*9` is a long one; a linearizable read |
//! | `cancel` NODE N | nobody waits any more for the Nth of what clients asked of a node, a read |
//! | `leave` NODE, `disk-slow` NODE `[off]` | what the machine tells the node |
//! | `deliver` LINK `[KIND]`, `deliver-all` | the first message (of a kind); all that is not held, to the end |
//! | `drop` LINK `[KIND [N]]` | loses what is in it |
//! | `block`, `unblock` LINK KIND | what is sent of this kind gets lost |
//! | `hold`, `release`, `cut`, `connect` LINK | messages wait in it; the connection breaks, or is made anew |
//! | `connect` LINK FIELD=NUMBER… | its hello says this instead: `protocol`, `from`, `to`, `cluster`, `members` … |
//! | `forge` LINK KIND FIELD=NUMBER… | an `append`, `fill`, `snapshot-offer` that nobody sent: `lane`, `t`, `prev` … |
//! | `stir` LINK | the first bytes of a long message have come through it |
//! | `tick MS`, `run MS` | time passes at once; time passes and messages travel |
//! | `repeat` N COMMAND `;` COMMAND … | these in turn, so many times |
//! | `show`, `hide` KIND… | lines by kind: of message, record, note, `delivers` …; `time` begins each |
//! | `report [NODE]`, `log`, `probation` NODE, `queue` LINK | how things stand |

use lanekv::protocol::{Input, ReadTicket};

use super::coverage::Coverage;
use super::world::{Memory, Outcome, World};

/// What a block without output says.
const SILENCE: &str = "(nothing)";

/// Runs the commands of scripts.
#[derive(Debug)]
pub(crate) struct Script {
    world: Option<World>,
    read_back_is_durable: bool,
}

impl Script {
    /// For `read_back_is_durable` see `World::new`.
    pub(crate) fn new(read_back_is_durable: bool) -> Script {
        Script { world: None, read_back_is_durable }
    }

    /// Runs a script and returns it with the output that its commands really have.
    ///
    /// # Errors
    /// A command that makes no sense, with the number of its line.
    pub(crate) fn run(&mut self, text: &str) -> Outcome<String> {
        let mut result = String::new();
        let mut skipping = false;
        for (number, line) in text.lines().enumerate() {
            if skipping {
                skipping = !line.is_empty();
                if skipping {
                    continue;
                }
            }
            result.push_str(line);
            result.push('\n');
            if line == "---" {
                result.push_str(&self.output());
                skipping = true;
            } else if !line.is_empty() && !line.starts_with('#') {
                self.command(line).map_err(|what| format!("line {}: {line}: {what}", number + 1))?;
            }
        }
        Ok(result)
    }

    /// What came up in the cluster.
    pub(crate) fn coverage(&self) -> Coverage {
        self.world.as_ref().map(World::coverage).unwrap_or_default()
    }

    fn output(&mut self) -> String {
        let lines = self.world.as_mut().map(World::take_lines).unwrap_or_default();
        if lines.is_empty() {
            return format!("{SILENCE}\n");
        }
        lines.into_iter().map(|line| line + "\n").collect()
    }

    /// Carries out one command.
    fn command(&mut self, line: &str) -> Outcome {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (name, arguments) = words.split_first().ok_or("no command")?;
        if *name == "cluster" {
            if self.world.is_some() {
                return Err("one cluster is enough".to_owned());
            }
            let count = arguments.first().and_then(|n| n.parse().ok()).ok_or("how many nodes?")?;
            let (mut manual, mut memory) = (false, Memory::default());
            for argument in &arguments[1..] {
                let (name, value) = argument.split_once('=').ok_or("NAME=VALUE is expected")?;
                match name {
                    "disk" if value == "manual" => manual = true,
                    "history" => memory.history_len = parsed(value)?,
                    "pinned" => memory.pinned_history_len = parsed(value)?,
                    "views" => memory.views_kept = parsed(value)?,
                    _ => return Err(format!("unknown setting {argument}")),
                }
            }
            self.world = Some(World::new(count, manual, self.read_back_is_durable, memory));
            return Ok(());
        }
        if *name == "repeat" {
            let times = number(arguments, 0)?;
            let commands: Vec<&[&str]> = arguments[1..].split(|word| *word == ";").collect();
            return (0..times).try_for_each(|_| commands.iter().try_for_each(|c| self.command(&c.join(" "))));
        }
        let world = self.world.as_mut().ok_or("no cluster yet")?;
        match *name {
            "found" => world.found(),
            "show" => each(arguments, |kind| world.show(kind, true)),
            "hide" => each(arguments, |kind| world.show(kind, false)),
            "deliver-all" => world.deliver_all(),
            "tick" => {
                world.tick(number(arguments, 0)?);
                Ok(())
            }
            "run" => world.run(number(arguments, 0)?),
            "deliver" | "drop" | "cut" | "connect" | "hold" | "release" | "queue" | "block" | "unblock"
            | "stir" | "forge" => {
                let links = links(arguments.first().ok_or("which link?")?, world.len())?;
                links.into_iter().try_for_each(|(from, to)| on_link(world, name, from, to, &arguments[1..]))
            }
            "report" if arguments.is_empty() => {
                (0..world.len()).for_each(|node| world.report(node));
                Ok(())
            }
            _ => on_node(
                world,
                name,
                node(arguments.first().ok_or("which node?")?, world.len())?,
                &arguments[1..],
            ),
        }
    }
}

fn on_link(world: &mut World, name: &str, from: usize, to: usize, arguments: &[&str]) -> Outcome {
    let kind = arguments.first().copied();
    match name {
        "deliver" => return world.deliver(from, to, kind),
        "drop" => {
            let count = arguments.get(1).map_or(Ok(usize::MAX), |n| n.parse()).map_err(|_| "how many?")?;
            return world.lose(from, to, kind, count);
        }
        "connect" => return world.connect(from, to, arguments),
        "forge" => return world.forge(from, to, arguments),
        "block" | "unblock" => {
            world.block(from, to, kind.ok_or("which kind?")?, name == "block");
        }
        "stir" => world.stir(from, to),
        "cut" => world.cut(from, to),
        "queue" => world.queue(from, to),
        _ => world.hold(from, to, name == "hold"),
    }
    Ok(())
}

fn on_node(world: &mut World, name: &str, node: usize, arguments: &[&str]) -> Outcome {
    let has = |word| arguments.contains(&word);
    match name {
        "start" => return world.start(node),
        "connect-all" => return world.connect_all(node),
        "restart" => {
            world.start(node)?;
            return world.connect_all(node);
        }
        "crash" => return world.crash(node, has("kept"), has("silent")),
        "swap" => world.swap(node, has("silent"), has("kept")),
        "wipe" => return world.wipe(node, has("rebuild")),
        "snapshot" => return world.snapshot(node),
        "spoil" => return world.spoil(node),
        "install" => {
            let (from, fields) = arguments.split_first().ok_or("a snapshot of which node?")?;
            let from = self::node(from, world.len())?;
            return world.install(node, from, fields);
        }
        "damage" => {
            let count = number(arguments, 0)?;
            return world.damage(node, usize::try_from(count).map_err(|e| e.to_string())?);
        }
        "offer" => return world.offer(node, arguments),
        "read" => return world.read(node),
        "persist" => {
            let count = arguments.first().map_or(Ok(usize::MAX), |n| n.parse()).map_err(|_| "how many?")?;
            world.persist(node, count);
        }
        "disk" => world.set_manual(node, has("manual")),
        "cancel" => world.tell(node, Input::CancelRead(ReadTicket(number(arguments, 0)?))),
        "leave" => world.tell(node, Input::Leave),
        "disk-slow" => world.tell(node, Input::DiskSlow(!has("off"))),
        "pause" => world.pause(node, true),
        "resume" => world.pause(node, false),
        "report" => world.report(node),
        "log" => world.log(node),
        "probation" => world.probation(node),
        _ => return Err("unknown command".to_owned()),
    }
    Ok(())
}

fn each(arguments: &[&str], mut action: impl FnMut(&str)) -> Outcome {
    arguments.iter().for_each(|argument| action(argument));
    Ok(())
}

fn parsed(value: &str) -> Outcome<usize> {
    value.parse().map_err(|_| "a number is expected".to_owned())
}

fn number(arguments: &[&str], place: usize) -> Outcome<u64> {
    arguments.get(place).and_then(|n| n.parse().ok()).ok_or_else(|| "a number is expected".to_owned())
}

fn node(word: &str, count: usize) -> Outcome<usize> {
    let node = word.strip_prefix('n').and_then(|n| n.parse().ok()).filter(|n| *n < count);
    node.ok_or_else(|| format!("no such node: {word}"))
}

fn links(word: &str, count: usize) -> Outcome<Vec<(usize, usize)>> {
    if let Some((a, b)) = word.split_once("->") {
        return Ok(vec![(node(a, count)?, node(b, count)?)]);
    }
    let (a, b) = word.split_once("--").ok_or_else(|| format!("no link: {word}"))?;
    let (a, b) = (node(a, count)?, node(b, count)?);
    Ok(vec![(a, b), (b, a)])
}
