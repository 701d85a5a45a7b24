//! One per replica: owns its `ZeroMQ` connection and the batches under way.
//!
//! It dies on silence, on a broken rule, when its queue of unwritten bytes overflows, or with the
//! connection; what it had not answered goes back to the batcher (invariant C1). It never trusts
//! the other end (invariants P3, C2): an answer counts only for a batch under way, whole.

mod answers;
mod handed_on;
mod identity;
mod lane_state;
mod lanes;
mod silence;
mod tensors;
mod writing;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use actix::prelude::*;
use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use tracing::{debug, debug_span, info, trace, warn};

use self::handed_on::hand_on_traces;
pub use self::identity::Identity;
use self::lane_state::{Lanes, Piecewise};
use super::batch_span::{self, BatchEnd};
use super::dispatch::{FromReplica, Owed, ToReplica};
use super::landing::LandedBatch;
use super::messages::{News, PoolOrder, ReplicaNews};
use crate::actors::plane::data_plane::DataPlane;
use crate::actors::plane::directory::ModelHandle;
use crate::logging::outsiders;
use crate::metrics::RpcEnd;
use crate::rpc::access::Security;
use crate::rpc::places::Place;
use crate::rpc::reader::{self, AwaitsAnswers, ReadError, Reader, Received};
use crate::rpc::registration;
use crate::supervision::control::Outbox;
use clipper_clock::{self as clock, Instant};
use clipper_domain::InputType;
use clipper_rpc::codec::{self, Build, Extensions, FromContainer, NoticeLevel};
use clipper_rpc::receive::Held;
use clipper_rpc::unasked::UnaskedMeter;
use clipper_rpc::wire::WireChunks;
use clipper_rpc::zmtp::{COMMAND_MAX_BYTES, Incoming};
use clipper_scheduling::dispatch::{BatchId, Departure, Unanswered};
use clipper_scheduling::flight::Flight;
use clipper_scheduling::stream::Bell;

#[derive(Debug)]
struct ServedModel {
    model: Arc<ModelHandle>,
    batcher: Outbox<FromReplica>,
}

#[derive(Debug)]
struct InFlight {
    message_id: u32,
    batch: BatchId,
    flights: Arc<[Arc<Flight>]>,
    /// It is answered in pieces.
    piecewise: Option<Piecewise>,
    /// The container was told that nobody waits for it.
    is_cancelled: bool,
}

/// The actor. Lives on its model's data arbiter.
#[derive(Debug)]
pub struct Container {
    plane: Arc<DataPlane>,
    identity: Identity,
    pool: Outbox<ReplicaNews>,
    serving: Option<ServedModel>,
    write_half: Arc<OwnedWriteHalf>,
    unwritten: WireChunks,
    waiting_to_write: bool,
    /// What the connection has come with.
    security: Security,
    /// In the order in which they were sent; the batcher sends at most two, or one for each lane.
    in_flight: VecDeque<InFlight>,
    /// Heartbeats during the batch under way.
    busy_heartbeats: u32,
    /// It has a thread for heartbeats, which goes on while it computes.
    speaks_while_busy: bool,
    next_message_id: u32,
    last_heard: Instant,
    /// Counts messages that are no awaited answer.
    unasked: UnaskedMeter,
    /// Whether an answer may come.
    asked: AwaitsAnswers,
    /// Answers that may still come although nobody waits for them any more.
    late_answers: usize,
    /// The same of pieces of answers.
    late_pieces: u32,
    lanes: Lanes,
    /// Rings when an answer in pieces wants something.
    bell: Arc<Bell>,
    end: Option<(RpcEnd, String)>,
    /// Gives the connection's place back when the replica ends.
    open: Place,
}

impl Container {
    /// Takes over a connection whose handshake is done. Runs on the arbiter that will own it.
    ///
    /// # Errors
    /// The connection cannot be registered with this thread's event loop.
    pub fn adopt(
        plane: Arc<DataPlane>,
        identity: Identity,
        pool: Recipient<ReplicaNews>,
        (connection, security): (std::net::TcpStream, Security),
        open: Place,
    ) -> io::Result<(Self, OwnedReadHalf)> {
        let (read_half, write_half) = TcpStream::from_std(connection)?.into_split();
        let unasked = plane.unasked.meter();
        let lanes = Lanes::of(identity.accepted());
        let container = Self {
            plane,
            identity,
            pool: Outbox::new(pool),
            serving: None,
            write_half: Arc::new(write_half),
            unwritten: WireChunks::of(security.session.as_ref()),
            security,
            waiting_to_write: false,
            in_flight: VecDeque::with_capacity(2),
            busy_heartbeats: 0,
            speaks_while_busy: false,
            next_message_id: 0,
            last_heard: clock::now(),
            unasked,
            asked: AwaitsAnswers::default(),
            late_answers: 0,
            late_pieces: 0,
            lanes,
            bell: Arc::default(),
            end: None,
            open,
        };
        Ok((container, read_half))
    }

    /// Starts to read; `unread` is what the handshake read too much.
    pub fn listen(&self, read_half: OwnedReadHalf, unread: &[u8], ctx: &mut Context<Self>) {
        let (limits, asked) = (reader::answer_limits(&self.plane.rpc), self.asked.clone());
        let reader = Reader::new(read_half, unread, limits, asked, &self.plane.receive);
        ctx.add_stream(reader.with_session(self.security.session.as_ref()));
    }

    fn end(&mut self, why: RpcEnd, text: impl Into<String>, ctx: &mut Context<Self>) {
        if self.end.is_none() {
            if why == RpcEnd::Flood {
                self.open.cut();
            }
            self.end = Some((why, text.into()));
        }
        ctx.stop();
    }

    fn receive(&mut self, frames: Vec<Bytes>, held: Option<Held>, ctx: &mut Context<Self>) {
        let bytes = frames.iter().map(Bytes::len).sum();
        match codec::decode_from_container(frames, self.answer_limits()) {
            Ok(FromContainer::Heartbeat) => {
                self.hear_heartbeat();
                self.count_unasked(bytes, ctx);
                codec::encode_heartbeat(&mut self.unwritten, false);
                self.write(ctx);
            }
            Ok(FromContainer::NewContainer { .. }) => {
                self.count_unasked(bytes, ctx);
                // It asks again after a heartbeat of ours crossed its first message: known already.
                debug!(replica = %self.identity.replica, "repeated new-container message");
            }
            Ok(FromContainer::Build(build)) => {
                self.count_unasked(bytes, ctx);
                self.state_build(build, ctx);
            }
            Ok(FromContainer::Stream(news)) => self.hear_stream(news, bytes, ctx),
            Ok(FromContainer::Answer { message_id, outputs, errors, computed }) => {
                match self.in_flight.iter().position(|batch| batch.message_id == message_id) {
                    Some(position) => {
                        let answer = LandedBatch { outputs, errors, computed, held };
                        self.answer(position, answer, bytes, ctx);
                    }
                    None => self.stray_answer(message_id, outputs.len(), bytes, ctx),
                }
                self.asked.set(!self.in_flight.is_empty() || self.late_answers > 0);
            }
            Err(error) => self.end(RpcEnd::Protocol, error.to_string(), ctx),
        }
        // With nothing unanswered it may leave a dead pool; it comes back to the new one.
        if self.in_flight.is_empty() && !self.pool.is_connected() {
            self.end(RpcEnd::Shutdown, "the container pool ended", ctx);
        }
    }

    /// The context of a batch's log lines.
    fn span(&self, message_id: u32) -> tracing::Span {
        let Identity { model, replica, .. } = &self.identity;
        debug_span!("batch", %model, %replica, message_id)
    }

    /// Ends a connection that talks too much: that takes time from all replicas on the thread.
    fn count_unasked(&mut self, bytes: usize, ctx: &mut Context<Self>) {
        if let Err(flood) = self.unasked.count(bytes, self.last_heard) {
            self.end(RpcEnd::Flood, flood.to_string(), ctx);
        }
    }

    /// Lets the pool compare what the container runs with what others of its version run.
    fn state_build(&mut self, build: Build, ctx: &mut Context<Self>) {
        if !self.identity.accepted().has(Extensions::BUILD) {
            let text = "it stated its build without having announced that it does";
            return self.end(RpcEnd::Protocol, text, ctx);
        }
        self.tell_pool(News::Stated(build));
    }

    fn tell_pool(&self, what: News) {
        let (model, replica) = (self.identity.model.clone(), self.identity.replica);
        if self.pool.tell(ReplicaNews { model, replica, what }).is_err() {
            // It has forgotten its replicas; its successor hears of those that register with it.
            debug!(%replica, "the container pool has ended");
        }
    }

    fn attach(
        &mut self,
        model: Arc<ModelHandle>,
        batcher: Recipient<FromReplica>,
        attached: oneshot::Sender<()>,
        ctx: &mut Context<Self>,
    ) {
        if self.serving.as_ref().is_some_and(|serving| serving.batcher.leads_to(&batcher)) {
            return;
        }
        self.serving = Some(ServedModel { model, batcher: Outbox::new(batcher) });
        let Identity { model, replica, .. } = &self.identity;
        let text = format!("this container serves {model} as replica {replica}");
        self.notice(NoticeLevel::Info, &text, ctx);
        self.announce_when_known(attached, ctx);
    }

    fn detach(&mut self, ctx: &mut Context<Self>) {
        self.leave(RpcEnd::Retired, "its model was deleted");
        let text = format!(
            "{} was deleted: this container gets no queries until it is registered again",
            self.identity.model
        );
        self.notice(NoticeLevel::Warning, &text, ctx);
    }

    fn run(&mut self, batch: BatchId, flights: Arc<[Arc<Flight>]>, ctx: &mut Context<Self>) {
        let message_id = self.next_message_id;
        let _span = self.span(message_id).entered();
        if tracing::enabled!(tracing::Level::TRACE) {
            for flight in flights.iter() {
                trace!(query_ids = ?flight.query_ids(), "query sent");
            }
        }
        self.next_message_id = self.next_message_id.wrapping_add(1);
        let piecewise = self.open_stream(message_id, &flights, ctx);
        let flights = match self.identity.input_type {
            InputType::Tensors => match self.encode_tensors(message_id, batch, flights) {
                Some(flights) => flights,
                None => return,
            },
            input_type => {
                let accepted = self.identity.accepted();
                let of = (message_id, batch);
                hand_on_traces(&mut self.unwritten, of, accepted, flights.iter());
                let inputs = flights.iter().map(|flight| flight.input());
                let form = (input_type, accepted.has(Extensions::JOINED));
                codec::encode_predict(&mut self.unwritten, message_id, form, inputs);
                flights
            }
        };
        self.asked.set(true);
        let is_cancelled = false;
        self.in_flight.push_back(InFlight { message_id, batch, flights, piecewise, is_cancelled });
        self.write(ctx);
    }

    fn announce(&self, attached: oneshot::Sender<()>, ctx: &mut Context<Self>) {
        let (replica, container) = (self.identity.replica, ctx.address().recipient());
        let unanswered = self.in_flight.iter().map(|InFlight { batch, flights, .. }| Unanswered {
            batch: *batch,
            queries: Arc::clone(flights),
        });
        let (unanswered, lanes) = (unanswered.collect(), self.lanes.known());
        self.tell_batcher(FromReplica::Ready { replica, container, unanswered, lanes, attached });
    }

    fn tell_batcher(&self, message: FromReplica) {
        let Some(serving) = &self.serving else { return };
        if serving.batcher.tell(message).is_err() {
            // Its model starts another one and the pool attaches this replica to it.
            debug!(replica = %self.identity.replica, "its batcher has ended");
        }
    }

    /// Leaves the batcher, which takes care of what is unanswered.
    fn leave(&mut self, why: RpcEnd, text: &str) {
        self.late_answers = self.in_flight.len();
        let unanswered = Vec::from(std::mem::take(&mut self.in_flight));
        self.give_up_streams(&unanswered);
        let Some(serving) = self.serving.take() else { return };
        let Identity { model, replica, .. } = &self.identity;
        let text: Arc<str> = format!("Replica {model}:{replica} failed: {text}").into();
        for InFlight { batch, flights, .. } in &unanswered {
            let (batch, end) = ((*batch, &flights[..]), BatchEnd::Failed(&text));
            batch_span::leave(&self.plane, (model, *replica), batch, end);
        }
        let cause = match why {
            RpcEnd::Retired | RpcEnd::Shutdown => Departure::Orderly(Arc::clone(&text)),
            RpcEnd::AnswerTooLarge => Departure::AnswerTooLarge(Arc::clone(&text)),
            // Of several it is not known which is to blame.
            RpcEnd::Closed | RpcEnd::Silent | RpcEnd::Hung
                if unanswered.len() < 2 || self.lanes.known().is_none() =>
            {
                Departure::Died(Arc::clone(&text))
            }
            _ => Departure::Broke(Arc::clone(&text)),
        };
        let flights = unanswered.iter().flat_map(|batch| batch.flights.iter().cloned());
        let owed = Owed::new(Arc::clone(&self.plane.cache), flights, text);
        let left = FromReplica::Left { replica: *replica, cause, owed };
        if serving.batcher.tell(left).is_err() {
            debug!(%replica, "its batcher has ended, which ends what is unanswered");
        }
    }
}

impl Actor for Container {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(self.plane.serving.mailbox_max);
        if !self.identity.extensions.is_none() {
            // Before its first batch, so that it knows how to answer that.
            let error_max_bytes = self.plane.rpc.model_error_max_bytes;
            let accepted = self.identity.accepted();
            codec::encode_extensions(&mut self.unwritten, accepted, error_max_bytes);
            self.write(ctx);
        }
        if !matches!(self.lanes, Lanes::None) {
            ctx.add_stream(lane_state::rings(Arc::clone(&self.bell)));
        }
        self.watch_silence(ctx);
        self.watch_key(ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        let (why, text) = if std::thread::panicking() {
            (RpcEnd::Panicked, "its actor panicked".to_owned())
        } else {
            self.end.take().unwrap_or((RpcEnd::Closed, "the connection was closed".to_owned()))
        };
        let Identity { model, replica, peer, .. } = &self.identity;
        let orderly = matches!(why, RpcEnd::Closed | RpcEnd::Retired | RpcEnd::Shutdown);
        let cause = if orderly { "replica_left" } else { why.label() };
        match outsiders::line(cause, peer.ip()) {
            Some(left_out) if orderly => {
                info!(%model, %replica, %peer, reason = ?why, left_out, "replica left: {text}");
            }
            Some(left_out) => {
                warn!(%model, %replica, %peer, reason = ?why, left_out, "replica dropped: {text}");
            }
            None => {}
        }
        if why != RpcEnd::Closed {
            self.last_word(&text);
        }
        self.leave(why, &text);
        self.tell_pool(News::Ended { why, text });
    }
}

impl StreamHandler<Result<Received, ReadError>> for Container {
    fn handle(&mut self, received: Result<Received, ReadError>, ctx: &mut Self::Context) {
        if self.end.is_some() {
            return;
        }
        self.last_heard = clock::now();
        match received {
            Ok(Received { incoming: Incoming::Message(frames), held }) => {
                self.receive(frames, held, ctx);
            }
            Ok(Received { incoming: Incoming::Ping { context }, .. }) => {
                self.count_unasked(context.len(), ctx);
                self.unwritten.push_pong(&context);
                self.write(ctx);
            }
            Ok(Received { incoming: Incoming::Ignored, .. }) => {
                self.count_unasked(COMMAND_MAX_BYTES, ctx);
            }
            Err(ReadError::Zmtp(error)) => {
                self.end(registration::end_of(&error), error.to_string(), ctx);
            }
            Err(error @ ReadError::GivenUp) => self.end(RpcEnd::Memory, error.to_string(), ctx),
        }
    }

    fn finished(&mut self, ctx: &mut Self::Context) {
        self.end(RpcEnd::Closed, "the connection was closed", ctx);
    }
}

impl Handler<PoolOrder> for Container {
    type Result = ();

    fn handle(&mut self, order: PoolOrder, ctx: &mut Self::Context) {
        match order {
            PoolOrder::Attach { model, batcher, attached } => {
                self.attach(model, batcher, attached, ctx);
            }
            PoolOrder::Detach => self.detach(ctx),
            PoolOrder::Close(why) => self.end(why, "the server closed the connection", ctx),
        }
    }
}

impl Handler<ToReplica> for Container {
    type Result = ();

    fn handle(&mut self, told: ToReplica, ctx: &mut Self::Context) {
        match told {
            ToReplica::Run { batch, flights } => self.run(batch, flights, ctx),
            ToReplica::GiveUp(why) => self.end(RpcEnd::Hung, why.as_ref(), ctx),
        }
    }
}
