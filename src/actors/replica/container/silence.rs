//! A container that says nothing: it computes, or it is gone.

use std::time::Duration;

use actix::prelude::*;

use super::Container;
use crate::metrics::RpcEnd;
use crate::rpc::access::KEY_CHECK;
use clipper_clock as clock;

impl Container {
    /// Ends a connection that is silent. One that computes may be; its batcher tells whether it
    /// hangs. But where a thread of its own has spoken meanwhile, that is expected to go on.
    pub(super) fn watch_silence(&mut self, ctx: &mut Context<Self>) {
        let limit = Duration::from_millis(self.plane.rpc.silence_timeout_ms);
        let silent = clock::now() - self.last_heard;
        let is_dispatched =
            self.serving.as_ref().is_some_and(|serving| serving.batcher.is_connected());
        let is_busy = !self.in_flight.is_empty() && is_dispatched && !self.speaks_while_busy;
        if silent >= limit && !is_busy {
            return self.end(RpcEnd::Silent, format!("nothing heard for {silent:?}"), ctx);
        }
        let left = limit.saturating_sub(silent);
        ctx.run_later(if left.is_zero() { limit } else { left }, Self::watch_silence);
    }

    /// Ends the connection of a container whose key is no good any more.
    pub(super) fn watch_key(&mut self, ctx: &mut Context<Self>) {
        let Some(admission) = &self.security.admission else { return };
        if let Err(why) = admission.check(&self.identity.model) {
            return self.end(RpcEnd::Denied, why.to_string(), ctx);
        }
        ctx.run_later(KEY_CHECK, Self::watch_key);
    }

    /// Heartbeats in the middle of a batch do not come from who computes it. One may have crossed
    /// the batch; several have not.
    pub(super) fn hear_heartbeat(&mut self) {
        // One that answers in pieces speaks between them.
        if !self.in_flight.is_empty() && self.lanes.known().is_none() {
            self.busy_heartbeats += 1;
            self.speaks_while_busy |= self.busy_heartbeats > 2;
        }
    }
}
