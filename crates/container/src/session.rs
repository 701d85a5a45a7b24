//! The loop of a container: connect, register, answer batches, reconnect
//! (docs/container-protocol.md).

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, sleep_until};

use super::address::ServerAddress;
use super::batch_model::{BatchModel, ModelError, ModelOutput, error_output};
use super::link::{ContainerKey, Link};
use super::session_error::SessionError;
use super::tensors;
use clipper_clock::{self as clock, Backoff};
use clipper_domain::{InputType, ModelId};
use clipper_rpc::codec::{self, AnswerForm, Build, Extensions, FromServer, NoticeLevel};

/// Who a container is and how patient it is.
#[derive(Debug, Clone)]
pub struct ContainerOptions {
    /// The model version that it serves.
    pub model: ModelId,
    /// `tcp://host:port` of the server.
    pub connect: ServerAddress,
    /// Silence after which a heartbeat is sent.
    pub heartbeat_interval: Duration,
    /// Silence of the server after which the connection is given up.
    pub silence_timeout: Duration,
    /// Patience with one attempt to connect. While the port is closed the `zeromq` crate tries
    /// again inside it with pauses that double from 50 ms, so this also bounds those pauses.
    pub connect_timeout: Duration,
    /// First pause after a connection that ended young; doubles each time.
    pub retry_initial: Duration,
    /// Longest such pause.
    pub retry_max: Duration,
    /// A connection that lived this long starts again without a longer pause.
    pub settled_after: Duration,
    /// Which code and file the container runs; said to servers that want to know.
    pub build: Option<Build>,
    /// By what it is known to the server, where that asks for keys.
    pub key: Option<ContainerKey>,
}

impl ContainerOptions {
    /// The protocol's times: heartbeat after 5 s, giving up after 30 s.
    #[must_use]
    pub fn new(model: ModelId, connect: ServerAddress) -> Self {
        Self {
            model,
            connect,
            heartbeat_interval: Duration::from_secs(5),
            silence_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_millis(1200),
            retry_initial: Duration::from_millis(50),
            retry_max: Duration::from_secs(2),
            settled_after: Duration::from_secs(5),
            build: None,
            key: None,
        }
    }
}

/// Serves `model` until SIGTERM or SIGINT.
///
/// # Errors
/// Signals cannot be heard.
pub async fn run(options: ContainerOptions, model: impl BatchModel) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    run_until(options, model, stop).await;
    Ok(())
}

/// Serves `model` until `stop` is ready, reconnecting as often as it takes.
pub async fn run_until(
    options: ContainerOptions,
    model: impl BatchModel,
    stop: impl Future<Output = ()>,
) {
    tokio::select! {
        () = reconnect_for_ever(&options, model) => {}
        () = stop => tracing::info!(model = %options.model, "stopping"),
    }
}

async fn reconnect_for_ever(options: &ContainerOptions, mut model: impl BatchModel) {
    let mut backoff = Backoff::new(options.retry_initial, options.retry_max);
    let mut was_connected = true;
    loop {
        let mut connected_at = None;
        let Err(error) = serve_connection(options, &mut model, &mut connected_at).await;
        // Waiting for a server that is down is one line, not one per attempt.
        if was_connected || connected_at.is_some() {
            tracing::warn!(model = %options.model, server = %options.connect, "{error}; retrying");
        }
        was_connected = connected_at.is_some();
        // A server that refuses this container closes at once: do not ask it all the time. A
        // closed port needs no pause here, the attempts inside `connect` have theirs: those of the
        // crate, which has no keys.
        let settled = connected_at.map_or(options.key.is_none(), |since| {
            clock::now().duration_since(since) >= options.settled_after
        });
        if settled {
            backoff.reset();
        }
        sleep(backoff.next_pause()).await;
    }
}

/// One connection, from connecting to its end. Never returns `Ok`.
async fn serve_connection(
    options: &ContainerOptions,
    model: &mut impl BatchModel,
    connected_at: &mut Option<clock::Instant>,
) -> Result<std::convert::Infallible, SessionError> {
    let key = options.key.as_ref();
    let mut link = Link::open(&options.connect, options.connect_timeout, key).await?;
    *connected_at = Some(clock::now());
    tracing::info!(model = %options.model, server = %options.connect, "connected");

    link.send(codec::encode_container_heartbeat()).await?;
    let mut heard_at = clock::now();
    let mut next_heartbeat = heard_at + options.heartbeat_interval;
    let mut agreed = Agreed::default();
    loop {
        tokio::select! {
            message = link.receive() => {
                let message = codec::decode_from_server(message?, usize::MAX)?;
                if let Some(reply) = reply_to(message, options, model, &mut agreed) {
                    link.send(reply).await?;
                    // `send` returns when a task of the crate has the message. That task writes it
                    // now, not after the model has run for the next batch, which may be here.
                    tokio::task::yield_now().await;
                }
                // Taken after the model has run: its time is not the server's silence.
                heard_at = clock::now();
                next_heartbeat = heard_at + options.heartbeat_interval;
            }
            () = sleep_until(heard_at + options.silence_timeout) => {
                return Err(SessionError::Silent(options.silence_timeout));
            }
            () = sleep_until(next_heartbeat) => {
                link.send(codec::encode_container_heartbeat()).await?;
                next_heartbeat = clock::now() + options.heartbeat_interval;
            }
        }
    }
}

/// What a server has accepted of what was announced.
#[derive(Debug, Default)]
struct Agreed {
    /// Longest error that it takes; none where it takes none.
    error_max_bytes: Option<usize>,
    /// Its messages and ours may have their items in one frame.
    joined: bool,
    /// It takes how long a batch was computed.
    computed: bool,
}

impl Agreed {
    /// Of an answer that is computed `since` then.
    fn form(&self, since: clock::Instant) -> AnswerForm {
        let computed = self.computed.then(|| clock::now() - since);
        AnswerForm { joined: self.joined, computed }
    }
}

fn reply_to(
    message: FromServer,
    options: &ContainerOptions,
    model: &mut impl BatchModel,
    agreed: &mut Agreed,
) -> Option<Vec<Bytes>> {
    match message {
        // It never says that it streams or wants traces.
        FromServer::Heartbeat { send_metadata: false }
        | FromServer::Stream(_)
        | FromServer::Traces(_) => None,
        FromServer::Heartbeat { send_metadata: true } => Some(codec::encode_new_container(
            &options.model.name,
            &options.model.version,
            model.input_type(),
            Extensions::OF_BATCHES,
            model.signature().as_deref(),
        )),
        FromServer::Extensions { accepted, error_max_bytes: max } => {
            let takes_errors = accepted.has(Extensions::QUERY_ERRORS);
            agreed.error_max_bytes = takes_errors.then_some(max as usize);
            agreed.joined = accepted.has(Extensions::JOINED);
            agreed.computed = accepted.has(Extensions::COMPUTED);
            let build = options.build.as_ref().filter(|_| accepted.has(Extensions::BUILD));
            build.map(codec::encode_build)
        }
        FromServer::Notice { level, text } => {
            log_notice(&options.model, level, &text);
            None
        }
        FromServer::Predict { message_id, input_type: InputType::Tensors, inputs } => {
            let since = clock::now();
            let answer = tensors::answer(model, &inputs, agreed.error_max_bytes.unwrap_or(0));
            let form = AnswerForm { joined: false, ..agreed.form(since) };
            Some(codec::encode_answer(message_id, answer, &[], form))
        }
        FromServer::Predict { message_id, input_type, inputs } => {
            let since = clock::now();
            let outputs = predict(model, input_type, &inputs);
            let (outputs, errors) = as_frames(outputs, agreed.error_max_bytes);
            Some(codec::encode_answer(message_id, outputs, &errors, agreed.form(since)))
        }
    }
}

/// Writes what the server thinks of this container into its own log. The text comes from the
/// network, so what could confuse a terminal is escaped.
fn log_notice(model: &ModelId, level: NoticeLevel, text: &str) {
    let text = text.escape_debug();
    match level {
        NoticeLevel::Info => tracing::info!(%model, "the server says: {text}"),
        NoticeLevel::Warning => tracing::warn!(%model, "the server says: {text}"),
        NoticeLevel::Error => tracing::error!(%model, "the server says: {text}"),
    }
}

/// The outputs, and which of them are errors; all are outputs for a server that takes no errors.
fn as_frames(
    outputs: Vec<ModelOutput>,
    error_max_bytes: Option<usize>,
) -> (Vec<Bytes>, Vec<usize>) {
    let mut errors = Vec::new();
    let frame = |(index, output): (usize, ModelOutput)| match (output, error_max_bytes) {
        (Ok(text), _) => Bytes::from(text),
        (Err(ModelError(why)), None) => Bytes::from(error_output(&why)),
        (Err(ModelError(mut why)), Some(max)) => {
            errors.push(index);
            why.truncate(why.floor_char_boundary(max));
            Bytes::from(why)
        }
    };
    let frames = outputs.into_iter().enumerate().map(frame).collect();
    (frames, errors)
}

/// Asks the model and makes sure that every input has its output.
fn predict(
    model: &mut impl BatchModel,
    input_type: InputType,
    inputs: &[Bytes],
) -> Vec<ModelOutput> {
    let expected = model.input_type();
    if input_type != expected {
        let why = format!("this container takes {expected}, not {input_type}");
        return vec![Err(ModelError(why)); inputs.len()];
    }
    let outputs = model.predict(inputs);
    if outputs.len() == inputs.len() {
        return outputs;
    }
    let why = format!("the model gave {} outputs for {} inputs", outputs.len(), inputs.len());
    tracing::error!("{why}");
    vec![Err(ModelError(why)); inputs.len()]
}
