//! Requests as they are sent, head and body: each one only gets new inputs.

use super::inputs::tensors::Body;
use super::inputs::{Protocol, Template, grpc};
use super::plan::Plan;
use super::wire;

/// A whole request.
struct WholeRequest {
    bytes: Vec<u8>,
    /// Where its body begins.
    body_at: usize,
}

impl WholeRequest {
    fn new(plan: &Plan, body: &[u8], json_bytes: Option<usize>) -> Self {
        let head = if plan.inputs.protocol == Protocol::Grpc {
            grpc::before(&plan.target.app, body.len())
        } else {
            let split = json_bytes.map(|bytes| format!("{}: {bytes}\r\n", wire::JSON_BYTES));
            let key = plan.target.key.as_ref();
            let key = key.map(|key| format!("Authorization: Bearer {key}\r\n"));
            let head = format!(
                "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n{}{}\
                 Content-Length: {}\r\n\r\n",
                plan.inputs.protocol.path(&plan.target.app),
                plan.target.host,
                key.unwrap_or_default(),
                split.unwrap_or_default(),
                body.len()
            );
            head.into_bytes()
        };
        Self { bytes: [&head[..], body].concat(), body_at: head.len() }
    }
}

/// Those of one plan.
pub(super) struct Requests(RequestKind);

enum RequestKind {
    /// New numbers.
    Numbers(WholeRequest, Template),
    /// New elements.
    Elements(WholeRequest, Body),
    /// One for each row that is given.
    Given(Vec<WholeRequest>),
}

impl Requests {
    pub(super) fn new(plan: &Plan) -> Self {
        let Some(tensors) = &plan.tensors else {
            let template = Template::new(&plan.inputs);
            let request = WholeRequest::new(plan, &template.body, template.json_bytes);
            return Self(RequestKind::Numbers(request, template));
        };
        let bodies = tensors.bodies(plan.inputs.protocol, plan.inputs.batch);
        let of = |body: &Body| WholeRequest::new(plan, &body.bytes, body.json_bytes);
        if tensors.are_given() {
            return Self(RequestKind::Given(bodies.iter().map(of).collect()));
        }
        let body = bodies.into_iter().next().unwrap_or_default();
        Self(RequestKind::Elements(of(&body), body))
    }

    /// The first request of a connection.
    pub(super) fn first(&self) -> Vec<u8> {
        match &self.0 {
            RequestKind::Numbers(request, _) | RequestKind::Elements(request, _) => {
                request.bytes.clone()
            }
            RequestKind::Given(_) => Vec::new(),
        }
    }

    /// Makes the next request of one that was sent.
    pub(super) fn renew(&self, request: &mut Vec<u8>, mut next: impl FnMut() -> u64) {
        match &self.0 {
            RequestKind::Numbers(WholeRequest { body_at, .. }, template) => {
                template.fill(request.get_mut(*body_at..).unwrap_or_default(), next);
            }
            RequestKind::Elements(WholeRequest { body_at, .. }, body) => {
                body.fill(request.get_mut(*body_at..).unwrap_or_default(), next);
            }
            RequestKind::Given(all) => {
                let at = usize::try_from(next() % all.len().max(1) as u64).unwrap_or(0);
                request.clear();
                request.extend_from_slice(all.get(at).map_or(&[], |one| &one.bytes));
            }
        }
    }
}
