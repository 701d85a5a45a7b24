//! One thread of the generator: its connections, and the two loops.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use clipper_grpc::Code;
use clipper_grpc::client::{CallFailure, Client};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::error::BenchError;
use super::float::float;
use super::inputs::{GRPC_INFER, Protocol};
use super::pacing::{Schedule, Timer};
use super::plan::{Load, Plan};
use super::record::{Recorder, RequestFailure};
use super::requests::Requests;
use super::shared::SharedCounts;
use super::wire::{self, SeenAnswer};
use crate::tls::Wire;
use clipper_clock::{self as clock, Instant};

/// Requests of an open loop that may wait for a free connection; further ones are not sent.
const DUE_MAX: usize = 1_000_000;
/// Pause after a connection that could not be opened.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);
/// Room for a response at first, bytes.
const RESPONSE_BYTES: usize = 4096;

/// Which part of the load a thread takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct ThreadShare {
    /// From 0.
    pub index: usize,
    pub of: usize,
}

impl ThreadShare {
    /// This thread's part of `total`.
    fn part(self, total: usize) -> usize {
        total / self.of + usize::from(self.index < total % self.of)
    }

    fn seed(self, seed: u64) -> u64 {
        seed.wrapping_mul(1_000_003).wrapping_add(self.index as u64)
    }
}

/// Runs one thread's share of the plan.
pub(super) fn drive(
    plan: &Plan,
    share: ThreadShare,
    shared: &SharedCounts,
) -> Result<Recorder, BenchError> {
    let prepared = prepare(plan, share);
    // Every thread comes here, also one that has failed.
    shared.connected.wait();
    let (runtime, clients, idle) = prepared?;
    let recorder = runtime.block_on(load(plan, share, shared, clients))?;
    drop(idle);
    Ok(recorder)
}

type Prepared = (tokio::runtime::Runtime, Vec<Wire>, Vec<Wire>);

fn prepare(plan: &Plan, share: ThreadShare) -> Result<Prepared, BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(BenchError::io("cannot start a thread's runtime"))?;
    let connect = |count: usize| async move {
        let mut streams = Vec::with_capacity(count);
        for _ in 0..count {
            streams.push(connect(plan).await?);
        }
        Ok::<_, std::io::Error>(streams)
    };
    let what = format!("cannot connect to {}", plan.target.addr);
    let (clients, idle) = runtime
        .block_on(async {
            let clients = connect(share.part(plan.connections.max(1))).await?;
            Ok((clients, connect(share.part(plan.idle_connections)).await?))
        })
        .map_err(BenchError::io(what))?;
    Ok((runtime, clients, idle))
}

async fn connect(plan: &Plan) -> std::io::Result<Wire> {
    let connected = async {
        let stream = TcpStream::connect(plan.target.addr).await?;
        stream.set_nodelay(true)?;
        Wire::over(stream, plan.target.tls.as_ref()).await
    };
    tokio::time::timeout(plan.timeout, connected).await?
}

/// What the tasks of one thread share.
struct Thread<'a> {
    plan: &'a Plan,
    shared: &'a SharedCounts,
    recorder: RefCell<Recorder>,
    rng: RefCell<SmallRng>,
    requests: Requests,
    begin: Instant,
    /// Requests of an open loop whose time has come.
    due: RefCell<VecDeque<Instant>>,
    came: Notify,
    ended: Cell<bool>,
}

async fn load(
    plan: &Plan,
    share: ThreadShare,
    shared: &SharedCounts,
    streams: Vec<Wire>,
) -> Result<Recorder, BenchError> {
    let thread = Thread {
        plan,
        shared,
        recorder: RefCell::new(Recorder::new()?),
        rng: RefCell::new(SmallRng::seed_from_u64(share.seed(plan.seed))),
        requests: Requests::new(plan),
        begin: clock::now(),
        due: RefCell::default(),
        came: Notify::new(),
        ended: Cell::new(false),
    };
    let clients = streams.into_iter().map(|stream| LoadCaller::new(&thread, stream));
    match plan.load {
        Load::Closed => {
            futures_util::future::join_all(clients.map(LoadCaller::closed_loop)).await;
        }
        Load::Open { rate, arrivals } => {
            let phase = float(share.index as u64) / float(share.of as u64);
            let rate = rate / float(share.of as u64);
            let length = plan.warmup + plan.duration;
            let schedule = Schedule::new(rate, arrivals, phase, length, share.seed(plan.seed));
            let pacing = thread.pace(schedule);
            let clients = futures_util::future::join_all(clients.map(LoadCaller::open_loop));
            let (paced, _) = tokio::join!(pacing, clients);
            paced.map_err(BenchError::io("the timer failed"))?;
        }
    }
    Ok(thread.recorder.into_inner())
}

impl Thread<'_> {
    /// Passes on the start times of an open loop.
    async fn pace(&self, schedule: Schedule) -> std::io::Result<()> {
        let timer = Timer::new()?;
        for offset in schedule {
            let start = self.begin + offset;
            let now = clock::now();
            if start > now {
                timer.sleep(start - now).await?;
            }
            if self.due.borrow().len() < DUE_MAX {
                self.due.borrow_mut().push_back(start);
                self.came.notify_one();
            } else {
                self.failed(start, RequestFailure::NotSent);
            }
        }
        self.ended.set(true);
        self.came.notify_waiters();
        Ok(())
    }

    /// The next request of an open loop; `None` when there are no more.
    async fn next_due(&self) -> Option<Instant> {
        loop {
            // Taken before the check, so that no notice is missed between the two.
            let came = self.came.notified();
            if let Some(start) = self.due.borrow_mut().pop_front() {
                return Some(start);
            }
            if self.ended.get() {
                return None;
            }
            came.await;
        }
    }

    /// Whether a request that started then belongs to the measurement.
    fn counts(&self, start: Instant) -> bool {
        start >= self.begin + self.plan.warmup
    }

    fn failed(&self, start: Instant, failure: RequestFailure) {
        self.shared.failed.fetch_add(1, Ordering::Relaxed);
        if self.counts(start) {
            self.recorder.borrow_mut().failure(failure);
        }
    }

    fn answered(&self, start: Instant, status: u16, body: &[u8]) {
        self.shared.answered.fetch_add(1, Ordering::Relaxed);
        if !self.counts(start) {
            return;
        }
        let latency = clock::now() - start;
        let mut recorder = self.recorder.borrow_mut();
        recorder.response(status, latency);
        if status != 200 {
            return;
        }
        if self.plan.inputs.protocol != Protocol::Predict {
            // Of this protocol an answer has an output of the model for every row, or is an error.
            if self.plan.inputs.protocol == Protocol::Grpc || wire::is_v2_answer(body) {
                let rows = self.plan.inputs.per_request();
                (0..rows).for_each(|_| recorder.prediction(latency, self.plan.slo));
            } else {
                recorder.failure(RequestFailure::Answers);
            }
            return;
        }
        let batch = self.plan.inputs.batch.is_some();
        let read = wire::answers(body, batch, |answer| match answer {
            SeenAnswer::Prediction => recorder.prediction(latency, self.plan.slo),
            SeenAnswer::Default(why) => recorder.default_output(&why),
        });
        if read.is_err() {
            recorder.failure(RequestFailure::Answers);
        }
    }
}

struct LoadCaller<'a> {
    thread: &'a Thread<'a>,
    stream: Option<Wire>,
    /// What `stream` has become where gRPC is spoken.
    client: Option<Client>,
    /// Head and body of the request.
    request: Vec<u8>,
    response: Vec<u8>,
}

impl<'a> LoadCaller<'a> {
    fn new(thread: &'a Thread<'a>, stream: Wire) -> Self {
        let request = thread.requests.first();
        let response = Vec::with_capacity(RESPONSE_BYTES);
        Self { thread, stream: Some(stream), client: None, request, response }
    }

    async fn closed_loop(mut self) {
        let end = self.thread.begin + self.thread.plan.warmup + self.thread.plan.duration;
        loop {
            let start = clock::now();
            if start >= end {
                return;
            }
            self.request(start).await;
        }
    }

    async fn open_loop(mut self) {
        while let Some(start) = self.thread.next_due().await {
            if clock::now() - start > self.thread.plan.timeout {
                self.thread.failed(start, RequestFailure::NotSent);
            } else {
                self.request(start).await;
            }
        }
    }

    /// One request that was meant to start at `start`, with everything counted.
    async fn request(&mut self, start: Instant) {
        let timeout = self.thread.plan.timeout;
        let result = if self.thread.plan.inputs.protocol == Protocol::Grpc {
            tokio::time::timeout_at(start + timeout, self.call(start)).await
        } else {
            tokio::time::timeout_at(start + timeout, self.exchange(start)).await
        };
        let failure = match result {
            Ok(Ok(())) => return,
            Ok(Err(failure)) => failure,
            Err(_elapsed) => RequestFailure::Timeout,
        };
        self.thread.failed(start, failure);
        self.stream = None;
        self.client = None;
        if failure == RequestFailure::Connect {
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
    }

    /// Makes the next request.
    fn fill(&mut self, start: Instant) {
        let thread = self.thread;
        let mut rng = thread.rng.borrow_mut();
        thread.requests.renew(&mut self.request, || thread.shared.source.next(&mut rng));
        drop(rng);
        if thread.counts(start) {
            thread.recorder.borrow_mut().sent(clock::now() - start);
        }
    }

    async fn call(&mut self, start: Instant) -> Result<(), RequestFailure> {
        let plan = self.thread.plan;
        let mut client = if let Some(client) = self.client.take() {
            client
        } else {
            let stream = match self.stream.take() {
                Some(stream) => stream,
                None => connect(plan).await.map_err(|_| RequestFailure::Connect)?,
            };
            let host = &plan.target.host;
            let opened = Client::open(stream, host, GRPC_INFER, Some(plan.timeout)).await;
            let (client, connection) = opened.map_err(|_| RequestFailure::Connect)?;
            tokio::spawn(connection);
            client.with_key(plan.target.key.as_deref())
        };
        self.fill(start);
        let answer = client.call(Bytes::copy_from_slice(&self.request)).await;
        let (status, message) = answer.map_err(|failure| match failure {
            CallFailure::Connection(_) => RequestFailure::Connection,
            CallFailure::Malformed => RequestFailure::Malformed,
        })?;
        // Codes of gRPC are below all statuses of HTTP.
        let status = if status.code == Code::Ok { 200 } else { status.code as u16 };
        self.thread.answered(start, status, &message);
        self.client = Some(client);
        Ok(())
    }

    async fn exchange(&mut self, start: Instant) -> Result<(), RequestFailure> {
        let thread = self.thread;
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(thread.plan).await.map_err(|_| RequestFailure::Connect)?,
        };
        self.fill(start);
        stream.write_all(&self.request).await.map_err(|_| RequestFailure::Connection)?;
        stream.flush().await.map_err(|_| RequestFailure::Connection)?;
        let head = read_response(&mut stream, &mut self.response).await?;
        let body = self.response.get(head.body..head.total).unwrap_or_default();
        thread.answered(start, head.status, body);
        if !head.close {
            self.stream = Some(stream);
        }
        Ok(())
    }
}

/// Reads one response into `buffer`.
async fn read_response(
    stream: &mut Wire,
    buffer: &mut Vec<u8>,
) -> Result<wire::ResponseHead, RequestFailure> {
    buffer.clear();
    let mut head = None;
    loop {
        if stream.read_buf(buffer).await.map_err(|_| RequestFailure::Connection)? == 0 {
            return Err(RequestFailure::Connection);
        }
        if head.is_none() {
            head = wire::head(buffer).map_err(|_| RequestFailure::Malformed)?;
        }
        match head {
            // Without pipelining nothing may follow a response.
            Some(head) if buffer.len() > head.total => return Err(RequestFailure::Malformed),
            Some(head) if buffer.len() == head.total => return Ok(head),
            _ => {}
        }
    }
}
