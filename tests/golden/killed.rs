//! Both tasks of `lictor run` over a cluster in memory. Every epoch is aborted once and then committed, and after every
//! commit the process is killed and begins again with what the cluster has.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use lictor_connectors::{Committed, NextOffset, TopicPartition};
use lictor_engine::exchange::route::{Place, Router};
use lictor_engine::outputs::OutputTopics;
use lictor_engine::pipeline::Stages;
use lictor_engine::shard::{JudgeSettings, Restoring};
use lictor_engine::tasks::{Batch, JudgeTask, Message, ScanTask, TaskTopics};
use lictor_schemas::event::EnforcementEvent;
use lictor_schemas::time::EventTime;

use crate::language::{BEFORE, Input, load, partitions, settings, ticked};
use crate::support::{Arrival, to_record, topic_of};

const SHARDS: u32 = 3;

/// Which input partitions there are, as (topic, number of partitions).
type Sources = Vec<(String, i32)>;

/// Keys and values of a state log, compacted at all times.
type StateLog = Vec<(Vec<u8>, Vec<u8>)>;

/// What lies in Kafka.
#[derive(Default)]
struct Cluster {
    scanned: BTreeMap<TopicPartition, Committed>,
    shuffle: BTreeMap<i32, Vec<Vec<u8>>>,
    judged: BTreeMap<i32, NextOffset>,
    state: BTreeMap<i32, StateLog>,
    events: Vec<EnforcementEvent>,
}

fn topics() -> TaskTopics {
    TaskTopics { shuffle: "l.shuffle".to_owned(), state: "l.state".to_owned(), outputs: OutputTopics::default() }
}

impl Cluster {
    fn commit(&mut self, batch: Batch) {
        let TaskTopics { shuffle, state, outputs } = topics();
        for Message { outgoing, partition } in batch.messages {
            match partition {
                Some(shard) if outgoing.topic == shuffle => {
                    self.shuffle.entry(shard).or_default().push(outgoing.payload.unwrap());
                }
                Some(shard) if outgoing.topic == state => {
                    let (log, key) = (self.state.entry(shard).or_default(), outgoing.key.unwrap());
                    log.retain(|(other, _)| *other != key);
                    log.extend(outgoing.payload.map(|value| (key, value)));
                }
                None if outgoing.topic == outputs.enforcement => {
                    self.events.push(EnforcementEvent::from_json(&outgoing.payload.unwrap()).unwrap());
                }
                _ => {}
            }
        }
        for consumed in batch.consumed {
            if *consumed.partition.topic == *shuffle {
                self.judged.insert(consumed.partition.partition, consumed.next);
            } else {
                let committed = Committed { next: consumed.next, metadata: consumed.metadata };
                self.scanned.insert(consumed.partition, committed);
            }
        }
    }
}

/// A process with both tasks, which reads every partition and serves every shard.
struct Instance {
    scan: ScanTask,
    judge: JudgeTask,
    /// The next parcel of each shard.
    judging: BTreeMap<i32, usize>,
}

impl Instance {
    /// Begins with what the cluster has.
    fn start(rules: &Path, sources: &Sources, cluster: &Cluster, now: EventTime) -> Self {
        let loaded = load(rules);
        let Stages { scan, judge, routes } = Stages::new(loaded.rules, Arc::clone(&loaded.prices), &settings());
        let mut scan = ScanTask::new(scan, Router::new(SHARDS, routes), judge.names.clone(), topics(), ("lictor", "a"));
        scan.expect(sources);
        for (topic, count) in sources {
            for partition in (0..*count).map(|number| TopicPartition::new(topic, number)) {
                let nothing = Committed { next: NextOffset(0), metadata: String::new() };
                scan.assign(&partition, cluster.scanned.get(&partition).unwrap_or(&nothing), now);
            }
        }
        let mut instance = Self { scan, judge: JudgeTask::new(topics()), judging: BTreeMap::new() };
        let settings = Arc::new(judge);
        (0..SHARDS).for_each(|shard| instance.serve(shard, &settings, sources, cluster));
        instance
    }

    fn serve(&mut self, shard: u32, settings: &Arc<JudgeSettings>, sources: &Sources, cluster: &Cluster) {
        let number = i32::try_from(shard).unwrap();
        let mut restoring = Restoring::new(settings, Place { shard, shards: SHARDS }, false);
        for (key, value) in cluster.state.get(&number).into_iter().flatten() {
            restoring.absorb(key, Some(value)).unwrap();
        }
        let topics: Vec<String> = sources.iter().map(|(topic, _)| topic.clone()).collect();
        let restored = restoring.finish(cluster.judged.get(&number).copied(), &topics).unwrap();
        let next = self.judge.serve(number, restored).unwrap_or(NextOffset(0));
        self.judging.insert(number, usize::try_from(next.0).unwrap());
    }

    /// Reads a record, if there is one, and commits what is made of it. That time has passed is no record: what is
    /// undone of it does not come again.
    fn scan(&mut self, record: Option<&Arrival>, cluster: &mut Cluster, now: EventTime) {
        if let Some(record) = record {
            self.scan.absorb(to_record(record), now);
            self.scan.end_epoch(now, true);
            self.scan.undo(now);
            self.scan.absorb(to_record(record), now);
        }
        cluster.commit(self.scan.end_epoch(now, true).batch);
        self.scan.commit();
    }

    /// Judges what was shipped, and commits.
    fn judge(&mut self, cluster: &mut Cluster, now: EventTime) {
        self.absorb_parcels(cluster);
        self.judge.end_epoch(now);
        for (shard, next) in self.judge.undo().unwrap() {
            self.judging.insert(shard.partition, usize::try_from(next.map_or(0, |next| next.0)).unwrap());
        }
        self.absorb_parcels(cluster);
        let epoch = self.judge.end_epoch(now);
        let messages = self.judge.messages_of(&epoch.decisions);
        cluster.commit(Batch { messages, consumed: Vec::new() });
        cluster.commit(epoch.state);
        self.judge.commit().unwrap();
    }

    fn absorb_parcels(&mut self, cluster: &Cluster) {
        for (shard, next) in &mut self.judging {
            let parcels = cluster.shuffle.get(shard).map(Vec::as_slice).unwrap_or_default();
            for parcel in &parcels[*next..] {
                self.judge.absorb(*shard, i64::try_from(*next).unwrap(), parcel).unwrap();
                *next += 1;
            }
        }
    }
}

/// What is published of `inputs` under `rules` by a process that is killed after every epoch; an epoch has one record.
pub(crate) fn events_of_the_killed(rules: &Path, inputs: &[Input]) -> Vec<EnforcementEvent> {
    let mut counts: BTreeMap<&str, i32> = BTreeMap::new();
    for (signal, partition) in partitions(inputs) {
        let count = counts.entry(topic_of(signal)).or_default();
        *count = (*count).max(partition + 1);
    }
    let sources: Sources = counts.into_iter().map(|(topic, count)| (topic.to_owned(), count)).collect();
    let (mut cluster, mut now) = (Cluster::default(), BEFORE);
    for input in inputs {
        let mut instance = Instance::start(rules, &sources, &cluster, now);
        let record = match input {
            Input::Record(arrival) => Some(arrival),
            Input::Tick(to) => {
                now = ticked(now, *to);
                None
            }
        };
        instance.scan(record, &mut cluster, now);
        instance.judge(&mut cluster, now);
    }
    cluster.events.iter_mut().for_each(|event| event.data.detected_at = None);
    cluster.events
}
