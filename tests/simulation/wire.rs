//! The way of a component to the API server: one that loses requests and answers, delays them, and breaks watches.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use api::user::UserInfo;
use apiserver::{ApiServer, Caller};
use async_trait::async_trait;
use bytes::Bytes;
use client::{Body, BoxError, Transport, TransportError};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use task::Tasks;
use tokio::sync::{mpsc, watch};

use crate::random::Random;

/// How often faults strike, and whether they do.
pub(crate) struct Weather {
    random: Random,
    stormy: AtomicBool,
}

impl Weather {
    pub(crate) fn stormy(seed: u64) -> Arc<Self> {
        Arc::new(Self { random: Random::new(seed, 2), stormy: AtomicBool::new(true) })
    }

    /// No fault strikes any more.
    pub(crate) fn calm_down(&self) {
        self.stormy.store(false, Ordering::Relaxed);
    }

    /// Whether a fault of this likelihood strikes now.
    pub(crate) fn strikes(&self, percent: u64) -> bool {
        self.stormy.load(Ordering::Relaxed) && self.random.chance(percent)
    }

    /// Takes its time: a little always, sometimes much.
    pub(crate) async fn delay(&self) {
        let most = if self.strikes(5) { 3000 } else { 20 };
        tokio::time::sleep(self.random.millis(most)).await;
    }

    /// How long a watch lives.
    fn life(&self) -> Duration {
        if self.strikes(70) { self.random.millis(20_000) } else { Duration::from_secs(600) }
    }
}

/// Where the API server is found while it runs.
pub(crate) type Door = watch::Sender<Option<Arc<ApiServer>>>;

/// A component's way to the API server.
pub(crate) struct Wire {
    door: Arc<Door>,
    user: UserInfo,
    weather: Arc<Weather>,
    tasks: Tasks,
}

impl Wire {
    pub(crate) fn new(door: &Arc<Door>, user: UserInfo, weather: &Arc<Weather>, tasks: &Tasks) -> Arc<Self> {
        Arc::new(Self { door: Arc::clone(door), user, weather: Arc::clone(weather), tasks: tasks.clone() })
    }

    fn lost(why: &'static str) -> TransportError {
        TransportError { server: "simulated".to_owned(), source: why.into() }
    }
}

#[async_trait]
impl Transport for Wire {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
        self.weather.delay().await;
        if self.weather.strikes(4) {
            return Err(Self::lost("the request was lost"));
        }
        let mut door = self.door.subscribe();
        let Some(server) = door.borrow_and_update().clone() else { return Err(Self::lost("nobody listens")) };
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let response = tokio::select! {
            response = server.handle(Caller { user: self.user.clone() }, request.map(Full::new)) => response,
            _ = door.changed() => return Err(Self::lost("the server was stopped")),
        };
        self.weather.delay().await;
        if self.weather.strikes(4) {
            return Err(Self::lost("the answer was lost"));
        }
        if !is_watch {
            return Ok(response);
        }
        let (sender, receiver) = mpsc::channel(1);
        let (life, orderly) = (self.weather.life(), self.weather.strikes(50));
        let (head, body) = response.into_parts();
        self.tasks.spawn("wire", pump(body, sender, door, life, orderly));
        Ok(Response::from_parts(head, BodyExt::boxed(Pieces(receiver))))
    }
}

/// Carries a watch until its life is over, its server has gone, or nobody reads it.
async fn pump(
    mut body: apiserver::Body,
    sender: mpsc::Sender<Result<Frame<Bytes>, BoxError>>,
    mut door: watch::Receiver<Option<Arc<ApiServer>>>,
    life: Duration,
    orderly: bool,
) {
    let end = tokio::time::sleep(life);
    tokio::pin!(end);
    let broken = loop {
        tokio::select! {
            () = &mut end => break !orderly,
            () = sender.closed() => return,
            _ = door.changed() => break true,
            frame = body.frame() => match frame {
                Some(frame) => if sender.send(frame).await.is_err() { return },
                None => return,
            },
        }
    };
    if broken {
        // A reader that has gone does not mind.
        let _ = sender.send(Err("the connection broke".into())).await;
    }
}

struct Pieces(mpsc::Receiver<Result<Frame<Bytes>, BoxError>>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context)
    }
}
