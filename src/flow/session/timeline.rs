//! Which sessions are there? Times of rows come and go; sessions grow, merge, shrink and split.
//!
//! A session is a run of times of one partition of which each is less than the gap after the one before. It is kept as its first
//! and its last time only, so that a row that prolongs it costs the same however long it is.
//!
//! Whoever keeps something of the rows of each session must hear what became of it. Between two calls of [`Timeline::settle`]
//! a session knows the stretch that it [held](Session::held) at the first of them, and the stretches of other sessions, which
//! are gone, that it has since [absorbed](Session::absorbed). Rows elsewhere in it are new.

use super::Micros;

/// Number of a session; given to another once the session is gone and settled.
pub type Id = u32;

/// First and last time, both within.
pub type Stretch = (Micros, Micros);

#[derive(Debug)]
pub struct Session {
    /// The partition that it belongs to.
    pub key: u32,
    pub start: Micros,
    /// The time of its last row.
    pub last: Micros,
    /// What it was when last settled, if it changed since and something of it goes on.
    held: Option<Stretch>,
    /// Stretches whose rows were others' when last settled.
    pub absorbed: Vec<Stretch>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Settled,
    /// It is on the list of those to settle.
    Touched,
    /// It is no more; its number is free once settled.
    Gone,
    Free,
}

impl Session {
    /// The stretch whose rows it had when last settled and still has, but for single ones.
    pub fn held(&self) -> Option<Stretch> {
        if self.state == State::Settled { Some((self.start, self.last)) } else { self.held }
    }
}

/// Which sessions changed, each once.
#[derive(Debug, Default)]
pub struct Settled {
    pub changed: Vec<Id>,
    pub gone: Vec<Id>,
}

#[derive(Debug)]
pub struct Timeline {
    gap: Micros,
    sessions: Vec<Session>,
    free: Vec<Id>,
    /// By partition: sessions by time.
    of: Vec<Vec<Id>>,
    touched: Vec<Id>,
}

impl Timeline {
    pub fn new(gap: Micros) -> Timeline {
        Timeline { gap, sessions: Vec::new(), free: Vec::new(), of: Vec::new(), touched: Vec::new() }
    }

    pub fn get(&self, id: Id) -> &Session {
        &self.sessions[id as usize]
    }

    /// The sessions of a partition, in order.
    pub fn of(&self, key: u32) -> &[Id] {
        self.of.get(key as usize).map_or(&[], Vec::as_slice)
    }

    /// The last session of the partition that starts at that time or before.
    pub fn before(&self, key: u32, at: Micros) -> Option<Id> {
        let ids = self.of(key);
        self.place(ids, at).checked_sub(1).map(|place| ids[place])
    }

    /// The session of the partition between whose first and last time that time lies.
    pub fn find(&self, key: u32, at: Micros) -> Option<Id> {
        self.before(key, at).filter(|id| at <= self.get(*id).last)
    }

    /// The session whose rows included that time when last settled, if it is still there.
    pub fn find_held(&self, key: u32, at: Micros) -> Option<Id> {
        let holds = |id: &&Id| self.get(**id).held().is_some_and(|(from, to)| from <= at && at <= to);
        self.of(key).iter().find(holds).copied()
    }

    /// How many sessions of the partition start at that time or before.
    fn place(&self, ids: &[Id], at: Micros) -> usize {
        // Rows come nearly in order.
        match ids.last() {
            Some(last) if self.get(*last).start <= at => ids.len(),
            _ => ids.partition_point(|id| self.get(*id).start <= at),
        }
    }

    /// There is a row at that time now.
    pub fn insert(&mut self, key: u32, at: Micros) {
        if self.of.len() <= key as usize {
            self.of.resize_with(key as usize + 1, Vec::new);
        }
        let place = self.place(self.of(key), at);
        let (ids, gap) = (&self.of[key as usize], self.gap);
        let before = place.checked_sub(1).map(|place| ids[place]).filter(|id| near(self.get(*id).last, at, gap));
        let after = ids.get(place).copied().filter(|id| near(at, self.get(*id).start, gap));
        match (before, after) {
            (Some(before), None) => {
                self.touch(before);
                let session = &mut self.sessions[before as usize];
                session.last = session.last.max(at);
            }
            (None, Some(after)) => {
                self.touch(after);
                self.sessions[after as usize].start = at;
            }
            (Some(before), Some(after)) => self.merge(before, after, place),
            (None, None) => {
                let id = self.make(key, at, at);
                self.of[key as usize].insert(place, id);
            }
        }
    }

    /// The one that has more time behind it goes on.
    fn merge(&mut self, before: Id, after: Id, place: usize) {
        self.touch(before);
        self.touch(after);
        let length = |session: &Session| session.held.map_or(-1, |(from, to)| to.saturating_sub(from));
        let (start, last, key) = (self.get(before).start, self.get(after).last, self.get(before).key);
        let (kept, lost, lost_place) = match length(self.get(before)) >= length(self.get(after)) {
            true => (before, after, place),
            false => (after, before, place - 1),
        };
        self.of[key as usize].remove(lost_place);
        let lost = &mut self.sessions[lost as usize];
        lost.state = State::Gone;
        let mut absorbed = std::mem::take(&mut lost.absorbed);
        // What it held and has lost since is no longer there to be read.
        let rest = lost.held.map(|(from, to)| (from.max(lost.start), to.min(lost.last)));
        absorbed.extend(rest.filter(|(from, to)| from <= to));
        let kept = &mut self.sessions[kept as usize];
        (kept.start, kept.last) = (start, last);
        kept.absorbed.extend(absorbed);
    }

    /// There is no row at that time any more; in its session the rows beside it are at these times.
    pub fn remove(&mut self, key: u32, at: Micros, former: Option<Micros>, next: Option<Micros>) {
        let Some(id) = self.find(key, at) else { return };
        match (former, next) {
            (Some(former), Some(next)) if near(former, next, self.gap) => {}
            (Some(former), Some(next)) => {
                self.touch(id);
                let (start, last) = (self.get(id).start, self.get(id).last);
                let place = self.lose(id);
                for (place, (start, last)) in [(place, (start, former)), (place + 1, (next, last))] {
                    let id = self.make(key, start, last);
                    self.sessions[id as usize].absorbed.push((start, last));
                    self.of[key as usize].insert(place, id);
                }
            }
            (None, Some(next)) => {
                self.touch(id);
                self.sessions[id as usize].start = next;
            }
            (Some(former), None) => {
                self.touch(id);
                self.sessions[id as usize].last = former;
            }
            (None, None) => {
                self.touch(id);
                self.lose(id);
            }
        }
    }

    /// The session is over, and nobody may ask for it any more.
    pub fn forget(&mut self, id: Id) {
        self.lose(id);
        self.sessions[id as usize].state = State::Free;
        self.free.push(id);
    }

    /// Something of the session's rows changed.
    pub fn touch(&mut self, id: Id) {
        let session = &mut self.sessions[id as usize];
        if session.state == State::Settled {
            session.state = State::Touched;
            session.held = Some((session.start, session.last));
            self.touched.push(id);
        }
    }

    /// Take a session from its partition. Says which place it had there.
    fn lose(&mut self, id: Id) -> usize {
        let session = &mut self.sessions[id as usize];
        session.state = State::Gone;
        session.absorbed.clear();
        let (key, start) = (session.key as usize, session.start);
        let place = self.of[key].partition_point(|other| self.sessions[*other as usize].start < start);
        self.of[key].remove(place);
        place
    }

    fn make(&mut self, key: u32, start: Micros, last: Micros) -> Id {
        let session = Session { key, start, last, held: None, absorbed: Vec::new(), state: State::Touched };
        let id = match self.free.pop() {
            Some(id) => {
                self.sessions[id as usize] = session;
                id
            }
            None => {
                self.sessions.push(session);
                (self.sessions.len() - 1) as Id
            }
        };
        self.touched.push(id);
        id
    }

    /// What changed since the last call, before it is forgotten by [`Timeline::settle`].
    pub fn changes(&self) -> Settled {
        let (gone, changed) = self.touched.iter().partition(|id| self.get(**id).state == State::Gone);
        Settled { changed, gone }
    }

    /// All has been heard.
    pub fn settle(&mut self) {
        for id in std::mem::take(&mut self.touched) {
            let session = &mut self.sessions[id as usize];
            session.held = None;
            session.absorbed = Vec::new();
            if session.state == State::Gone {
                session.state = State::Free;
                self.free.push(id);
            } else {
                session.state = State::Settled;
            }
        }
    }
}

/// Two times, the former first, belong together.
fn near(former: Micros, next: Micros, gap: Micros) -> bool {
    next.checked_sub(former).is_some_and(|distance| distance < gap)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use rand::prelude::*;

    use super::*;

    /// Random rows come and go; sessions are what they are by the definition, and whoever follows what is told has their rows.
    #[test]
    fn sessions_are_runs_of_times() {
        for seed in 0..300 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let gap = rng.random_range(1..12);
            let mut timeline = Timeline::new(gap);
            let mut times: BTreeSet<Micros> = BTreeSet::new();
            // Of each session: the times that it is told to have.
            let mut followed: BTreeMap<Id, BTreeSet<Micros>> = BTreeMap::new();
            for _ in 0..60 {
                let mut batch: BTreeMap<Micros, bool> = BTreeMap::new();
                for _ in 0..rng.random_range(1..6) {
                    let at = rng.random_range(0..100);
                    batch.insert(at, !times.contains(&at));
                }
                for (at, comes) in &batch {
                    if *comes {
                        times.insert(*at)
                    } else {
                        times.remove(at)
                    };
                }
                let mut order: Vec<_> = batch.iter().collect();
                order.shuffle(&mut rng);
                for (at, comes) in order {
                    if *comes {
                        timeline.insert(0, *at);
                    } else if let Some(id) = timeline.find(0, *at) {
                        let (start, last) = (timeline.get(id).start, timeline.get(id).last);
                        let former = times.range(start..*at).next_back().copied().filter(|_| start < *at);
                        let next = if *at < last { times.range(at + 1..=last).next().copied() } else { None };
                        timeline.remove(0, *at, former, next);
                    }
                }
                follow(&timeline, &times, &batch, &mut followed);
                timeline.settle();
                check(&timeline, &times, gap, &followed, seed);
            }
        }
    }

    fn follow(
        timeline: &Timeline,
        times: &BTreeSet<Micros>,
        batch: &BTreeMap<Micros, bool>,
        followed: &mut BTreeMap<Id, BTreeSet<Micros>>,
    ) {
        let changes = timeline.changes();
        changes.gone.iter().for_each(|id| drop(followed.remove(id)));
        for id in changes.changed {
            let session = timeline.get(id);
            let of = followed.entry(id).or_default();
            for (from, to) in &session.absorbed {
                of.extend(times.range(*from..=*to));
            }
        }
        let absorbed = |id: Id, at: Micros| timeline.get(id).absorbed.iter().any(|(from, to)| *from <= at && at <= *to);
        for (at, comes) in batch {
            if *comes {
                let id = timeline.find(0, *at).expect("a row is in a session");
                if !absorbed(id, *at) {
                    assert!(followed.entry(id).or_default().insert(*at));
                }
            } else if let Some(id) = timeline.find_held(0, *at) {
                assert!(followed.get_mut(&id).expect("it held rows").remove(at));
            }
        }
    }

    fn check(timeline: &Timeline, times: &BTreeSet<Micros>, gap: Micros, followed: &BTreeMap<Id, BTreeSet<Micros>>, seed: u64) {
        let mut expected: Vec<BTreeSet<Micros>> = Vec::new();
        for at in times {
            match expected.last_mut() {
                Some(run) if at - run.last().unwrap() < gap => drop(run.insert(*at)),
                _ => expected.push(BTreeSet::from([*at])),
            }
        }
        let ids = timeline.of(0);
        let found: Vec<_> = ids.iter().map(|id| (timeline.get(*id).start, timeline.get(*id).last)).collect();
        let bounds: Vec<_> = expected.iter().map(|run| (*run.first().unwrap(), *run.last().unwrap())).collect();
        assert_eq!(found, bounds, "seed {seed}");
        let of: Vec<_> = ids.iter().map(|id| followed[id].clone()).collect();
        assert_eq!(of, expected, "seed {seed}");
        assert_eq!(timeline.sessions.len() - timeline.free.len(), ids.len(), "seed {seed}");
    }
}
