//! The seats of one level and who waits for them: a pure state machine.
//!
//! Users with waiting requests stand in a ring, each with a queue of its own; a free seat goes to the first of the user
//! whose turn it is. A heavy request whose turn it is waits until enough seats are free, and the others wait behind it,
//! lest light ones starve it. Invariants: never more seats are taken than there are; a user stands in the ring exactly
//! while its queue holds something; one user's queue never keeps another user from waiting.

use std::collections::{HashMap, VecDeque};

/// Beyond so many waiting requests, only users that do not wait yet may.
const CROWD: usize = 500;
/// Users that may wait.
const USERS: usize = 1000;

/// A request that was let in or waits.
pub(super) type Ticket = u64;

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has its seats.
    Enter(Ticket),
    /// It is to wait until its ticket is called.
    Wait(Ticket),
    /// There is no place to wait either.
    Refused,
}

/// How large a level is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// What may be taken at once.
    pub(super) seats: u32,
    /// Requests of one flow that may wait.
    pub(super) queue: usize,
}

impl Shape {
    /// Whether so much fits beside what is taken. What came when the level was larger fits when nothing else is there.
    fn has_room(self, taken: u32, weight: u32) -> bool {
        taken + weight <= self.seats || (taken == 0 && self.seats > 0)
    }
}

#[derive(Debug)]
pub(super) struct Queues {
    shape: Shape,
    taken: u32,
    waiting: usize,
    next: Ticket,
    ring: VecDeque<String>,
    queues: HashMap<String, VecDeque<(Ticket, u32)>>,
}

impl Queues {
    pub(super) fn new(shape: Shape) -> Self {
        Self { shape, taken: 0, waiting: 0, next: 0, ring: VecDeque::new(), queues: HashMap::new() }
    }

    /// What a request takes here: at least one seat, at most all.
    pub(super) fn bounded(&self, weight: u32) -> u32 {
        weight.min(self.shape.seats).max(1)
    }

    /// The level becomes larger or smaller; these are called. What is taken beyond its new size is given back in time.
    pub(super) fn reshape(&mut self, shape: Shape) -> Vec<Ticket> {
        self.shape = shape;
        self.call()
    }

    /// A request comes; its weight is bounded.
    pub(super) fn arrive(&mut self, user: &str, weight: u32) -> Verdict {
        if self.ring.is_empty() && self.shape.has_room(self.taken, weight) {
            self.taken += weight;
            return Verdict::Enter(self.ticket());
        }
        let length = self.queues.get(user).map_or(0, VecDeque::len);
        let no_place = if length == 0 { self.ring.len() >= USERS } else { self.waiting >= CROWD };
        if no_place || length >= self.shape.queue {
            return Verdict::Refused;
        }
        let ticket = self.ticket();
        self.queues.entry(user.to_owned()).or_default().push_back((ticket, weight));
        if length == 0 {
            self.ring.push_back(user.to_owned());
        }
        self.waiting += 1;
        Verdict::Wait(ticket)
    }

    /// A request that was let in is done; these are called.
    pub(super) fn depart(&mut self, weight: u32) -> Vec<Ticket> {
        self.taken -= weight;
        self.call()
    }

    /// A waiting request gives up; these, which it stood before, are called.
    pub(super) fn withdraw(&mut self, user: &str, ticket: Ticket) -> Vec<Ticket> {
        if let Some(queue) = self.queues.get_mut(user) {
            let before = queue.len();
            queue.retain(|(other, _)| *other != ticket);
            self.waiting -= before - queue.len();
            if queue.is_empty() {
                self.queues.remove(user);
                self.ring.retain(|other| other != user);
            }
        }
        self.call()
    }

    fn ticket(&mut self) -> Ticket {
        self.next += 1;
        self.next
    }

    /// Lets in whoever's turn it is while seats last.
    fn call(&mut self) -> Vec<Ticket> {
        let mut called = Vec::new();
        while let Some(user) = self.ring.front() {
            let Some(queue) = self.queues.get_mut(user) else { break };
            let Some((ticket, weight)) = queue.front().copied() else { break };
            if !self.shape.has_room(self.taken, weight) {
                break;
            }
            queue.pop_front();
            let is_empty = queue.is_empty();
            self.taken += weight;
            self.waiting -= 1;
            called.push(ticket);
            if is_empty {
                self.queues.remove(user);
                self.ring.pop_front();
            } else {
                self.ring.rotate_left(1);
            }
        }
        called
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: usize = 50;

    fn queues(seats: u32) -> Queues {
        Queues::new(Shape { seats, queue: QUEUE })
    }

    fn wait(queues: &mut Queues, user: &str, weight: u32) -> Ticket {
        match queues.arrive(user, weight) {
            Verdict::Wait(ticket) => ticket,
            other => panic!("{user}: {other:?}"),
        }
    }

    fn fill(queues: &mut Queues, user: &str) {
        for _ in 0..QUEUE {
            wait(queues, user, 1);
        }
    }

    #[test]
    fn users_take_turns_however_many_requests_one_has() {
        let mut queues = queues(1);
        assert!(matches!(queues.arrive("a", 1), Verdict::Enter(_)));
        let [a1, a2, a3] = [(); 3].map(|()| wait(&mut queues, "a", 1));
        let (b1, c1) = (wait(&mut queues, "b", 1), wait(&mut queues, "c", 1));
        let order: Vec<Ticket> = (0..5).flat_map(|_| queues.depart(1)).collect();
        assert_eq!(order, [a1, b1, c1, a2, a3]);
        assert!(queues.depart(1).is_empty());
        assert!(matches!(queues.arrive("b", 1), Verdict::Enter(_)), "nothing is left behind");
    }

    #[test]
    fn a_heavy_request_is_not_overtaken_by_light_ones() {
        let mut queues = queues(3);
        (0..3).for_each(|_| assert!(matches!(queues.arrive("a", 1), Verdict::Enter(_))));
        let weight = queues.bounded(10);
        let heavy = wait(&mut queues, "b", weight);
        let light = wait(&mut queues, "c", 1);
        assert_eq!((queues.depart(1), queues.depart(1)), (vec![], vec![]));
        assert_eq!(queues.depart(1), [heavy]);
        assert_eq!(queues.depart(3), [light]);
    }

    #[test]
    fn a_level_that_shrinks_lets_in_what_came_before_and_one_that_grows_calls() {
        let mut queues = queues(3);
        assert!(matches!(queues.arrive("a", 3), Verdict::Enter(_)));
        let heavy = wait(&mut queues, "b", 3);
        assert!(queues.reshape(Shape { seats: 1, queue: 1 }).is_empty());
        assert_eq!(queues.arrive("b", 1), Verdict::Refused);
        assert_eq!(queues.depart(3), [heavy]);
        let light = wait(&mut queues, "c", 1);
        assert_eq!(queues.reshape(Shape { seats: 4, queue: 1 }), [light]);
        assert!(queues.reshape(Shape { seats: 0, queue: 0 }).is_empty());
        assert_eq!((queues.bounded(5), queues.arrive("d", 1)), (1, Verdict::Refused));
    }

    #[test]
    fn whoever_gives_up_makes_way_for_those_behind() {
        let mut queues = queues(2);
        assert!(matches!(queues.arrive("a", 1), Verdict::Enter(_)));
        let heavy = wait(&mut queues, "b", 2);
        let light = wait(&mut queues, "c", 1);
        assert_eq!(queues.withdraw("b", heavy), [light]);
        assert_eq!((queues.waiting, queues.taken, queues.ring.len(), queues.queues.len()), (0, 2, 0, 0));
    }

    #[test]
    fn a_full_queue_refuses_its_user_and_a_crowd_only_those_who_wait() {
        let mut queues = queues(1);
        assert!(matches!(queues.arrive("a", 1), Verdict::Enter(_)));
        fill(&mut queues, "a");
        assert_eq!(queues.arrive("a", 1), Verdict::Refused);
        for user in 1..CROWD / QUEUE {
            fill(&mut queues, &format!("u{user}"));
        }
        let newcomer = wait(&mut queues, "b", 1);
        assert_eq!(queues.arrive("b", 1), Verdict::Refused);
        let called: Vec<Ticket> = (0..CROWD / QUEUE + 1).flat_map(|_| queues.depart(1)).collect();
        assert!(called.contains(&newcomer), "its turn comes in the first round");
        for user in queues.ring.len()..USERS {
            wait(&mut queues, &format!("v{user}"), 1);
        }
        assert_eq!(queues.arrive("late", 1), Verdict::Refused);
    }
}
