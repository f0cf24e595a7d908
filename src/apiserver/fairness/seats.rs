//! The seats of a level, to wait for and to hold.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::queues::{Queues, Shape, Ticket, Verdict};

/// Seats that certain callers share.
#[derive(Debug)]
pub(super) struct Level {
    room: Mutex<Room>,
}

#[derive(Debug)]
struct Room {
    queues: Queues,
    /// Those that wait to be called.
    waiting: HashMap<Ticket, oneshot::Sender<()>>,
}

/// A place in the room or in a queue before it, which is given back when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    level: Arc<Level>,
    user: String,
    ticket: Ticket,
    weight: u32,
}

impl Level {
    pub(super) fn new(shape: Shape) -> Arc<Self> {
        let room = Room { queues: Queues::new(shape), waiting: HashMap::new() };
        Arc::new(Self { room: Mutex::new(room) })
    }

    /// Makes the level larger or smaller.
    pub(super) fn reshape(&self, shape: Shape) {
        let mut room = self.room();
        let called = room.queues.reshape(shape);
        room.call(called);
    }

    /// Waits for seats; none if too many wait or it takes too long.
    pub(super) async fn enter(self: &Arc<Self>, user: String, weight: u32, patience: Duration) -> Option<Seat> {
        let (seat, called) = self.arrive(user, weight)?;
        if let Some(called) = called {
            tokio::time::timeout(patience, called).await.ok()?.ok()?;
        }
        Some(seat)
    }

    fn arrive(self: &Arc<Self>, user: String, weight: u32) -> Option<(Seat, Option<oneshot::Receiver<()>>)> {
        let mut room = self.room();
        let weight = room.queues.bounded(weight);
        let (ticket, called) = match room.queues.arrive(&user, weight) {
            Verdict::Enter(ticket) => (ticket, None),
            Verdict::Wait(ticket) => {
                let (call, called) = oneshot::channel();
                room.waiting.insert(ticket, call);
                (ticket, Some(called))
            }
            Verdict::Refused => return None,
        };
        Some((Seat { level: Arc::clone(self), user, ticket, weight }, called))
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut room = self.level.room();
        let called = match room.waiting.remove(&self.ticket) {
            Some(_) => room.queues.withdraw(&self.user, self.ticket),
            None => room.queues.depart(self.weight),
        };
        room.call(called);
    }
}

impl Room {
    fn call(&mut self, tickets: Vec<Ticket>) {
        for ticket in tickets {
            if let Some(call) = self.waiting.remove(&ticket) {
                // Whoever no longer listens is about to drop its seat.
                let _ = call.send(());
            }
        }
    }
}
