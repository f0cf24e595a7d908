//! From the bytes of a question to the bytes of its answer.
//!
//! What the zone knows, what is kept, and what is refused is answered at once; only what has to be asked of somebody else
//! waits. It knows nothing of sockets.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, Record};
use tokio::sync::OwnedSemaphorePermit;

use crate::answer::{Answer, Ask, answer};
use crate::forward::{Forwarder, is_final};
use crate::message::{Known, Question, Read, Sections, Transport, read};
use crate::zone::Zone;

/// Answers questions; clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    zone: Arc<RwLock<Zone>>,
    forwarder: Forwarder,
    turn: Arc<AtomicUsize>,
}

/// What is done with a message.
pub(crate) enum Taken {
    /// These bytes are the answer.
    Answered(Vec<u8>),
    /// The answer is with others: [`Server::finish`].
    Waiting(Box<Waiting>),
    /// There is none.
    Ignored,
}

/// A question that waits for others.
pub(crate) struct Waiting {
    question: Question,
    /// The beginning of the answer, and the name where it goes on, if that is another.
    begun: Option<(Vec<Record>, Name)>,
    _place: OwnedSemaphorePermit,
}

impl Server {
    pub(crate) fn new(zone: Arc<RwLock<Zone>>, forwarder: Forwarder) -> Self {
        Self { zone, forwarder, turn: Arc::default() }
    }

    /// Answers what can be answered now.
    pub(crate) fn take(&self, bytes: &[u8], transport: Transport) -> Taken {
        let question = match read(bytes, transport) {
            Read::Question(question) => *question,
            Read::Refused(bytes) => return Taken::Answered(bytes),
            Read::Ignored => return Taken::Ignored,
        };
        let ask = Ask {
            kind: question.query.query_type(),
            turn: self.turn.fetch_add(1, Ordering::Relaxed),
            most: question.most_records(),
        };
        let found = {
            let zone = self.zone.read().unwrap_or_else(PoisonError::into_inner);
            answer(&zone, question.query.name(), &ask)
        };
        match found {
            Some(Answer { beyond: Some(name), records, .. }) if question.wants_recursion => {
                self.pass_on(question, Some((records, name)))
            }
            Some(answer) => Taken::Answered(own(&question, &answer)),
            // Only the world's own servers answer for the world (RFC 1034 §4.3.1), as CoreDNS refuses it.
            None if !question.wants_recursion => {
                Taken::Answered(question.reply(ResponseCode::Refused, Sections::default(), Known::default()))
            }
            None => self.pass_on(question, None),
        }
    }

    fn pass_on(&self, question: Question, begun: Option<(Vec<Record>, Name)>) -> Taken {
        let name = begun.as_ref().map_or(question.query.name(), |(_, name)| name);
        if let Some(message) = self.forwarder.kept(name, question.query.query_type(), question.flags) {
            return Taken::Answered(passed(&question, begun, message));
        }
        match self.forwarder.enter() {
            Some(place) => Taken::Waiting(Box::new(Waiting { question, begun, _place: place })),
            None => Taken::Answered(question.failed()),
        }
    }

    /// Answers what waits.
    pub(crate) async fn finish(&self, waiting: Box<Waiting>) -> Vec<u8> {
        let Waiting { question, begun, _place } = *waiting;
        let name = begun.as_ref().map_or(question.query.name(), |(_, name)| name);
        let message = self.forwarder.ask(name, question.query.query_type(), question.flags).await;
        match (message, begun) {
            (Some(message), begun) if begun.is_none() || is_final(message.metadata.response_code) => {
                passed(&question, begun, message)
            }
            // What is known here is said though nobody tells more, as CoreDNS does (`plugin/backend_lookup.go`).
            (_, Some((records, _))) => {
                let sections = Sections { answers: &records, authorities: &[], additionals: &[] };
                question.reply(ResponseCode::NoError, sections, Known { authoritative: true, authentic: false })
            }
            (_, None) => question.failed(),
        }
    }
}

fn own(question: &Question, answer: &Answer) -> Vec<u8> {
    let sections =
        Sections { answers: &answer.records, authorities: &answer.authority, additionals: &answer.additional };
    question.reply(answer.code, sections, Known { authoritative: true, authentic: false })
}

/// Somebody else's answer, behind what was begun here. The code is that of the last name (RFC 6604 §3). Names are spelled
/// as the asker spells them, who may compare.
pub(crate) fn passed(question: &Question, begun: Option<(Vec<Record>, Name)>, mut message: Message) -> Vec<u8> {
    let (authoritative, mut answers) = match begun {
        Some((records, _)) => (true, records),
        None => {
            let name = question.query.name();
            for record in message.answers.iter_mut().filter(|record| record.name == *name) {
                record.name = name.clone();
            }
            (false, Vec::new())
        }
    };
    answers.append(&mut message.answers);
    let sections = Sections { answers: &answers, authorities: &message.authorities, additionals: &message.additionals };
    let authentic = message.metadata.authentic_data && !authoritative;
    question.reply(message.metadata.response_code, sections, Known { authoritative, authentic })
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::RecordType;
    use task::Tasks;

    use super::*;
    use crate::message::Flags;
    use crate::resolvers::{ResolvConf, Resolvers};

    #[tokio::test]
    async fn when_too_many_wait_a_further_one_is_told_so_at_once() {
        let name = |text| Name::from_ascii(text).unwrap();
        let zone = Zone::new(name("cluster.local."), Vec::new());
        let forwarder = Forwarder::new(Resolvers::new(ResolvConf::of_host(), Vec::new()), Tasks::new());
        let server = Server::new(Arc::new(RwLock::new(zone)), forwarder.clone());
        let question = crate::message::ask(&name("www.example.com."), RecordType::A, Flags::default(), false);
        let bytes = question.to_vec().unwrap();
        let mut places: Vec<_> = std::iter::from_fn(|| forwarder.enter()).collect();
        let Taken::Answered(answer) = server.take(&bytes, Transport::Udp) else { panic!("it waits") };
        assert_eq!(Message::from_vec(&answer).unwrap().metadata.response_code, ResponseCode::ServFail);
        places.pop();
        assert!(matches!(server.take(&bytes, Transport::Udp), Taken::Waiting(_)));
    }
}
