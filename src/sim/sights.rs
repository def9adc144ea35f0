//! What the simulator has done to the nodes, and what became of it, counted as the core counts its marks.

use crate::protocol::marks::marks;

marks! {
    /// A fault that struck, or what it led to.
    pub enum Sight;
    /// How often each came up.
    struct Sights;
    Crash = "a process is killed",
    PowerFailure = "a machine loses power, and any part of what was not synced",
    TornTurn = "a process is killed between two outputs of a turn",
    CrashInSeal = "a process is to be killed just after a record of a seal",
    HolderCrash = "a voter is to be killed just after its promise is out",
    RestartStorm = "a process is to be killed just after its start",
    StartFailed = "a process does not start because a call to the disk fails",
    CutInFrame = "a connection breaks in the middle of a message of a seal",
    PromiseHangs = "a disk becomes slow just when a promise is written",
    SealStalled = "a message of a seal is delayed",
    SlowNews = "only a minority learns of a decision for a while",
    PassiveApart = "a passive node reaches no sender, but another passive node",
    PassiveForGood = "three nodes stay passive, since each misses a sender for good",
    BitOnTheWay = "a bit is inverted on its way",
    BadFrame = "a frame is found to be damaged, and its connection closed",
    PartOfFrame = "part of a frame arrives",
    HelloRefused = "a hello is refused",
    SyncFailed = "a sync or a write fails, and the process stops",
    DiskFull = "a disk is full, and the process stops",
    DiskWiped = "a disk is emptied",
    DiskRotten = "a bit of synced data is inverted",
    DiskOld = "an old copy of a disk is put in its place",
    DamageFound = "a process refuses to start on a damaged disk",
    ImpostorFound = "a node on a wiped or old disk is refused by a peer",
    AmnesiaFound = "a node on an old disk is told of votes that it has lost",
    Halves = "the net falls into two halves",
    Island = "one node is cut off",
    Ring = "each node reaches its two neighbours only",
    Bridge = "two halves share one node",
    OneWay = "one half hears the other and is not heard",
    HopelessNet = "no majority reaches each other",
    WallJump = "a wall clock jumps",
    Rebuilt = "a node is rebuilt on an empty disk",
    RebuildWaits = "a node that is being rebuilt is refused while the process before it counts as alive",
    SnapshotTaken = "a snapshot is published",
    SnapshotInstalled = "a snapshot of a peer is installed",
    SnapshotFailed = "a snapshot cannot be taken",
    SnapshotSetAside = "a damaged snapshot is set aside at a start",
    StartedFromSnapshot = "a process starts from a snapshot",
    LogTruncated = "a segment of the log is removed",
    KeeperCrash = "a process is killed after a step of its keeper of snapshots",
    SessionExpired = "a session expires because the median of the clocks jumped",
}
