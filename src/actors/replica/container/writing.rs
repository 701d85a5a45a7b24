//! The writing half of a replica's connection.

use std::io;
use std::sync::Arc;

use actix::prelude::*;
use bytes::Buf as _;

use super::Container;
use crate::metrics::RpcEnd;
use clipper_rpc::codec::{self, Extensions, NoticeLevel};

/// Written of large inputs before others of the thread have their turn: copying takes time.
const SLICE_BYTES: usize = 256 << 10;

impl Container {
    /// Writes as much as the connection takes; the rest when it is writable again.
    pub(super) fn write(&mut self, ctx: &mut Context<Self>) {
        if self.waiting_to_write {
            return self.check_write_queue(ctx);
        }
        let mut room = SLICE_BYTES;
        while !self.unwritten.is_empty() {
            if room == 0 {
                self.await_turn(ctx);
                return self.check_write_queue(ctx);
            }
            let mut pieces = [io::IoSlice::new(&[]); 64];
            let n = self.unwritten.chunks_vectored(&mut pieces);
            let first = self.unwritten.chunk();
            let sent = if first.len() > room {
                self.write_half.try_write(first.get(..room).unwrap_or(first))
            } else {
                self.write_half.try_write_vectored(&pieces[..n])
            };
            match sent {
                Ok(0) => return self.end(RpcEnd::Closed, "it takes no more bytes", ctx),
                Ok(written) => {
                    self.unwritten.advance(written);
                    room = room.saturating_sub(written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.await_writable(ctx);
                    return self.check_write_queue(ctx);
                }
                Err(error) => return self.end(RpcEnd::Closed, error.to_string(), ctx),
            }
        }
    }

    /// Lets the others of this thread have their turn first.
    fn await_turn(&mut self, ctx: &mut Context<Self>) {
        self.waiting_to_write = true;
        let turn = tokio::task::yield_now().into_actor(self);
        ctx.spawn(turn.map(|(), container, ctx| {
            container.waiting_to_write = false;
            container.write(ctx);
        }));
    }

    fn await_writable(&mut self, ctx: &mut Context<Self>) {
        self.waiting_to_write = true;
        let write_half = Arc::clone(&self.write_half);
        let writable = async move { write_half.writable().await.map_err(|e| e.to_string()) };
        ctx.spawn(writable.into_actor(self).map(|writable, container, ctx| {
            container.waiting_to_write = false;
            match writable {
                Ok(()) => container.write(ctx),
                Err(error) => container.end(RpcEnd::Closed, error, ctx),
            }
        }));
    }

    /// Tells a container that understands it what the server thinks of it.
    pub(super) fn notice(&mut self, level: NoticeLevel, text: &str, ctx: &mut Context<Self>) {
        if self.identity.accepted().has(Extensions::NOTICES) {
            codec::encode_notice(&mut self.unwritten, level, text);
            self.write(ctx);
        }
    }

    /// The same at the end, as far as the connection takes it.
    pub(super) fn last_word(&mut self, text: &str) {
        if self.identity.accepted().has(Extensions::NOTICES) && !self.waiting_to_write {
            codec::encode_notice(&mut self.unwritten, NoticeLevel::Error, text);
            // The connection ends with or without it.
            let _ = self.write_half.try_write(self.unwritten.chunk());
        }
    }

    fn check_write_queue(&mut self, ctx: &mut Context<Self>) {
        let max = self.plane.rpc.write_queue_max_bytes;
        let queued = self.unwritten.queued_bytes();
        if queued > max {
            let text = format!("it does not read: {queued} bytes wait, the limit is {max}");
            self.end(RpcEnd::Stuck, text, ctx);
        }
    }
}
