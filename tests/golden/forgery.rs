//! Messages and hellos that no sound node would ever send.

use std::sync::Arc;

use lanekv::protocol::{Base, Hello, Message};
use lanekv::types::{
    ClusterId, Entry, Incarnation, Label, Millis, NodeId, OriginPair, Timestamp, ViewNumber,
};
use lanekv::wire::batch::BatchBuilder;

use super::{Outcome, World};

/// The value of `name=value`, or what it is if it is not given.
fn field(fields: &[&str], name: &str, otherwise: u64) -> Outcome<u64> {
    let given = fields.iter().find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    given.map_or(Ok(otherwise), |value| value.parse().map_err(|_| format!("{name} is a number")))
}

fn node_id(number: u64) -> Outcome<NodeId> {
    u8::try_from(number).ok().and_then(NodeId::new).ok_or_else(|| format!("no node has the number {number}"))
}

fn known(fields: &[&str], names: &[&str]) -> Outcome {
    let is_known = |field: &str| field.split_once('=').is_some_and(|(name, _)| names.contains(&name));
    fields.iter().find(|field| !is_known(field)).map_or(Ok(()), |field| Err(format!("unknown field {field}")))
}

/// Makes a hello say something else than its speaker would.
pub(super) fn disguise(hello: &mut Hello, fields: &[&str]) -> Outcome {
    known(
        fields,
        &["protocol", "from", "to", "cluster", "members", "disk", "incarnation", "boot", "joining"],
    )?;
    let protocol = field(fields, "protocol", u64::from(hello.protocol))?;
    hello.protocol = u16::try_from(protocol).map_err(|error| error.to_string())?;
    hello.from = node_id(field(fields, "from", hello.from.index() as u64)?)?;
    hello.to = node_id(field(fields, "to", hello.to.index() as u64)?)?;
    hello.cluster = ClusterId(field(fields, "cluster", hello.cluster.0)?);
    hello.members = field(fields, "members", hello.members)?;
    hello.disk.0 = field(fields, "disk", hello.disk.0)?;
    hello.incarnation = Incarnation(field(fields, "incarnation", hello.incarnation.0)?);
    hello.boot = field(fields, "boot", hello.boot)?;
    hello.joining = field(fields, "joining", u64::from(hello.joining))? != 0;
    Ok(())
}

/// Makes a snapshot say something else than its maker would. `t` moves the last entry that is in it.
pub(super) fn disguise_base(base: &mut Base, fields: &[&str]) -> Outcome {
    known(fields, &["cluster", "t"])?;
    base.cluster = ClusterId(field(fields, "cluster", base.cluster.0)?);
    base.view.cluster = base.cluster;
    let lane = base.view.lane_of(base.position.node).ok_or("its last entry is of no lane")?;
    base.position.t = Timestamp(field(fields, "t", base.position.t.0)?);
    if base.position.t > Timestamp::ZERO {
        base.lanes[lane] = base.position.t;
    }
    Ok(())
}

impl World {
    /// Puts an entry that nobody made into a link, as an Append or as a Fill; or the news that it is forgotten.
    pub(crate) fn forge(&mut self, from: usize, to: usize, arguments: &[&str]) -> Outcome {
        let (kind, fields) = arguments.split_first().ok_or("which message?")?;
        known(fields, &["view", "lane", "t", "prev", "origin", "incarnation", "seq"])?;
        let node = node_id(field(fields, "lane", from as u64)?)?;
        let mut batch = BatchBuilder::new();
        batch.push(None, 0, &["forged"]);
        let entry = Arc::new(Entry {
            view: ViewNumber(field(fields, "view", 1)?),
            t: Timestamp(field(fields, "t", 1)?),
            node,
            prev: Timestamp(field(fields, "prev", 0)?),
            label: Label {
                origin: node_id(field(fields, "origin", node.index() as u64)?)?,
                pair: OriginPair {
                    registered: ViewNumber(1),
                    incarnation: Incarnation(field(fields, "incarnation", 1)?),
                },
                seq: field(fields, "seq", 1)?,
            },
            wall: Millis(0),
            batch: batch.take(),
        });
        let message = match *kind {
            "append" => Message::Append(entry),
            "fill" => Message::Fill { entries: vec![entry] },
            "snapshot-offer" => Message::SnapshotOffer { forgotten: entry.position() },
            _ => return Err("only append, fill and snapshot-offer can be forged".to_owned()),
        };
        self.link(from, to).queue.push_back(message);
        Ok(())
    }
}
