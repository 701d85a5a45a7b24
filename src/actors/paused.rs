//! What tests on paused time share: one thread whose clock stands still, except while everybody
//! waits for time to pass, and containers at the other end of real sockets.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::models::batcher::Batcher;
use super::plane::arbiters::DataArbiters;
use super::plane::data_plane::DataPlane;
use super::plane::directory::ModelHandle;
use super::pool::container_pool::ContainerPool;
use super::pool::list::ContainerList;
use super::pool::messages::Register;
use crate::children::keys::ChildKeys;
use crate::children::launch::Launcher;
use crate::children::seen::SeenChildren;
use crate::children::{Bounds, Children};
use crate::metrics::Metrics;
use crate::rpc::access::Security;
use crate::rpc::places::Place;
use crate::rpc::registration::{Introduction, Registration};
use crate::store::samples;
use crate::supervision::budget::RestartBudget;
use crate::supervision::kept::Kept;
pub(super) use crate::supervision::paused::on_paused_time;
use clipper_clock as clock;
use clipper_config::Config;
use clipper_container::allowed::Allowed;
use clipper_domain::{Input, InputType, ModelId};
use clipper_rpc::codec::{self, AnswerForm, Build, Extensions, FromServer};
use clipper_rpc::wire::WireChunks;
use clipper_rpc::zmtp::{Decoder, Incoming, Limits, LimitsOf};
use clipper_scheduling::dispatch::Arrival;
use clipper_scheduling::flight::{Flight, Waiter};
use clipper_scheduling::latency::LatencyCurve;
use clipper_scheduling::share::{AppId, Share};
use clipper_scheduling::ticket::Ticket;

/// Waits for what needs no time to come about.
pub(super) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..200_000 {
        if is_so() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it does not come about: {what}");
}

/// Lets everything happen that needs no time.
pub(super) async fn settle() {
    for _ in 0..2_000 {
        tokio::task::yield_now().await;
    }
}

/// Lets so much time pass, and everything happen that comes of it.
pub(super) async fn pass(ms: u64) {
    tokio::time::advance(Duration::from_millis(ms)).await;
    settle().await;
}

/// Keeps an actor from its mailbox until the sender is dropped.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Stall(oneshot::Receiver<()>);

macro_rules! stalls {
    ($($actor:ty),+) => {
        $(impl Handler<Stall> for $actor {
            type Result = ();
            fn handle(&mut self, Stall(over): Stall, ctx: &mut Self::Context) {
                ctx.wait(over.into_actor(self).map(|_, _, _| ()));
            }
        })+
    };
}
stalls!(Batcher, ContainerPool);

/// Stalls an actor and fills its mailbox. It goes on when what this gives is dropped.
pub(super) async fn stall_full<A>(actor: &Addr<A>, room: usize) -> oneshot::Sender<()>
where
    A: Actor<Context = Context<A>> + Handler<Stall>,
{
    let (go_on, over) = oneshot::channel();
    actor.try_send(Stall(over)).unwrap();
    settle().await;
    for _ in 0..=room {
        // Each clone of an address may send one more than there is room for.
        let (_, over) = oneshot::channel();
        actor.clone().try_send(Stall(over)).unwrap();
    }
    go_on
}

/// Limits and metrics, with restarts after 100, 200 and 400 ms and an end after three.
pub(super) fn plane(change: impl FnOnce(&mut Config)) -> Arc<DataPlane> {
    let mut config = Config::default();
    config.containers.restart_backoff_initial_ms = 100;
    config.containers.restart_backoff_max_ms = 400;
    config.containers.restart_budget = 3;
    change(&mut config);
    DataPlane::new(&config, Metrics::new())
}

/// A pool on this thread, without child processes.
pub(super) fn pool(plane: &Arc<DataPlane>, list: &ContainerList) -> Kept<ContainerPool> {
    let budget = RestartBudget::for_actor(&plane.containers);
    let (plane, list, metrics) = (Arc::clone(plane), list.clone(), Arc::clone(&plane.metrics));
    let arbiters = DataArbiters([Arbiter::current()].into());
    Kept::start("container_pool", metrics, budget, move |lifeline| {
        let launcher = Launcher {
            this_exe: PathBuf::new(),
            rpc_addr: "tcp://127.0.0.1:1".to_owned(),
            grace: Duration::ZERO,
            python_package: Ok(PathBuf::new()),
            keys: ChildKeys::default(),
            allowed: Allowed::default(),
            bounds: Bounds::default(),
            seen: SeenChildren::default(),
        };
        let metrics = Arc::clone(&plane.metrics);
        let children = Children::new(plane.containers.clone(), metrics, HashMap::new(), launcher);
        let (plane, list) = (Arc::clone(&plane), list.clone());
        ContainerPool::new(plane, arbiters.clone(), list, children, lifeline)
    })
}

/// The version that all of this is about.
pub(super) fn id() -> ModelId {
    samples::model_id("m", "1")
}

/// A registration of it.
pub(super) fn handle(plane: &DataPlane) -> Arc<ModelHandle> {
    let spec = samples::model("m", "1", InputType::Doubles);
    let metrics = plane.metrics.model(&id());
    Arc::new(ModelHandle::new(spec, 1, metrics, LatencyCurve::default()))
}

/// A query on its way, as an application would send it, with a minute of time.
pub(super) fn ask(plane: &DataPlane, model: &ModelHandle, input: f64) -> Ticket {
    let now = clock::now();
    let deadline = now + Duration::from_mins(1);
    let ticket = Ticket::new(1, plane.query_ids(1));
    let input = Input(Arc::from(input.to_le_bytes()));
    let key = plane.cache.key(model.serial, input);
    let waiter = Waiter { slot: ticket.slot(0), deadline };
    let share = Share::equal(AppId::of("a"));
    let queries = [Flight::alone(key, now, waiter)].into_iter().collect();
    let arrival = Arrival { share, deadline, queries };
    if let Err(refused) = model.intake().add(arrival, 1, 10_000) {
        plane.abort_all([refused], &clipper_scheduling::ticket::DefaultReason::NoReplica);
    }
    ticket
}

/// The container's end of a connection that has said what it serves.
pub(super) struct Peer {
    stream: TcpStream,
    read: BytesMut,
}

impl Peer {
    /// Connects to a pool, as the listener would let it.
    pub(super) async fn connect(plane: &DataPlane, pool: &Kept<ContainerPool>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let theirs = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (ours, peer) = listener.accept().await.unwrap();
        let introduction = Introduction {
            identity: Bytes::new(),
            model: id(),
            input_type: InputType::Doubles,
            extensions: Extensions::OF_BATCHES,
            signature: None,
        };
        let registration = Registration {
            stream: ours.into_std().unwrap(),
            unread: BytesMut::new(),
            introduction,
            peer,
            security: Security::default(),
            place: Place::for_test(&plane.metrics, peer.ip()),
        };
        assert!(pool.send(Register(registration)).await.unwrap().is_ok());
        Self { stream: theirs, read: BytesMut::new() }
    }

    /// Shows that it lives.
    pub(super) async fn beat(&mut self) {
        self.write(&codec::encode_container_heartbeat()).await;
    }

    /// Says which code it runs.
    pub(super) async fn state_build(&mut self, build: &Build) {
        self.write(&codec::encode_build(build)).await;
    }

    /// Answers every batch until it is dropped. How many queries it has been sent.
    pub(super) fn serve(mut self, output: &'static str) -> Rc<RefCell<Vec<Bytes>>> {
        let inputs: Rc<RefCell<Vec<Bytes>>> = Rc::default();
        let seen = Rc::clone(&inputs);
        actix::spawn(async move {
            while let Some((message_id, batch)) = self.batch().await {
                let outputs = vec![Bytes::from_static(output.as_bytes()); batch.len()];
                seen.borrow_mut().extend(batch);
                let form = AnswerForm::default();
                self.write(&codec::encode_answer(message_id, outputs, &[], form)).await;
            }
        });
        inputs
    }

    async fn write(&mut self, frames: &[Bytes]) {
        let mut out = WireChunks::new();
        out.push_message(frames);
        self.stream.write_all_buf(&mut out).await.unwrap();
    }

    /// The next batch; none when the connection ends.
    /// What it is asked next: the message id and the inputs. None when the connection has ended.
    pub(super) async fn batch(&mut self) -> Option<(u32, Vec<Bytes>)> {
        let mut decoder = Decoder::new(Limits {
            frames_max: 10_000,
            frame_max_bytes: 1 << 20,
            message_max_bytes: 1 << 20,
            of: LimitsOf::Answers,
        });
        loop {
            while let Some(incoming) = decoder.next(&mut self.read).unwrap() {
                let Incoming::Message(frames) = incoming else { continue };
                if let FromServer::Predict { message_id, inputs, .. } =
                    codec::decode_from_server(frames, 10_000).unwrap()
                {
                    return Some((message_id, inputs));
                }
            }
            if self.stream.read_buf(&mut self.read).await.ok()? == 0 {
                return None;
            }
        }
    }
}
