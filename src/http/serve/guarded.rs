//! The task of one connection, which holds its client to what it owes.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_http::error::DispatchError;
use tokio::time::Sleep;
use tracing::warn;

use super::connection::Connection;
use super::progress::{Overdue, Phase};
use super::seats::Order;
use crate::logging::outsiders;
use crate::metrics::http::ConnectionEnd;

/// The task of one connection: actix-http's dispatcher `D`, and the clock.
pub struct Guarded<D> {
    dispatcher: Pin<Box<D>>,
    connection: Rc<Connection>,
    alarm: Option<Pin<Box<Sleep>>>,
    is_listening: bool,
}

impl<D: Future<Output = Result<(), DispatchError>>> Guarded<D> {
    /// Holds the connection that `dispatcher` serves to its allowances.
    pub fn new(dispatcher: D, connection: Rc<Connection>) -> Self {
        let dispatcher = Box::pin(dispatcher);
        Self { dispatcher, connection, alarm: None, is_listening: false }
    }

    /// Why the connection has to end now, if it has to.
    fn ordered(&mut self, cx: &mut Context<'_>) -> Option<ConnectionEnd> {
        let seat = &self.connection.seat;
        // A task's waker stays the same; an order uses it up.
        if !self.is_listening || seat.order() != Order::Stay {
            self.is_listening = true;
            seat.listen(cx.waker());
        }
        let progress = self.connection.progress.get();
        match seat.order() {
            Order::Stay => None,
            Order::EndIfIdle => progress.is_idle().then_some(ConnectionEnd::Shutdown),
            Order::GiveWay => match progress.phase() {
                Phase::Idle => Some(ConnectionEnd::GaveWayIdle),
                Phase::Head | Phase::Body => Some(ConnectionEnd::GaveWay),
                Phase::Answering => None,
            },
            Order::End => Some(ConnectionEnd::Shutdown),
        }
    }

    /// Waits for the deadline of what the connection waits for.
    fn overdue(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionEnd> {
        loop {
            let progress = self.connection.progress.get();
            let Some((deadline, why)) = progress.deadline(&self.connection.allowances) else {
                return Poll::Pending;
            };
            let alarm =
                self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            if deadline < alarm.deadline() {
                alarm.as_mut().reset(deadline);
            }
            ready!(alarm.as_mut().poll(cx));
            if deadline <= alarm.deadline() {
                return Poll::Ready(match why {
                    Overdue::Idle => ConnectionEnd::Idle,
                    Overdue::Head => ConnectionEnd::HeadTimeout,
                    Overdue::Piece => {
                        self.connection.wake_reader(cx.waker());
                        continue;
                    }
                    Overdue::Request => ConnectionEnd::RequestTimeout,
                    Overdue::Write => ConnectionEnd::WriteTimeout,
                });
            }
            // It was set for something that has come in time.
            alarm.as_mut().reset(deadline);
        }
    }

    fn end(&mut self, cx: &mut Context<'_>, why: ConnectionEnd) -> Poll<()> {
        self.connection.ending.set(Some(why));
        // It reads, is told that the connection is gone, and the client is told why.
        let _ = self.dispatcher.as_mut().poll(cx);
        self.connection.metrics.ended(why);
        Poll::Ready(())
    }

    fn ended(&self, result: &Result<(), DispatchError>) {
        let why = match result {
            Err(DispatchError::Parse(error)) => {
                let peer = self.connection.seat.peer();
                if let Some(left_out) = outsiders::line("not HTTP", peer) {
                    warn!(%peer, %error, left_out, "a client does not speak HTTP");
                }
                ConnectionEnd::NotHttp
            }
            Err(DispatchError::Io(_)) | Ok(()) => match self.connection.progress.get().phase() {
                Phase::Answering => ConnectionEnd::Abandoned,
                _ => ConnectionEnd::Closed,
            },
            Err(_) => ConnectionEnd::Closed,
        };
        self.connection.metrics.ended(why);
    }
}

impl<D: Future<Output = Result<(), DispatchError>>> Future for Guarded<D> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if let Some(why) = this.ordered(cx) {
            return this.end(cx, why);
        }
        this.connection.turn();
        if let Poll::Ready(result) = this.dispatcher.as_mut().poll(cx) {
            this.ended(&result);
            return Poll::Ready(());
        }
        match this.overdue(cx) {
            Poll::Ready(why) => this.end(cx, why),
            Poll::Pending => Poll::Pending,
        }
    }
}
