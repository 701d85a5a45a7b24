//! Control messages are never lost and stay in order: where a mailbox is full for a moment, they
//! wait for room.
//!
//! Queries do not pass through mailboxes, so that what does is bounded by replicas, models and
//! changes, and the wait is short.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use actix::prelude::*;
use tracing::debug;

/// The way of one kind of message to one actor. What is told by one outbox arrives in order; an
/// actor that tells another several things does so by one message type with variants.
pub struct Outbox<M>
where
    M: Message<Result = ()> + Send + 'static,
{
    to: Recipient<M>,
    late: Rc<RefCell<Late<M>>>,
}

/// What waits for room; `None` while there is room.
type Late<M> = Option<VecDeque<M>>;

impl<M> Outbox<M>
where
    M: Message<Result = ()> + Send + 'static,
{
    /// The way to this actor, for the thread on which it is made.
    #[must_use]
    pub fn new(to: Recipient<M>) -> Self {
        Self { to, late: Rc::default() }
    }

    /// Tells the actor, now or as soon as it has room, also if the outbox is dropped meanwhile.
    ///
    /// # Errors
    /// The message, if the actor has ended.
    pub fn tell(&self, message: M) -> Result<(), M> {
        let mut late = self.late.borrow_mut();
        if let Some(late) = late.as_mut() {
            late.push_back(message);
            return Ok(());
        }
        match self.to.try_send(message) {
            Ok(()) => Ok(()),
            Err(SendError::Closed(message)) => Err(message),
            Err(SendError::Full(message)) => {
                *late = Some(VecDeque::from([message]));
                actix::spawn(send_all(self.to.clone(), Rc::clone(&self.late)));
                Ok(())
            }
        }
    }

    /// Whether it leads to the same actor.
    #[must_use]
    pub fn leads_to(&self, actor: &Recipient<M>) -> bool {
        self.to == *actor
    }

    /// Whether the actor lives.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.to.connected()
    }
}

impl<M> std::fmt::Debug for Outbox<M>
where
    M: Message<Result = ()> + Send + 'static,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let late = self.late.borrow().as_ref().map_or(0, VecDeque::len);
        f.debug_struct("Outbox").field("late", &late).finish_non_exhaustive()
    }
}

/// Sends what is late, one after the other, until nothing is.
async fn send_all<M>(to: Recipient<M>, late: Rc<RefCell<Late<M>>>)
where
    M: Message<Result = ()> + Send + 'static,
{
    loop {
        let next = late.borrow_mut().as_mut().and_then(VecDeque::pop_front);
        let Some(message) = next else { break };
        if to.send(message).await.is_err() {
            debug!("an actor ended before it was told");
            break;
        }
    }
    *late.borrow_mut() = None;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says what it has heard, in order.
    struct Hears(Rc<RefCell<Vec<u32>>>);

    impl Actor for Hears {
        type Context = Context<Self>;

        fn started(&mut self, ctx: &mut Self::Context) {
            ctx.set_mailbox_capacity(1);
        }
    }

    #[derive(Debug, PartialEq, Eq, Message)]
    #[rtype(result = "()")]
    struct Number(u32);

    impl Handler<Number> for Hears {
        type Result = ();

        fn handle(&mut self, number: Number, ctx: &mut Self::Context) {
            self.0.borrow_mut().push(number.0);
            if number.0 == u32::MAX {
                ctx.stop();
            }
        }
    }

    async fn until(mut is_so: impl FnMut() -> bool) {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    }

    #[actix::test]
    async fn what_finds_no_room_arrives_in_order_also_without_the_outbox() {
        let heard: Rc<RefCell<Vec<u32>>> = Rc::default();
        let actor = Hears(Rc::clone(&heard)).start();
        // Its capacity is that of a started one.
        actor.send(Number(0)).await.unwrap();
        let outbox = Outbox::new(actor.clone().recipient());
        // The actor, on this thread, does not get to any before the last is told.
        for n in 1..=1_000 {
            assert_eq!(outbox.tell(Number(n)), Ok(()));
        }
        assert!(outbox.late.borrow().is_some(), "its mailbox has no room for them");
        drop(outbox);
        until(|| heard.borrow().len() == 1_001).await;
        assert!(heard.borrow().iter().copied().eq(0..=1_000));
    }

    #[actix::test]
    async fn what_cannot_arrive_any_more_comes_back() {
        let actor = Hears(Rc::default()).start();
        let outbox = Outbox::new(actor.recipient());
        assert_eq!(outbox.tell(Number(u32::MAX)), Ok(()));
        until(|| !outbox.is_connected()).await;
        assert_eq!(outbox.tell(Number(1)), Err(Number(1)));
    }
}
