//! What the calls of one thread share, and which method a call is for.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use clipper_grpc::reflection::{self, Reflection};
use clipper_grpc::{Call, Gone, Limits, Reply, Status, health};
use clipper_oip::Encoding;
use clipper_oip::grpc as messages;

use super::accessed::{CallLine, Counted, Noted};
use super::reader::{self, Context, Reader};
use super::refusal::Refusal;
use super::said;
use crate::access::table::{Port, asked};
use crate::access::{Access, Refused, Shown};
use crate::http::body::Terms;
use crate::http::errors::{ApiError, shown};
use crate::http::explaining::Explaining;
use crate::http::gate::{self, Asker, Holding, Memory};
use crate::http::limits::{self, QueryLimits};
use crate::http::serve::calls::Calls;
use crate::http::serve::handshake::Handshakes;
use crate::http::serve::receive_time::ReceiveTime;
use crate::http::v2::state::V2;
use crate::metrics::http::FrontendMetrics;
use clipper_config::Config;
use clipper_domain::{AccessKey, Action, SecretHash};
use clipper_scheduling::quota::Claim;

/// What all threads say of the services.
pub(super) static REFLECTION: LazyLock<Reflection> =
    LazyLock::new(|| Reflection::new(&[reflection::DESCRIPTORS, messages::DESCRIPTORS]));

/// The settings of the frontend.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub(super) connection: Limits,
    /// For a connection without a call.
    pub(super) idle: Duration,
    /// Requests of one stream that are answered at the same time.
    pub(super) stream_requests_max: usize,
}

impl Settings {
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let Config { grpc, http, .. } = config;
        let (message_max_bytes, message_max_setting) = message_max(config);
        Self {
            connection: Limits {
                streams: grpc.streams_max,
                headers_max_bytes: grpc.headers_max_bytes,
                message_max_bytes,
                message_max_setting,
                stream_window_bytes: grpc.stream_window_bytes,
                connection_window_bytes: grpc.connection_window_bytes,
                handshake: Duration::from_millis(http.client_request_timeout_ms),
                keep_alive: Duration::from_millis(grpc.keep_alive_ms),
                keep_alive_timeout: Duration::from_millis(grpc.keep_alive_timeout_ms),
                write: Duration::from_millis(http.write_timeout_ms),
            },
            idle: Duration::from_millis(grpc.idle_timeout_ms),
            stream_requests_max: grpc.stream_requests_max,
        }
    }
}

/// How long a message may be, and by which setting.
fn message_max(Config { grpc, http, rpc, .. }: &Config) -> (usize, &'static str) {
    let own = (grpc.message_max_bytes, "grpc.message_max_bytes");
    [(http.bodies_max_bytes, "http.bodies_max_bytes"), (rpc.frame_max_bytes, "rpc.frame_max_bytes")]
        .into_iter()
        .fold(own, |least, other| if other.0 < least.0 { other } else { least })
}

/// What the frontend needs on one thread.
pub struct Parts {
    pub v2: V2,
    pub settings: Settings,
    /// Where TLS is spoken.
    pub tls: Option<Handshakes>,
    pub metrics: Arc<FrontendMetrics>,
    pub access: Arc<Access>,
}

pub(super) struct Service {
    pub(super) v2: V2,
    pub(super) settings: Settings,
    pub(super) tls: Option<Handshakes>,
    pub(super) metrics: Arc<FrontendMetrics>,
    pub(super) access: Arc<Access>,
    /// Whose key came with the call, where what it asks for may be too much.
    pub(super) limited: Option<Arc<AccessKey>>,
    /// Whoever calls, as far as limits go.
    pub(super) asker: Asker,
}

/// Who is at the other end of a connection.
pub(super) struct Caller {
    pub(super) from: IpAddr,
    /// By what its certificate is known, if it has shown one.
    pub(super) certificates: Box<[SecretHash]>,
    /// Whose key came last.
    pub(super) memory: Memory,
    pub(super) receive_time: ReceiveTime,
}

/// What a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Unary(Unary),
    StreamInfer,
    Watch,
    Reflect,
}

/// One message each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unary {
    ServerLive,
    ServerReady,
    ServerMetadata,
    ModelReady,
    ModelMetadata,
    ModelConfig,
    ModelStatistics,
    Index,
    LoadOrUnload,
    Infer,
    Check,
}

impl Method {
    /// Whether it ends when its client wants.
    fn goes_on(self) -> bool {
        !matches!(self, Self::Unary(_))
    }
}

/// Why a call is refused, in the log and for its client.
fn told(refused: Refused, from: IpAddr) -> Refusal {
    gate::tell(&refused, Some(from), None);
    ApiError::from(refused).into()
}

/// Ends when a call has to end that goes on only as long as its key is good.
async fn ended(lasting: Option<(&Holding, IpAddr)>, noted: &Noted) -> Refusal {
    match lasting {
        Some((holding, from)) => {
            let refused = holding.ended().await;
            noted.refused(&refused.to_string());
            told(refused, from)
        }
        None => std::future::pending().await,
    }
}

fn method(path: &str) -> Option<Method> {
    let (service, name) = path.strip_prefix('/')?.split_once('/')?;
    if service == health::SERVICE {
        return match name {
            "Check" => Some(Method::Unary(Unary::Check)),
            "Watch" => Some(Method::Watch),
            _ => None,
        };
    }
    if reflection::SERVICES.contains(&service) {
        return (name == "ServerReflectionInfo").then_some(Method::Reflect);
    }
    if service != messages::SERVICE {
        return None;
    }
    Some(Method::Unary(match name {
        "ModelInfer" => Unary::Infer,
        "ServerLive" => Unary::ServerLive,
        "ServerReady" => Unary::ServerReady,
        "ServerMetadata" => Unary::ServerMetadata,
        "ModelReady" => Unary::ModelReady,
        "ModelMetadata" => Unary::ModelMetadata,
        "ModelConfig" => Unary::ModelConfig,
        "ModelStatistics" => Unary::ModelStatistics,
        "RepositoryIndex" => Unary::Index,
        "RepositoryModelLoad" | "RepositoryModelUnload" => Unary::LoadOrUnload,
        "ModelStreamInfer" => return Some(Method::StreamInfer),
        _ => return None,
    }))
}

impl Service {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { mut v2, settings, tls, metrics, access } = parts;
        // Whatever is made of a message keeps to the limit of messages.
        v2.limits.bodies.max_bytes = settings.connection.message_max_bytes;
        v2.limits.bodies.terms = Terms::grpc(settings.connection.message_max_setting);
        Self { v2, settings, tls, metrics, access, limited: None, asker: Asker::default() }
    }

    /// Whether whoever calls may ask for the application or model of this name.
    pub(super) fn check_name(&self, name: &str) -> Result<(), Refusal> {
        Ok(self.limited.as_ref().map_or(Ok(()), |key| key.check_name(name))?)
    }

    /// Whose call it is, if a key is needed.
    fn admit(&self, call: &Call, caller: &Caller) -> Result<Option<Rc<Holding>>, Refused> {
        let action = asked(Port::Grpc, &call.path).0;
        let shown = Shown {
            header: call.metadata.get("authorization").map(AsRef::as_ref),
            certificates: &caller.certificates,
            from: Some(caller.from),
        };
        Memory::check(Some(&caller.memory), (action, None), (shown, &self.access))
    }

    /// The service as it is for the holder of a key, where the message says what is asked for: a
    /// name, or with [`Action::Inspect`] perhaps all of them; or where that is counted.
    fn limited(&self, call: &Call, holding: &Holding) -> Option<Self> {
        let action = asked(Port::Grpc, &call.path).0;
        let needs_nobody = ![Action::Predict, Action::Inspect].contains(&action);
        let key = &holding.holder().key;
        if key.only.is_everything() && needs_nobody {
            return None;
        }
        Some(Self {
            v2: self.v2.clone(),
            settings: self.settings,
            tls: None,
            metrics: Arc::clone(&self.metrics),
            access: Arc::clone(&self.access),
            asker: holding.asker().clone(),
            limited: Some(Arc::clone(key)),
        })
    }

    pub(super) fn limits(&self) -> &QueryLimits {
        &self.v2.limits
    }

    /// What a message counts against before it says what it asks for.
    pub(super) fn claim(&self) -> Claim {
        limits::claim_by(self.asker.clone())
    }

    /// Answers a call of whoever may call.
    ///
    /// # Errors
    /// Its client has given it up.
    pub(super) async fn answer(
        &self,
        mut call: Call,
        caller: &Caller,
        calls: &Rc<Calls>,
    ) -> Result<(), Gone> {
        let from = caller.from;
        let explaining = said::asked(&call.metadata);
        let id = explaining.request_id.as_ref();
        said::name(&mut call.reply, id);
        let mut line = CallLine::of(&call, from, id);
        let admitted = self.admit(&call, caller);
        let call = (call, explaining, caller.receive_time.clone());
        let answered = match admitted {
            Ok(None) => self.carry_out(call, calls, None, &mut line).await,
            Ok(Some(holding)) => {
                if let Some(line) = &mut line {
                    line.is_of(&holding.holder().key);
                }
                let limited = self.limited(&call.0, &holding);
                let service = limited.as_ref().unwrap_or(self);
                service.carry_out(call, calls, Some((&holding, from)), &mut line).await
            }
            Err(refused) => {
                if let Some(held) = self.access.hold(&refused, Some(from)) {
                    held.await;
                }
                let refusal = told(refused, from);
                self.refused(&refusal, &mut line);
                call.0.reply.end(&refusal.status)
            }
        };
        if let Some(line) = line {
            line.end(answered.is_err());
        }
        answered
    }

    async fn carry_out(
        &self,
        (call, explaining, receive_time): (Call, Explaining, ReceiveTime),
        calls: &Rc<Calls>,
        holding: Option<(&Holding, IpAddr)>,
        line: &mut Option<CallLine>,
    ) -> Result<(), Gone> {
        let Call { path, arrived, timeout, has_broken_timeout, encoding, metadata, .. } = call;
        let (messages, mut reply) = (call.messages, call.reply);
        let lasting = holding.filter(|_| method(&path).is_some_and(Method::goes_on));
        let mut noted = CallLine::noted(line.as_ref());
        if lasting.is_some() {
            noted = noted.ending_with_key();
        }
        let context = Context {
            deadline: timeout.and_then(|timeout| arrived.checked_add(timeout)),
            encoding: encoding.map_or(Some(Encoding::Identity), |name| Encoding::parse(&name)),
            explaining,
            metadata: Rc::new(metadata),
            noted: noted.clone(),
            receive_time: Some(receive_time),
        };
        let reader = Reader::new(messages, &self.limits().bodies, context.clone());
        let counted = Counted { reply: &mut reply, line };
        let answered = if has_broken_timeout {
            Err(Refusal::invalid("grpc-timeout: it is not a number of at most 8 digits and a unit"))
        } else {
            let answered = self.by_method(&path, reader, counted.reply, context, calls);
            tokio::select! {
                biased;
                // Pieces may come without a pause.
                refusal = ended(lasting, &noted) => Err(refusal),
                answered = answered => answered,
            }
        };
        drop(counted);
        match answered {
            Ok(()) => reply.end(&Status::ok()),
            Err(refusal) => {
                self.refused(&refusal, line);
                reply.end(&refusal.status)
            }
        }
    }

    fn refused(&self, refusal: &Refusal, line: &mut Option<CallLine>) {
        self.count(refusal);
        if let Some(line) = line {
            line.refused(refusal);
        }
    }

    pub(super) fn count(&self, refusal: &Refusal) {
        if let Some(label) = refusal.label {
            self.metrics.error(label);
        }
    }

    async fn by_method(
        &self,
        path: &str,
        mut reader: Reader,
        reply: &mut Reply,
        context: Context,
        calls: &Rc<Calls>,
    ) -> Result<(), Refusal> {
        let Some(method) = method(path) else {
            let path = shown(path);
            return Err(Refusal::unimplemented(format!("There is no method {path} here")));
        };
        match method {
            Method::Unary(method) => self.unary(method, &mut reader, reply, context).await,
            Method::StreamInfer => self.infer_stream(&mut reader, reply, context, calls).await,
            Method::Watch => self.watch(&mut reader, reply, calls).await,
            Method::Reflect => self.reflect(&mut reader, reply, calls).await,
        }
    }

    async fn unary(
        &self,
        method: Unary,
        reader: &mut Reader,
        reply: &mut Reply,
        context: Context,
    ) -> Result<(), Refusal> {
        let claim = if method == Unary::Infer { self.claim() } else { Claim::default() };
        let message = reader::only(reader, claim, self.limits()).await?;
        let (frame, _held) = match method {
            Unary::Infer => {
                let (said, answer) = tokio::select! {
                    biased;
                    answered = self.infer(message, context) => answered,
                    () = reply.given_up() => return Err(Refusal::gone()),
                };
                said.put(reply);
                answer?
            }
            other => (self.page(other, message, &context.noted).await?, None),
        };
        Ok(reply.message(frame).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::table::listed;

    #[test]
    fn the_least_of_three_settings_says_how_long_a_message_may_be() {
        let mut config = Config::default();
        let named = |config: &Config| Settings::new(config).connection.message_max_setting;
        assert_eq!(named(&config), "grpc.message_max_bytes");
        config.http.bodies_max_bytes = config.grpc.message_max_bytes - 1;
        assert_eq!(named(&config), "http.bodies_max_bytes");
        config.rpc.frame_max_bytes = config.http.bodies_max_bytes - 1;
        assert_eq!(named(&config), "rpc.frame_max_bytes");
    }

    #[test]
    fn every_method_of_the_files_is_served() {
        let methods: Vec<String> = REFLECTION.methods().collect();
        assert_eq!(methods.len(), 16, "{methods:?}");
        for path in methods {
            assert!(method(&path).is_some(), "{path}");
            assert!(listed(Port::Grpc, &path).is_some(), "{path} is not in access/table.rs");
        }
        for path in ["", "/", "x", "/inference.GRPCInferenceService", "/a/b", "//"] {
            assert_eq!(method(path), None, "{path}");
        }
    }
}
